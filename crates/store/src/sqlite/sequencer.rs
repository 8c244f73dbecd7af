//! The sequencer: marks become commits, inside the transaction of whoever calls it.
//!
//! It takes all visible marks of a branch or none, so a writer's transaction is never shown in part.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use mstore_engine::sequence::{self, BranchState, Delivery, Difference};
use mstore_protocol::{BranchKey, Collection, Epoch, Head, OperationId, PersonalData, Seq, Tag, Timestamp};
use rusqlite::{Connection, params};

use self::marks::{Marked, delete_marks, differences, groups};
use super::{
    SqliteConfig,
    error::damaged,
    mirror::{self, HeadEntry},
    outbox, source,
};
use crate::{OutboxEntry, OutboxMessage, StoreError, cases::alarms, failpoint, source_row::SourceRow};

mod held;
mod marks;

/// A branch that is held or could not be sequenced is looked at again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The alarm of a branch that stands still.
const BLOCKED: &str = "branch_blocked";

/// What one transaction did; valid only once it is durable.
#[derive(Default)]
pub(super) struct Round {
    /// Heads that changed.
    pub(super) heads: BTreeMap<BranchKey, HeadEntry>,
    /// When its transaction was durable, microseconds since 1970.
    pub(super) durable_at_us: i64,
    /// What is to be published.
    pub(super) outbox: Vec<OutboxEntry>,
    /// The branches of acknowledged entries that were deleted, one for each.
    pub(super) forgotten: Vec<BranchKey>,
    /// The branches that collapsed: nothing older of them is in the outbox.
    pub(super) collapsed: BTreeSet<BranchKey>,
    /// The commits made.
    pub(super) commits: BTreeMap<BranchKey, Seq>,
    /// Branches whose marks were left for the next transaction.
    pub(super) deferred: BTreeSet<BranchKey>,
    /// Branches that are held or failed.
    pub(super) blocked: BTreeSet<BranchKey>,
    /// Held branches that an operator lets go.
    pub(super) confirmed: BTreeSet<BranchKey>,
    /// Operations to be named although nobody uploaded them.
    pub(super) named: BTreeMap<BranchKey, Vec<OperationId>>,
    /// Branches that came to stand still, and since when, or go on.
    pub(super) held: BTreeMap<BranchKey, Option<Timestamp>>,
}

/// What the sequencer remembers between transactions; all of it can be read from the database again.
pub(super) struct Sequencer {
    heads: HashMap<BranchKey, HeadEntry>,
    backlog: HashMap<BranchKey, usize>,
    last_outbox_id: u64,
    retry_at: HashMap<BranchKey, Timestamp>,
    /// Branches that stand still, and since when: their heads say so.
    held: HashMap<BranchKey, Timestamp>,
    /// Branches whose commit could not be written, and why: the alarm goes into the next transaction, for this one is undone.
    unalarmed: BTreeMap<BranchKey, String>,
}

fn retry_after_ms() -> i64 {
    i64::try_from(RETRY_AFTER.as_millis()).expect("seconds")
}

/// The transaction that the sequencer works in.
#[derive(Clone, Copy)]
pub(super) struct Within<'a> {
    pub(super) conn: &'a Connection,
    pub(super) config: &'a SqliteConfig,
    /// The time of the transaction.
    pub(super) now: Timestamp,
}

