//! Writes what a round has decided: statements follow each other without waiting for answers. COMMIT has to wait for all of them, for a statement that must be
//! prepared first would come after it.

use deadpool_postgres::Object;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, try_join, try_join_all},
};
use mstore_engine::sequence::Difference;
use mstore_protocol::{BranchKey, Collection, Timestamp};
use tokio_postgres::Error;

use super::{
    super::{
        mirror::{self, HeadEntry, columns, signed},
        snapshot::Snapshot,
    },
    BLOCKED, RETRY_AFTER,
    marks::{self, Taken},
    round::{Branch, Outcome},
};
use crate::{OutboxEntry, OutboxMessage, cases::alarms};

/// Rows written by one statement.
const ROWS_PER_STATEMENT: usize = 5_000;
/// Rows written without waiting for each other's answer.
const ROWS_ON_THEIR_WAY: usize = 4 * ROWS_PER_STATEMENT;
/// The alarm of a mass deletion.
const HELD: &str = "mass_delete_held";

/// What a round writes.
pub(super) struct Writes<'a> {
    /// In the round's transaction.
    pub(super) client: &'a Object,
    /// The time of the round.
    pub(super) now: Timestamp,
    /// Its snapshot.
    pub(super) snapshot: &'a Snapshot,
    /// What it took.
    pub(super) taken: &'a Taken,
    /// What became of it.
    pub(super) branches: &'a [Branch],
    /// What is to be published, with the number of its head.
    pub(super) entries: &'a [(i64, OutboxEntry)],
    /// Heads whose older entries go.
    pub(super) collapsed: &'a [i64],
    /// Acknowledged entries, which go too.
    pub(super) acknowledged: &'a [u64],
}

type Statement<'a> = BoxFuture<'a, Result<(), Error>>;

