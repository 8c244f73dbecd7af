//! The sequencer: marks become commits, for the shards that this server holds. It runs on a thread of its own.
//!
//! It wakes for writes of its own server, for notifications of other servers, and looks for marks of foreign writers by itself.

mod extras;
mod marks;
mod reconnect;
mod round;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::{Object, Pool};
use futures_util::{FutureExt as _, future::try_join3};
use mstore_protocol::{BranchKey, Timestamp};
use tokio::sync::oneshot;
use tokio_postgres::{Row, types::ToSql};

pub(super) use self::extras::row_of;
use self::{
    marks::{Ask, Taken},
    round::{Branch, Outcome, Within},
    write::Writes,
};
use super::{
    error::{is_conflict, is_gone},
    lease,
    life::Life,
    mirror::{self, Failed},
    shared::Shared,
    snapshot::{Shards, Snapshot},
    source::Reader as _,
    waiters::Visits,
};
use crate::{OutboxEntry, StoreError, failpoint};

/// A branch that is held or could not be sequenced is looked at again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The alarm of a branch that stands still.
const BLOCKED: &str = "branch_blocked";
/// Acknowledged outbox entries are deleted with the next round, or after this much quiet.
const FORGET_AFTER: Duration = Duration::from_millis(250);
/// How often the other servers are looked at.
const BALANCE_EVERY: Duration = Duration::from_millis(400);
/// How often merchant-wide marks that are done with are deleted.
const CLEAN_EVERY: Duration = Duration::from_millis(100);
/// Pauses after failures grow up to this.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The pause between two looks for marks is this many times as long as a look took, at least: while there is traffic, a write must not wait for long.
const PAUSE_PER_LOOK: u32 = 2;
/// The same when it has been calm for a while.
const CALM_PAUSE_PER_LOOK: u32 = 20;
/// A round of more rows than this may keep us busy for longer than the database otherwise waits for a server that says nothing.
const LARGE_ROUND_ROWS: usize = 5_000;
/// So an import is not undone and begun again for ever on a slow machine. Another server does not wait for it: it ends our session soon after our lease.
const PATIENT: &str = "SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// The sequencer's state; all of it but what is on its way can be read from the database again.
pub(super) struct Sequencer {
    shared: Arc<Shared>,
    pool: Pool,
    /// Everything that this snapshot saw was taken or put aside.
    since: Option<Snapshot>,
    /// Merchants with merchant-wide marks.
    merchants: BTreeSet<String>,
    /// Branches to leave out until then.
    retry_at: HashMap<BranchKey, Timestamp>,
    /// Branches whose commit could not be written, and why: the next round says so, for that one was undone.
    unalarmed: BTreeMap<BranchKey, String>,
    /// Outbox entries by head.
    backlog: HashMap<i64, usize>,
    last_id: u64,
    is_behind: bool,
    /// Who waits for everything to be sequenced that was there when they asked.
    barriers: Vec<oneshot::Sender<()>>,
    /// A round failed for a reason that lies in some branch: one at a time until it is found.
    one_branch: bool,
    balanced_at: Option<Instant>,
    /// When the connection of the last turn was made, and what it leads to.
    met: Option<(Instant, Life)>,
    cleaned_at: Instant,
    last_round: Instant,
    last_traffic: Instant,
}

/// Why a round was not made.
enum Trouble {
    /// Somebody else was faster, or the connection is gone: nothing is wrong with any branch.
    Passing(StoreError),
    /// The shards are not ours any more.
    NotOurs,
    /// Something in one of these branches cannot be written.
    Branches(Vec<BranchKey>, StoreError),
}

impl Trouble {
    fn of(failed: Failed, branches: Vec<BranchKey>) -> Self {
        match failed {
            Failed::Database(error) if is_conflict(&error) || is_gone(&error) => Self::Passing(error.into()),
            Failed::Database(error) => match StoreError::from(error) {
                StoreError::Failed(why) => Self::Branches(branches, StoreError::Failed(why)),
                passing @ (StoreError::Refused { .. } | StoreError::Busy { .. } | StoreError::Closed) => Self::Passing(passing),
            },
            Failed::Store(error) => Self::Branches(branches, error),
        }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Passing(error.into())
    }
}