impl Sequencer {
    /// Reads where everything stands.
    pub(super) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let heads: HashMap<_, _> = mirror::load_heads(conn)?.into_iter().collect();
        let mut statement =
            conn.prepare_cached("SELECT h.merchant_id, h.branch_id, count(*) FROM outbox o JOIN head h ON h.n = o.head GROUP BY o.head")?;
        let backlog = statement.query_map([], |row| Ok((mirror::key(row, 0)?, row.get(2)?)))?.collect::<Result<_, _>>()?;
        let last_outbox_id = outbox::newest(conn)?;
        Ok(Self { heads, backlog, last_outbox_id, retry_at: HashMap::new(), held: held::load(conn)?, unalarmed: BTreeMap::new() })
    }

    /// All branches.
    pub(super) fn branches(&self) -> impl Iterator<Item = &BranchKey> {
        self.heads.keys()
    }

    /// A branch's head as devices see it.
    pub(super) fn public_head(&self, key: &BranchKey) -> Option<Head> {
        Some(Head { held_since: self.held.get(key).copied(), ..self.heads.get(key)?.head() })
    }

    /// The head of a branch as the round has it.
    pub(super) fn head<'a>(&'a self, round: &'a Round, key: &BranchKey) -> Option<&'a HeadEntry> {
        round.heads.get(key).or_else(|| self.heads.get(key))
    }

    /// The round is durable.
    pub(super) fn accept(&mut self, round: &Round, now: Timestamp) {
        for (key, entry) in &round.heads {
            self.heads.insert(key.clone(), entry.clone());
        }
        for key in &round.collapsed {
            self.backlog.remove(key);
        }
        for key in &round.forgotten {
            if let Some(count) = self.backlog.get_mut(key) {
                *count = count.saturating_sub(1);
            }
        }
        for entry in &round.outbox {
            self.last_outbox_id = self.last_outbox_id.max(entry.id);
            *self.backlog.entry(entry.key.clone()).or_default() += 1;
        }
        for key in round.commits.keys() {
            self.retry_at.remove(key);
        }
        for (key, since) in &round.held {
            match since {
                Some(since) => self.held.insert(key.clone(), *since),
                None => self.held.remove(key),
            };
        }
        for key in &round.blocked {
            let at = self.retry_at.entry(key.clone()).or_insert(now);
            if *at <= now {
                *at = now.plus_ms(retry_after_ms());
            }
        }
        self.unalarmed.clear();
    }

    /// After a failure: everything from the database again, but which branches to leave out is not in there.
    pub(super) fn reload(&mut self, loaded: Self) {
        *self = Self { retry_at: std::mem::take(&mut self.retry_at), unalarmed: std::mem::take(&mut self.unalarmed), ..loaded };
    }

    /// Whether a blocked branch is due again, or an alarm about one.
    pub(super) fn is_retry_due(&self, now: Timestamp) -> bool {
        !self.unalarmed.is_empty() || self.retry_at.values().any(|at| *at <= now)
    }

    /// Sequences the marks of whole branches, oldest first, up to a bound; then settles what the touched branches have left.
    pub(super) fn step(&mut self, within: Within<'_>, touched: &BTreeSet<BranchKey>, round: &mut Round) -> Result<(), StoreError> {
        for (key, error) in &self.unalarmed {
            held::alarm(within, key, error)?;
            if let Some(entry) = self.heads.get(key) {
                self.stand_still(within, key, entry, round)?;
            }
        }
        let mut visited = BTreeSet::new();
        let mut taken = 0;
        for group in groups(within.conn)? {
            if taken > 0 && taken + group.marks > within.config.marks_per_transaction {
                round.deferred.insert(group.key);
                continue;
            }
            taken += group.marks;
            visited.insert(group.key.clone());
            self.visit(within, &group.key, round)?;
        }
        for key in touched.difference(&visited) {
            if !round.deferred.contains(key) {
                self.visit(within, key, round)?;
            }
        }
        Ok(())
    }

    /// One branch. What cannot be read stops no other; what cannot be written undoes the transaction, and the next leaves the branch out.
    fn visit(&mut self, within: Within<'_>, key: &BranchKey, round: &mut Round) -> Result<(), StoreError> {
        let Within { conn, now, .. } = within;
        if self.retry_at.get(key).is_some_and(|at| *at > now) && !round.confirmed.contains(key) {
            round.blocked.insert(key.clone());
            return Ok(());
        }
        let Some(entry) = self.head_or_new(conn, now, key, round)? else {
            // Marks of a branch that does not exist: when it is made, everything is marked again.
            return delete_marks(conn, key);
        };
        let compared = differences(within, &entry, key);
        let marked = match compared {
            Ok(marked) => marked,
            Err(error) if conn.is_autocommit() => return Err(error),
            Err(error) => {
                round.blocked.insert(key.clone());
                held::alarm(within, key, &error.to_string())?;
                return self.stand_still(within, key, &entry, round);
            }
        };
        let was_blocked = self.retry_at.remove(key).is_some();
        let has_marks = marked.has_marks;
        let written = self.sequence(within, key, entry, &marked, round);
        if let Err(StoreError::Failed(error)) = &written {
            self.retry_at.insert(key.clone(), now.plus_ms(retry_after_ms()));
            self.unalarmed.insert(key.clone(), error.clone());
        } else if written.is_ok() && (has_marks || was_blocked) {
            alarms::clear(conn, now, BLOCKED, key)?;
        }
        written
    }

    fn sequence(
        &mut self,
        within: Within<'_>,
        key: &BranchKey,
        mut entry: HeadEntry,
        marked: &Marked,
        round: &mut Round,
    ) -> Result<(), StoreError> {
        let Within { conn, config, now } = within;
        let Marked { differences, named, has_marks } = marked;
        if let Some(mass) = sequence::mass_deletion(&entry.state, differences).filter(|_| !round.confirmed.contains(key)) {
            held::hold(conn, key, now, &mass)?;
            round.blocked.insert(key.clone());
            return self.stand_still(within, key, &entry, round);
        }
        let mut ops = unsequenced_operations(conn, key)?;
        let uploaded = !ops.is_empty();
        let mut named = named.clone();
        named.extend(round.named.get(key).into_iter().flatten());
        ops.extend(named.iter().copied().filter(|id| !ops.contains(id)).collect::<Vec<_>>());
        let tag = Tag::from_bits(rand::random());
        // Tills wait to hear of what is named: without a change there is a commit all the same.
        let nothing_else = || (!named.is_empty()).then(|| sequence::naming(&entry.state, tag, now));
        if let Some(commit) = sequence::commit(&entry.state, differences, &ops, tag, now).or_else(nothing_else) {
            mirror::write(conn, entry.n, commit.state.seq, differences)?;
            failpoint::point("mirror_written");
            entry.state = commit.state;
            mirror::store_head(conn, &entry, &commit.changed)?;
            log_commit(conn, &entry)?;
            failpoint::point("head_written");
            self.enqueue(conn, config, key, &entry, commit.delivery, round)?;
            failpoint::point("outbox_written");
            round.commits.insert(key.clone(), entry.state.seq);
        }
        if *has_marks {
            delete_marks(conn, key)?;
            failpoint::point("marks_deleted");
            held::release(conn, key, now, round.confirmed.contains(key))?;
        }
        settle(conn, key, entry.state.seq, uploaded)?;
        settle_named(conn, key, entry.state.seq, &named)?;
        self.go_on(within, key, &entry, round)?;
        round.heads.insert(key.clone(), entry);
        Ok(())
    }

    fn head_or_new(&self, conn: &Connection, now: Timestamp, key: &BranchKey, round: &Round) -> Result<Option<HeadEntry>, StoreError> {
        if let Some(entry) = self.head(round, key) {
            return Ok(Some(entry.clone()));
        }
        let sql = "SELECT 1 FROM branch WHERE merchant_id = ?1 AND branch_id = ?2";
        let exists = conn.prepare_cached(sql)?.exists([key.merchant.as_str(), key.branch.as_str()])?;
        if !exists {
            return Ok(None);
        }
        let state = BranchState::new(Epoch::from_bits(rand::random()), now);
        mirror::create_head(conn, key, state).map(Some)
    }

    /// Puts a commit's messages into the outbox; a backlog beyond the bound becomes one head.
    fn enqueue(
        &self,
        conn: &Connection,
        config: &SqliteConfig,
        key: &BranchKey,
        entry: &HeadEntry,
        delivery: Delivery,
        round: &mut Round,
    ) -> Result<(), StoreError> {
        let backlog = self.backlog.get(key).copied().unwrap_or(0);
        let collapses = backlog >= config.outbox_per_branch_max;
        if collapses {
            conn.prepare_cached("DELETE FROM outbox WHERE head = ?1")?.execute([entry.n])?;
            round.collapsed.insert(key.clone());
            tracing::warn!(branch = %key, backlog, "outbox collapsed: devices will pull");
        }
        match delivery {
            Delivery::Frames(frames) if !collapses => {
                for (collection, payload) in frames {
                    self.push(conn, key, entry, OutboxMessage::Frame { collection, payload: payload.into() }, round)?;
                }
                Ok(())
            }
            Delivery::Frames(_) | Delivery::HeadOnly => self.push(conn, key, entry, OutboxMessage::HeadOnly, round),
        }
    }

    /// Adds one message.
    pub(super) fn push(
        &self,
        conn: &Connection,
        key: &BranchKey,
        entry: &HeadEntry,
        message: OutboxMessage,
        round: &mut Round,
    ) -> Result<(), StoreError> {
        let id = round.outbox.last().map_or(self.last_outbox_id, |last| last.id) + 1;
        let (collection, payload) = match &message {
            OutboxMessage::Frame { collection, payload } => (Some(collection.as_str()), Some(&**payload)),
            OutboxMessage::HeadOnly => (None, None),
        };
        let at = entry.state.at;
        conn.prepare_cached("INSERT INTO outbox (id, head, seq, at, collection, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![id, entry.n, entry.state.seq, at.to_string(), collection, payload])?;
        round.outbox.push(OutboxEntry { id, key: key.clone(), seq: entry.state.seq, at, message });
        Ok(())
    }
}

