//! What a lost connection means: the next one may lead to a server that crashed, or to a replica that took over. Numbers of transactions that were seen may be
//! given out again there, and what it had not received is gone, as after the restore of a backup.

use deadpool_postgres::Object;
use mstore_protocol::{BranchKey, Epoch, Head, Timestamp};
use tokio_postgres::Error;

use super::{
    super::{
        mirror::{columns, signed},
        restore::RESTORED,
        snapshot::Shards,
        source::place,
    },
    Sequencer, Trouble,
};

/// Heads in memory that the database does not have: it has not come as far, or it has another commit of that number.
const MISSING: &str =
    "SELECT k.i FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, epoch, seq, tag, i)
    JOIN head h ON h.merchant_id = k.merchant_id AND h.branch_id = k.branch_id
    WHERE h.epoch = k.epoch AND (h.seq < k.seq OR EXISTS (SELECT FROM commit_log c WHERE c.head = h.n AND c.seq = k.seq AND c.tag <> k.tag))";

impl Sequencer {
    /// Before anything is done on a connection: whether the one of the last turn was lost.
    pub(super) async fn meet(&mut self, client: &Object) -> Result<(), Trouble> {
        let made = Object::metrics(client).created;
        self.is_lost |= self.connection.is_some_and(|last| last != made);
        if self.is_lost {
            self.begin_again(client).await?;
            self.is_lost = false;
        }
        self.connection = Some(made);
        Ok(())
    }

    /// The connection is given up after trouble; unless it was lost, the next one leads to the same server.
    pub(super) fn part(&mut self, client: &Object, trouble: &Trouble) {
        let is_alive = !matches!(trouble, Trouble::Lost(_)) && !client.is_closed();
        if is_alive {
            self.connection = None;
        }
    }

    async fn begin_again(&mut self, client: &Object) -> Result<(), Trouble> {
        self.shared.waiters.close();
        let missing = missing(client, self.shared.heads()).await?;
        tracing::warn!(missing = missing.len(), "connected to the database again");
        new_epochs(client, &missing, self.now()).await?;
        // Everything is read again with the shards.
        self.shared.set_held(Shards::default());
        self.balanced_at = None;
        self.since = None;
        self.backlog.clear();
        Ok(())
    }
}

async fn missing(client: &Object, heads: Vec<(BranchKey, Head)>) -> Result<Vec<(BranchKey, Head)>, Error> {
    let (merchants, branches) = columns(heads.iter().map(|(key, _)| key));
    let epochs: Vec<String> = heads.iter().map(|(_, head)| head.epoch.to_string()).collect();
    let seqs: Vec<i64> = heads.iter().map(|(_, head)| signed(head.seq)).collect();
    let tags: Vec<String> = heads.iter().map(|(_, head)| head.tag.to_string()).collect();
    let rows = client.query(MISSING, &[&merchants, &branches, &epochs, &seqs, &tags]).await?;
    Ok(rows.iter().map(|row| heads[place(row)].clone()).collect())
}

/// Does what the first device with a lost cursor would make us do, before any commit takes a number that a device knows already.
async fn new_epochs(client: &Object, missing: &[(BranchKey, Head)], now: Timestamp) -> Result<(), Error> {
    if missing.is_empty() {
        return Ok(());
    }
    client.batch_execute("BEGIN").await?;
    let (now, raise) = (now.to_string(), "INSERT INTO alarm (at, kind, merchant_id, branch_id, detail) VALUES ($1, $2, $3, $4, $5)");
    for (key, head) in missing {
        let (merchant, branch) = (key.merchant.as_str(), key.branch.as_str());
        let (before, after) = (head.epoch.to_string(), Epoch::from_bits(rand::random()).to_string());
        let sql = "UPDATE head SET epoch = $1, at = $2, is_untold = 1 WHERE merchant_id = $3 AND branch_id = $4 AND epoch = $5";
        if client.execute(sql, &[&after, &now, &merchant, &branch, &before]).await? == 0 {
            continue;
        }
        let detail = format!(
            "this server made commit {} and the database does not have it: it lost its newest commits in a failover or was restored from a backup. A new \
             epoch was started; devices compare, fetch what differs and upload again what they did in the last 30 days",
            head.seq
        );
        tracing::error!(branch = %key, detail, "commits are lost");
        client.execute(raise, &[&now, &RESTORED, &merchant, &branch, &detail]).await?;
        client
            .execute("INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('branch', $1, $2, '')", &[&merchant, &branch])
            .await?;
    }
    client.batch_execute("COMMIT").await
}