impl Sequencer {
    /// With connections of its own; `first_id` is where its outbox ids begin.
    pub(super) fn new(shared: Arc<Shared>, pool: Pool, first_id: u64) -> Self {
        let now = Instant::now();
        Self {
            shared,
            pool,
            since: None,
            merchants: BTreeSet::new(),
            retry_at: HashMap::new(),
            unalarmed: BTreeMap::new(),
            backlog: HashMap::new(),
            last_id: first_id,
            is_behind: false,
            barriers: Vec::new(),
            one_branch: false,
            balanced_at: None,
            met: None,
            cleaned_at: now,
            last_round: now,
            last_traffic: now,
        }
    }

    /// Works until the store is closed. `ready` hears when what waited at the start is done.
    pub(super) async fn run(mut self, ready: oneshot::Sender<()>) {
        let mut ready = Some(ready);
        let mut failures = 0_u32;
        let mut poll = self.shared.config.poll_min;
        let mut woken = true;
        while !self.shared.is_closed() {
            let began = Instant::now();
            let outcome = AssertUnwindSafe(self.turn(woken)).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|_panic| {
                // The transaction that it was in ends with its connection.
                self.pool.retain(|_, _| false);
                Err(Trouble::Passing(StoreError::Failed("the sequencer panicked; see the log".into())))
            });
            let pause = match outcome {
                Ok(had_traffic) => {
                    failures = 0;
                    poll = self.next_poll(poll, had_traffic, began.elapsed());
                    if !self.is_behind
                        && let Some(ready) = ready.take()
                    {
                        let _nobody = ready.send(());
                    }
                    poll
                }
                Err(trouble) => {
                    failures += 1;
                    self.failed(trouble, failures)
                }
            };
            let wake = Arc::clone(&self.shared.wake);
            woken = self.is_behind || tokio::time::timeout(pause, wake.notified()).await.is_ok();
        }
        self.end().await;
    }

    fn next_poll(&self, poll: Duration, had_traffic: bool, cost: Duration) -> Duration {
        let config = &self.shared.config;
        if had_traffic {
            return config.poll_min;
        }
        let is_calm = self.last_traffic.elapsed() > config.poll_calm;
        let (pause, per_look) =
            if is_calm { ((poll * 2).min(config.poll_max), CALM_PAUSE_PER_LOOK) } else { (config.poll_min, PAUSE_PER_LOOK) };
        pause.max((cost * per_look).min(Duration::from_secs(1)))
    }

    fn failed(&mut self, trouble: Trouble, failures: u32) -> Duration {
        match trouble {
            Trouble::NotOurs => {
                tracing::warn!("another server holds our branches now; beginning again");
                self.shared.set_held(Shards::default());
                self.balanced_at = None;
                return Duration::ZERO;
            }
            Trouble::Passing(error) if failures == 1 => {
                tracing::debug!(%error, "round done again");
                return Duration::ZERO;
            }
            Trouble::Passing(error) => tracing::warn!(%error, failures, "cannot sequence now"),
            Trouble::Branches(branches, error) => self.suspect(branches, &error),
        }
        let most = (Duration::from_millis(5) * 2_u32.saturating_pow(failures.min(16))).min(PAUSE_MAX);
        most.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// One of these branches cannot be sequenced; if there is only one, it is left out for a while.
    fn suspect(&mut self, branches: Vec<BranchKey>, error: &StoreError) {
        match branches.as_slice() {
            [key] => {
                tracing::error!(branch = %key, %error, "branch cannot be sequenced; leaving it out for a while");
                self.put_aside(key);
                self.unalarmed.insert(key.clone(), error.to_string());
            }
            many => {
                tracing::warn!(branches = many.len(), %error, "a round failed; one branch at a time now");
                self.one_branch = true;
            }
        }
        self.is_behind = true;
    }

    fn put_aside(&mut self, key: &BranchKey) {
        let pause = i64::try_from(RETRY_AFTER.as_millis()).expect("seconds");
        self.retry_at.insert(key.clone(), self.now().plus_ms(pause));
    }

    fn now(&self) -> Timestamp {
        (self.shared.config.clock)()
    }

    /// Looks around and makes a round if there is reason to; tells whether there was traffic.
    async fn turn(&mut self, woken: bool) -> Result<bool, Trouble> {
        let client = self.pool.get().await.map_err(|error| Trouble::Passing(error.into()))?;
        let outcome = self.turn_on(&client, woken).await;
        if outcome.is_err() {
            // Whatever transaction it was in ends with the connection.
            drop(Object::take(client));
        }
        outcome
    }

    async fn turn_on(&mut self, client: &Object, woken: bool) -> Result<bool, Trouble> {
        self.meet(client).await?;
        if self.shared.is_committing() {
            self.recover(client).await?;
        }
        if self.balanced_at.is_none_or(|at| at.elapsed() > BALANCE_EVERY) {
            self.balance(client).await?;
        }
        let now = self.now();
        let is_due = self.is_behind || !self.unalarmed.is_empty() || self.retry_at.values().any(|at| *at <= now);
        let forgets = self.shared.outbox.acknowledged_count() > 0 && self.last_round.elapsed() > FORGET_AFTER;
        let has_marks = woken || is_due || self.has_marks(client).await?;
        let had_traffic = has_marks && self.round(client).await?;
        if forgets && !had_traffic {
            self.forget(client).await?;
        }
        if !self.merchants.is_empty() && self.cleaned_at.elapsed() > CLEAN_EVERY {
            self.merchants = marks::delete_stars(client, &self.merchants).await?;
            self.cleaned_at = Instant::now();
        }
        if had_traffic {
            self.last_traffic = Instant::now();
        }
        Ok(had_traffic)
    }

    async fn balance(&mut self, client: &Object) -> Result<(), Trouble> {
        let balanced = lease::balance(client, &self.shared, &mut self.last_id).await?;
        self.balanced_at = Some(Instant::now());
        if balanced.held != self.shared.held() {
            tracing::info!(shards = balanced.held.count(), gained = balanced.gained.count(), "shards of branches held by this server");
        }
        self.shared.set_held(balanced.held);
        self.retry_at.retain(|key, _| balanced.held.have(key));
        if balanced.gained.count() > 0 {
            self.load(client, balanced.gained).await?;
        }
        Ok(())
    }

    /// A round failed while it was written: whether it was committed only the database knows.
    async fn recover(&mut self, client: &Object) -> Result<(), Trouble> {
        let statement = client.prepare_cached("SELECT coalesce(max(id), 0) FROM outbox WHERE id > $1 AND id < $2").await?;
        let end = ((self.last_id >> super::IDS_PER_START) + 1) << super::IDS_PER_START;
        let row = client.query_one(&statement, &[&mirror::signed(self.last_id), &mirror::signed(end)]).await?;
        self.last_id = self.last_id.max(mirror::count(&row, 0));
        self.backlog.clear();
        self.load(client, self.shared.held()).await?;
        self.shared.set_committing(false);
        Ok(())
    }

    /// What must be known of branches that were somebody else's.
    async fn load(&mut self, client: &Object, gained: Shards) -> Result<(), Trouble> {
        let numbers = gained.numbers();
        let heads = mirror::heads_of(client, &numbers, 0).await.map_err(Trouble::Passing)?;
        for (key, entry) in heads {
            self.shared.set_head(key, entry.head());
        }
        let sql = "SELECT o.head, count(*) FROM outbox o JOIN head h ON h.n = o.head WHERE h.shard = ANY($1) GROUP BY o.head";
        let statement = client.prepare_cached(sql).await?;
        for row in client.query(&statement, &[&numbers]).await? {
            self.backlog.insert(row.get(0), usize::try_from(mirror::count(&row, 1)).unwrap_or(usize::MAX));
        }
        self.shared.outbox.distrust(self.last_id);
        self.shared.took_over();
        // Their marks may be of any age.
        self.since = None;
        self.is_behind = true;
        Ok(())
    }

    fn ask<'a>(&'a self, without: &'a BTreeSet<BranchKey>) -> Ask<'a> {
        Ask {
            shards: self.shared.held(),
            since: self.since.as_ref(),
            without,
            merchants: &self.merchants,
            marks_max: self.shared.config.marks_per_transaction,
            one_branch: self.one_branch,
        }
    }

    async fn has_marks(&mut self, client: &Object) -> Result<bool, Trouble> {
        let (has_marks, snapshot) = marks::glance(client, &self.ask(&BTreeSet::new())).await?;
        if !has_marks && self.since.is_some() {
            self.since = snapshot;
        }
        Ok(has_marks)
    }

    /// One transaction; tells whether anything was done.
    async fn round(&mut self, client: &Object) -> Result<bool, Trouble> {
        if self.shared.held().count() == 0 {
            self.is_behind = false;
            // Others sequence everything: nothing to wait for here.
            drop(self.shared.take_barriers());
            return Ok(false);
        }
        self.last_round = Instant::now();
        let now = self.now();
        self.barriers.append(&mut self.shared.take_barriers());
        let aside: BTreeSet<BranchKey> = self.retry_at.iter().filter(|(_, at)| **at > now).map(|(key, _)| key.clone()).collect();
        let made = self.make(client, now, &aside).await?;
        let had_traffic = self.accept(made, now, aside);
        self.shared.set_committing(false);
        Ok(had_traffic)
    }

    async fn make(&self, client: &Object, now: Timestamp, without: &BTreeSet<BranchKey>) -> Result<Made, Trouble> {
        let ask = self.ask(without);
        let fence = client.prepare_cached("SELECT pg_current_snapshot()::text FROM server WHERE server_id = $1 FOR SHARE").await?;
        let begin = client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ");
        // The fence comes first: with its snapshot everything is read.
        let who: [&(dyn ToSql + Sync); 1] = [&self.shared.server_id];
        let ((), fenced, new) = try_join3(begin, client.query_opt(&fence, &who), marks::new_marks(client, &ask)).await?;
        let Some(snapshot) = fenced.and_then(|row| Snapshot::parse(row.get(0))) else {
            client.batch_execute("ROLLBACK").await?;
            return Err(Trouble::NotOurs);
        };
        failpoint::point("begin");
        let is_thorough = self.since.is_none() || self.is_behind || without.len() < self.retry_at.len();
        let new = self.resolved(client, &ask, new, is_thorough).await?;
        let mut taken = marks::take(client, &ask, new, is_thorough).await?;
        for key in self.unalarmed.keys() {
            taken.branches.remove(key);
        }
        if taken.branches.values().map(BTreeSet::len).sum::<usize>() > LARGE_ROUND_ROWS {
            client.batch_execute(PATIENT).await?;
        }
        let names: Vec<BranchKey> = taken.branches.keys().cloned().collect();
        let outbox_per_branch_max = self.shared.config.outbox_per_branch_max;
        let within = Within { client, attached: &self.shared.attached, now, outbox_per_branch_max, backlog: &self.backlog };
        let mut branches = round::compared(&within, &taken).await.map_err(|failed| Trouble::of(failed, names.clone()))?;
        branches.extend(self.blocked(&within).await?);
        round::decide(&within, &mut branches);
        let (entries, collapsed) = round::messages(&within, &mut branches, self.last_id);
        let acknowledged = self.shared.outbox.acknowledged();
        let mut made = Made { snapshot, taken, branches, entries, acknowledged, collapsed, forgotten: Vec::new(), is_idle: false };
        if made.branches.is_empty() && made.acknowledged.is_empty() {
            client.batch_execute("COMMIT").await?;
            made.is_idle = true;
            return Ok(made);
        }
        let Made { snapshot, taken, branches, entries, acknowledged, collapsed, .. } = &made;
        let writes = Writes { client, now, snapshot, taken, branches, entries, collapsed, acknowledged };
        let written = writes.write().await;
        let forgotten = written.map_err(|error| Trouble::of(error.into(), names.clone()))?;
        failpoint::point("before_commit");
        self.shared.set_committing(true);
        client.batch_execute("COMMIT").await.map_err(|error| Trouble::of(error.into(), names))?;
        failpoint::point("after_commit");
        made.forgotten = forgotten;
        Ok(made)
    }

    /// Marks on attached tables that do not say whose row it is become marks of branches, and are then among the new ones.
    async fn resolved(&self, client: &Object, ask: &Ask<'_>, new: Vec<Row>, is_thorough: bool) -> Result<Vec<Row>, Trouble> {
        let places = marks::unresolved(ask, &new, is_thorough);
        let is_none = places.as_ref().is_some_and(Vec::is_empty);
        if is_none || !self.shared.attached.resolve(client.plain(), places.as_deref()).await? {
            return Ok(new);
        }
        Ok(marks::new_marks(client, ask).await?)
    }

    /// Branches about which an earlier round could not say that they stand still.
    async fn blocked(&self, within: &Within<'_>) -> Result<Vec<Branch>, Trouble> {
        if self.unalarmed.is_empty() {
            return Ok(Vec::new());
        }
        let branches = self.unalarmed.keys().map(|key| (key.clone(), BTreeSet::new())).collect();
        let taken = Taken { branches, ..Taken::default() };
        let mut branches = round::compared(within, &taken).await.map_err(|failed| Trouble::Passing(failed.into()))?;
        for branch in branches.iter_mut().filter(|branch| !matches!(branch.outcome, Outcome::Unknown)) {
            branch.outcome = Outcome::Blocked(self.unalarmed.get(&branch.key).cloned().unwrap_or_default());
        }
        Ok(branches)
    }

    /// The round is durable.
    fn accept(&mut self, made: Made, now: Timestamp, aside: BTreeSet<BranchKey>) -> bool {
        let Made { snapshot, taken, branches, entries, acknowledged, collapsed, forgotten, is_idle } = made;
        let mut visits = Visits { durable_at_us: now_us(), ..Visits::default() };
        visits.heads.extend(aside.into_iter().map(|key| (key, None)));
        self.unalarmed.clear();
        for branch in branches {
            let Branch { key, entry, outcome, .. } = branch;
            match outcome {
                Outcome::Done(seq) => {
                    self.retry_at.remove(&key);
                    visits.commits.extend(seq.map(|seq| (key.clone(), seq)));
                    visits.heads.insert(key.clone(), Some(entry.state.seq));
                }
                Outcome::Held(_) | Outcome::Blocked(_) => {
                    if self.retry_at.get(&key).is_none_or(|at| *at <= now) {
                        self.put_aside(&key);
                    }
                    visits.heads.insert(key.clone(), None);
                }
                Outcome::Unknown => {
                    self.retry_at.remove(&key);
                    visits.heads.insert(key, None);
                    continue;
                }
            }
            self.shared.set_head(key, entry.head());
        }
        // A branch that was due and has no marks any more needs no further look.
        self.retry_at.retain(|_, at| *at > now);
        self.is_behind = taken.is_behind;
        self.one_branch &= taken.is_behind;
        self.merchants = taken.merchants;
        for head in collapsed {
            self.backlog.remove(&head);
        }
        for (head, entry) in &entries {
            self.last_id = self.last_id.max(entry.id);
            *self.backlog.entry(*head).or_default() += 1;
        }
        self.forgotten(&acknowledged, &forgotten);
        self.shared.outbox.push(entries.into_iter().map(|(_, entry)| entry).collect());
        if let Some((_, life)) = self.met {
            self.shared.waiters.tell(life, &snapshot, &visits);
        }
        if !self.is_behind {
            self.since = Some(snapshot);
            for barrier in self.barriers.drain(..) {
                let _gone = barrier.send(());
            }
        }
        !is_idle
    }

    fn forgotten(&mut self, acknowledged: &[u64], heads: &[i64]) {
        for head in heads {
            if let Some(count) = self.backlog.get_mut(head) {
                *count = count.saturating_sub(1);
            }
        }
        self.shared.outbox.forgotten(acknowledged);
    }

    /// Deletes acknowledged entries when there is no round to do it.
    async fn forget(&mut self, client: &Object) -> Result<(), Trouble> {
        self.last_round = Instant::now();
        let acknowledged = self.shared.outbox.acknowledged();
        client.batch_execute("BEGIN; SET LOCAL synchronous_commit = off").await?;
        let heads = write::forget(client, &acknowledged).await?;
        client.batch_execute("COMMIT").await?;
        failpoint::point("outbox_deleted");
        self.forgotten(&acknowledged, &heads);
        Ok(())
    }

    /// Sequences what is left and gives the shards back.
    async fn end(mut self) {
        let last = async {
            let client = self.pool.get().await.map_err(|error| Trouble::Passing(error.into()))?;
            self.meet(&client).await?;
            loop {
                self.round(&client).await?;
                if !self.is_behind {
                    break;
                }
            }
            if self.shared.outbox.acknowledged_count() > 0 {
                self.forget(&client).await?;
            }
            lease::hand_over(&client, &self.shared).await?;
            Ok::<(), Trouble>(())
        };
        let ended = tokio::time::timeout(RETRY_AFTER, last).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the branches were not handed over; other servers take them when the lease ends");
        }
        self.shared.end();
    }
}

/// What a round did; valid only once it is durable.
struct Made {
    snapshot: Snapshot,
    taken: Taken,
    branches: Vec<Branch>,
    entries: Vec<(i64, OutboxEntry)>,
    acknowledged: Vec<u64>,
    /// Heads whose older entries went.
    collapsed: Vec<i64>,
    /// The heads of the acknowledged entries.
    forgotten: Vec<i64>,
    is_idle: bool,
}

/// For measuring only: no decision depends on it.
pub(super) fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