/// What comparing a row came to.
pub(super) enum Compared {
    /// Devices have what the source has.
    Same,
    /// They do not.
    Differs(Difference),
    /// The source row breaks the rules of rows.
    Bad(String),
}

/// Compares one row with its source.
pub(super) fn compare(
    conn: &Connection,
    entry: &HeadEntry,
    key: &BranchKey,
    (collection, id): (&str, &str),
    personal: &PersonalData,
) -> Result<Compared, StoreError> {
    let new = source::read(conn, key, collection, id)?.screened(personal);
    let old = mirror::read(conn, entry.n, collection, id)?;
    let name = Collection::parse(collection).map_err(|error| damaged("a collection", error))?;
    let (new, expired) = match new {
        SourceRow::Is(text) => (Some(text), false),
        SourceRow::Gone => (None, false),
        SourceRow::Expired => (None, true),
        SourceRow::Bad(why) => return Ok(Compared::Bad(why)),
        SourceRow::Kept => return Ok(Compared::Same),
    };
    let difference = Difference::between(&name, id, old, new);
    Ok(difference.map_or(Compared::Same, |difference| Compared::Differs(Difference { expired, ..difference })))
}

fn log_commit(conn: &Connection, entry: &HeadEntry) -> Result<(), StoreError> {
    let state = &entry.state;
    conn.prepare_cached("INSERT INTO commit_log (head, seq, tag, at) VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        entry.n,
        state.seq,
        state.tag.to_string(),
        state.at.to_string()
    ])?;
    Ok(())
}