impl Writes<'_> {
    /// Writes everything; answers the heads of the acknowledged entries.
    pub(super) async fn write(&self) -> Result<Vec<i64>, Error> {
        if !self.collapsed.is_empty() {
            self.execute("DELETE FROM outbox WHERE head = ANY($1)", self.collapsed.to_vec()).await?;
        }
        let visited: Vec<&BranchKey> = self.branches.iter().filter(|branch| branch.is_visited()).map(|branch| &branch.key).collect();
        let changes: Vec<(i64, u64, &Difference)> = self.changes().collect();
        let changed: Vec<(&HeadEntry, &[Collection])> =
            self.branches.iter().filter_map(|branch| Some((&branch.entry, &branch.commit.as_ref()?.changed[..]))).collect();
        let mut statements: Vec<Statement<'_>> = Vec::new();
        // Of many rows the first go one statement after the other: on their way all together they would be in memory once more.
        let (first, last) = changes.split_at(changes.len().saturating_sub(ROWS_ON_THEIR_WAY));
        for chunk in first.chunks(ROWS_PER_STATEMENT) {
            mirror::write(self.client, chunk).await?;
        }
        for chunk in last.chunks(ROWS_PER_STATEMENT) {
            statements.push(mirror::write(self.client, chunk).boxed());
        }
        statements.push(self.heads().boxed());
        if !changed.is_empty() {
            statements.push(mirror::store_collections(self.client, &changed).boxed());
            statements.push(self.log().boxed());
        }
        if !self.entries.is_empty() {
            statements.push(self.outbox().boxed());
        }
        self.settle(&mut statements);
        self.alarm(&mut statements);
        statements.push(marks::delete(self.client, self.taken, &visited).boxed());
        let (_, forgotten) = try_join(try_join_all(statements), forget(self.client, self.acknowledged)).await?;
        Ok(forgotten)
    }

    fn changes(&self) -> impl Iterator<Item = (i64, u64, &Difference)> {
        let committed = self.branches.iter().filter(|branch| branch.commit.is_some());
        committed.flat_map(|branch| branch.differences.iter().map(|difference| (branch.entry.n, branch.entry.state.seq, difference)))
    }

    async fn execute(&self, sql: &'static str, numbers: Vec<i64>) -> Result<(), Error> {
        let statement = self.client.prepare_cached(sql).await?;
        self.client.execute(&statement, &[&numbers]).await.map(|_| ())
    }

    async fn heads(&self) -> Result<(), Error> {
        let known = || self.branches.iter().filter(|branch| !matches!(branch.outcome, Outcome::Unknown));
        let ns: Vec<i64> = known().map(|branch| branch.entry.n).collect();
        let seqs: Vec<i64> = known().map(|branch| signed(branch.entry.state.seq)).collect();
        let tags: Vec<String> = known().map(|branch| branch.entry.state.tag.to_string()).collect();
        let ats: Vec<String> = known().map(|branch| branch.entry.state.at.to_string()).collect();
        let held: Vec<Option<String>> = known().map(|branch| branch.entry.held_since.map(|at| at.to_string())).collect();
        let visited: Vec<bool> = known().map(Branch::is_visited).collect();
        let sql = "UPDATE head h SET seq = k.seq, tag = k.tag, at = k.at, held_since = k.held, is_untold = 0,
              snapshot = CASE WHEN k.visited THEN $7::text::pg_snapshot ELSE h.snapshot END
            FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bool[]) AS k (n, seq, tag, at, held, visited) WHERE h.n = k.n";
        let statement = self.client.prepare_cached(sql).await?;
        self.client.execute(&statement, &[&ns, &seqs, &tags, &ats, &held, &visited, &self.snapshot.text]).await.map(|_| ())
    }

    async fn log(&self) -> Result<(), Error> {
        let committed = || self.branches.iter().filter(|branch| branch.commit.is_some()).map(|branch| &branch.entry);
        let ns: Vec<i64> = committed().map(|entry| entry.n).collect();
        let seqs: Vec<i64> = committed().map(|entry| signed(entry.state.seq)).collect();
        let tags: Vec<String> = committed().map(|entry| entry.state.tag.to_string()).collect();
        let ats: Vec<String> = committed().map(|entry| entry.state.at.to_string()).collect();
        let sql = "INSERT INTO commit_log (head, seq, tag, at) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[])";
        let statement = self.client.prepare_cached(sql).await?;
        self.client.execute(&statement, &[&ns, &seqs, &tags, &ats]).await.map(|_| ())
    }

    async fn outbox(&self) -> Result<(), Error> {
        let ids: Vec<i64> = self.entries.iter().map(|(_, entry)| signed(entry.id)).collect();
        let heads: Vec<i64> = self.entries.iter().map(|(head, _)| *head).collect();
        let seqs: Vec<i64> = self.entries.iter().map(|(_, entry)| signed(entry.seq)).collect();
        let ats: Vec<String> = self.entries.iter().map(|(_, entry)| entry.at.to_string()).collect();
        let parts = self.entries.iter().map(|(_, entry)| match &entry.message {
            OutboxMessage::Frame { collection, payload } => (Some(collection.as_str()), Some(&**payload)),
            OutboxMessage::HeadOnly => (None, None),
        });
        let (collections, payloads): (Vec<_>, Vec<_>) = parts.unzip();
        let sql = "INSERT INTO outbox (id, head, seq, at, collection, payload)
            SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[])";
        let statement = self.client.prepare_cached(sql).await?;
        self.client.execute(&statement, &[&ids, &heads, &seqs, &ats, &collections, &payloads]).await.map(|_| ())
    }

    /// Operations and events whose effects are in the branches now get their seq; what was named is not named again.
    fn settle<'a>(&'a self, statements: &mut Vec<Statement<'a>>) {
        let of = |wants: fn(&Branch) -> bool| -> Vec<&Branch> {
            self.branches.iter().filter(|branch| matches!(branch.outcome, Outcome::Done(_)) && wants(branch)).collect()
        };
        let settled = [
            (
                of(|branch| !branch.extras.operations.is_empty()),
                "UPDATE operation o SET seq = k.seq FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (merchant_id, branch_id, seq)
                  WHERE o.merchant_id = k.merchant_id AND o.branch_id = k.branch_id AND o.seq IS NULL AND o.status = 'accepted' AND o.awaits_event = 0",
            ),
            (
                of(|branch| branch.extras.has_events),
                "UPDATE event_seen e SET seq = k.seq FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (merchant_id, branch_id, seq)
                  WHERE e.merchant_id = k.merchant_id AND e.branch_id = k.branch_id AND e.seq IS NULL",
            ),
            (
                of(|branch| !branch.extras.named.is_empty()),
                // What a backend rejected has the commit that tells its till to ask.
                "WITH named AS (DELETE FROM named_operation o USING unnest($1::text[], $2::text[], $3::bigint[]) AS k (merchant_id, branch_id, seq)
                    WHERE o.merchant_id = k.merchant_id AND o.branch_id = k.branch_id RETURNING o.merchant_id, o.branch_id, o.id, k.seq)
                  UPDATE operation o SET seq = n.seq FROM named n
                  WHERE o.merchant_id = n.merchant_id AND o.branch_id = n.branch_id AND o.id = n.id AND o.seq IS NULL AND o.awaits_event = 0",
            ),
            (
                of(|branch| branch.extras.is_on_hold),
                "DELETE FROM hold o USING unnest($1::text[], $2::text[], $3::bigint[]) AS k (merchant_id, branch_id, seq)
                  WHERE o.merchant_id = k.merchant_id AND o.branch_id = k.branch_id",
            ),
        ];
        for (branches, sql) in settled.into_iter().filter(|(branches, _)| !branches.is_empty()) {
            statements.push(
                async move {
                    let (merchants, names) = columns(branches.iter().map(|branch| &branch.key));
                    let seqs: Vec<i64> = branches.iter().map(|branch| signed(branch.entry.state.seq)).collect();
                    let statement = self.client.prepare_cached(sql).await?;
                    self.client.execute(&statement, &[&merchants, &names, &seqs]).await.map(|_| ())
                }
                .boxed(),
            );
        }
    }

    /// Alarms about branches and rows, raised once and cleared when they are over.
    fn alarm<'a>(&'a self, statements: &mut Vec<Statement<'a>>) {
        for branch in self.branches {
            let key = &branch.key;
            match &branch.outcome {
                Outcome::Held(mass) if !branch.extras.is_on_hold => {
                    let detail = format!("{mass}; check the source, then restore the rows or confirm the hold");
                    tracing::error!(branch = %key, %detail, "commit held");
                    statements.push(self.hold(key, detail.clone()).boxed());
                    statements.push(self.raise(HELD, key, detail).boxed());
                }
                Outcome::Blocked(error) if !branch.extras.is_alarmed => {
                    statements.push(self.raise(BLOCKED, key, blocked(error)).boxed());
                }
                Outcome::Done(_) => {
                    if branch.extras.is_on_hold {
                        tracing::warn!(branch = %key, confirmed = branch.extras.is_confirmed, "held commit released");
                        statements.push(self.clear(HELD, key).boxed());
                    }
                    if branch.extras.is_alarmed {
                        statements.push(self.clear(BLOCKED, key).boxed());
                    }
                }
                Outcome::Held(_) | Outcome::Blocked(_) | Outcome::Unknown => {}
            }
            for ((collection, id), why) in branch.bad.iter().filter(|((collection, id), _)| !branch.extras.is_quarantined(collection, id)) {
                let row = alarms::row(collection, id);
                let detail = format!("{row}{why}; devices keep what they have until it is corrected at the source");
                statements.push(self.raise(alarms::QUARANTINED, key, detail).boxed());
            }
            let over: Vec<i64> = branch.fine.iter().filter_map(|(collection, id)| branch.extras.alarm_of(collection, id)).collect();
            if !over.is_empty() {
                statements.push(self.clear_those(over).boxed());
            }
        }
    }

    async fn hold(&self, key: &BranchKey, detail: String) -> Result<(), Error> {
        let sql = "INSERT INTO hold (merchant_id, branch_id, at, detail) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        let statement = self.client.prepare_cached(sql).await?;
        let at = self.now.to_string();
        self.client.execute(&statement, &[&key.merchant.as_str(), &key.branch.as_str(), &at, &detail]).await.map(|_| ())
    }

    async fn raise(&self, kind: &'static str, key: &BranchKey, detail: String) -> Result<(), Error> {
        tracing::warn!(kind, branch = %key, detail, "alarm raised");
        let sql = "INSERT INTO alarm (at, kind, merchant_id, branch_id, detail) VALUES ($1, $2, $3, $4, $5)";
        let statement = self.client.prepare_cached(sql).await?;
        let at = self.now.to_string();
        self.client.execute(&statement, &[&at, &kind, &key.merchant.as_str(), &key.branch.as_str(), &detail]).await.map(|_| ())
    }

    async fn clear(&self, kind: &'static str, key: &BranchKey) -> Result<(), Error> {
        let sql = "UPDATE alarm SET cleared_at = $1 WHERE cleared_at IS NULL AND kind = $2 AND merchant_id = $3 AND branch_id = $4";
        let statement = self.client.prepare_cached(sql).await?;
        let at = self.now.to_string();
        self.client.execute(&statement, &[&at, &kind, &key.merchant.as_str(), &key.branch.as_str()]).await.map(|_| ())
    }

    async fn clear_those(&self, alarms: Vec<i64>) -> Result<(), Error> {
        let statement = self.client.prepare_cached("UPDATE alarm SET cleared_at = $1 WHERE id = ANY($2)").await?;
        self.client.execute(&statement, &[&self.now.to_string(), &alarms]).await.map(|_| ())
    }
}

/// Deletes acknowledged entries and answers the heads that they were of.
pub(super) async fn forget(client: &Object, ids: &[u64]) -> Result<Vec<i64>, Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i64> = ids.iter().map(|id| signed(*id)).collect();
    let statement = client.prepare_cached("DELETE FROM outbox WHERE id = ANY($1) RETURNING head").await?;
    Ok(client.query(&statement, &[&ids]).await?.iter().map(|row| row.get(0)).collect())
}

/// What the alarm of a branch that stands still says.
pub(super) fn blocked(error: &str) -> String {
    format!("its changes cannot be sequenced, and are tried again every {} s: {error}", RETRY_AFTER.as_secs())
}