fn unsequenced_operations(conn: &Connection, key: &BranchKey) -> Result<Vec<OperationId>, StoreError> {
    let sql = "SELECT id FROM operation WHERE merchant_id = ?1 AND branch_id = ?2 AND seq IS NULL AND status = 'accepted' AND awaits_event = 0 ORDER BY n";
    let mut statement = conn.prepare_cached(sql)?;
    let ids = statement.query_map([key.merchant.as_str(), key.branch.as_str()], |row| row.get::<_, String>(0))?;
    ids.map(|id| OperationId::parse(&id?).ok_or_else(|| damaged("an operation", "its id"))).collect()
}

/// Operations and events whose effects are in the branch now get its seq.
fn settle(conn: &Connection, key: &BranchKey, seq: Seq, operations: bool) -> Result<(), StoreError> {
    let who = params![seq, key.merchant.as_str(), key.branch.as_str()];
    if operations {
        let sql = "UPDATE operation SET seq = ?1 WHERE merchant_id = ?2 AND branch_id = ?3 AND seq IS NULL AND status = 'accepted' AND awaits_event = 0";
        conn.prepare_cached(sql)?.execute(who)?;
    }
    conn.prepare_cached("UPDATE event_seen SET seq = ?1 WHERE merchant_id = ?2 AND branch_id = ?3 AND seq IS NULL")?.execute(who)?;
    Ok(())
}

/// What a backend rejected has the commit that tells its till to ask.
fn settle_named(conn: &Connection, key: &BranchKey, seq: Seq, named: &[OperationId]) -> Result<(), StoreError> {
    let sql = "UPDATE operation SET seq = ?1 WHERE merchant_id = ?2 AND branch_id = ?3 AND id = ?4 AND seq IS NULL AND awaits_event = 0";
    let mut settle = conn.prepare_cached(sql)?;
    let (merchant, branch) = (key.merchant.as_str(), key.branch.as_str());
    named.iter().try_for_each(|id| settle.execute(params![seq, merchant, branch, id.to_string()]).map(drop))?;
    Ok(())
}
