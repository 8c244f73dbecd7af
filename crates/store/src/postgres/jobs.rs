//! Carries use cases out: each in a short READ COMMITTED transaction, done again when somebody else was faster, and answered when its branches are sequenced.
//!
//! Any server may carry out any case. Cases of one branch come one after the other by the lock on the branch's row; commits are grouped by PostgreSQL.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use deadpool_postgres::{Object, Pool};
use mstore_protocol::{BranchKey, Code};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

use super::{
    life::{LIFE, Life, Xid},
    queues::Queues,
    seen::{DEVICE_CHANGED, Sequencing, WAKE},
    session::{Session, Trouble},
    snapshot::shard_of,
    waiters::{Unseen, Visited, Wait},
};
use crate::{
    StoreError,
    cases::{Case, Seen, Work},
    failpoint,
    sql::{Row, Sql, args},
};

/// How often a case is tried before its caller is told to come again.
const ATTEMPTS: u32 = 6;
/// Whoever was in the way needs a moment; the pause before the n-th attempt is at most n times this.
const PAUSE: Duration = Duration::from_millis(5);
/// A write that nobody sequences for this long is answered all the same: it is kept, and its caller asks again. Longer than a shard needs to change hands.
const SEQUENCED_WITHIN: Duration = Duration::from_secs(10);

/// What carries cases out.
pub(super) struct Jobs<S> {
    pool: Pool,
    queues: Queues,
    sequencing: Arc<S>,
}

/// What an attempt came to.
enum Attempt<T> {
    /// Committed; somebody may have to be waited for.
    Done(T, Option<Wait>),
    /// Nothing was kept, and it is worth trying again.
    Again(StoreError),
    /// Nothing was kept, or nobody knows.
    Failed(StoreError),
}

impl<S: Sequencing> Jobs<S> {
    /// On the connections of a pool.
    pub(super) fn new(pool: Pool, sequencing: Arc<S>) -> Self {
        Self { pool, queues: Queues::default(), sequencing }
    }

    /// See [`crate::cases::Carrier::carry`].
    pub(super) async fn carry<T: Send + 'static, R>(
        &self,
        case: Case,
        mut run: impl FnMut(&mut Work<'_>) -> Result<T, StoreError> + Send + 'static,
        finish: impl FnOnce(T, &Seen) -> R,
    ) -> Result<R, StoreError> {
        for attempt in 1.. {
            let turn = self.queues.turn(case.queue.as_deref()).await;
            let object = self.pool.get().await?;
            let (handle, sequencing, is_last) = (Handle::current(), Arc::clone(&self.sequencing), attempt == ATTEMPTS);
            let task = tokio::task::spawn_blocking(move || {
                let outcome = once(object, handle, &*sequencing, is_last, &mut run);
                drop(turn);
                (outcome, run)
            });
            let panicked = |_| StoreError::Failed("this request made the server panic; see the log".into());
            let (outcome, again) = task.await.map_err(panicked)?;
            run = again;
            match outcome {
                Attempt::Done(value, None) => return Ok(finish(value, &Seen { durable_at_us: now_us(), ..Seen::default() })),
                Attempt::Done(value, Some(wait)) => return self.sequenced(wait).await.map(|seen| finish(value, &seen)),
                Attempt::Again(error) if !is_last => {
                    tracing::debug!(attempt, %error, "a transaction is done again");
                    sleep(PAUSE.mul_f64(f64::from(attempt) * rand::random::<f64>())).await;
                }
                Attempt::Again(error) | Attempt::Failed(error) => return Err(error),
            }
        }
        Err(StoreError::Closed)
    }

    /// See [`crate::cases::Carrier::read`].
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let object = self.pool.get().await?;
        let handle = Handle::current();
        let task = tokio::task::spawn_blocking(move || {
            let open = Open::new(Session::begin(object, handle, "ISOLATION LEVEL REPEATABLE READ READ ONLY", true));
            let found = read(open.sql());
            open.undo();
            found
        });
        task.await.map_err(|error| StoreError::Failed(format!("a read panicked: {error}")))?
    }

    async fn sequenced(&self, mut wait: Wait) -> Result<Seen, StoreError> {
        self.sequencing.wake();
        let busy = |detail: &str| StoreError::Busy { code: Code::Unavailable, detail: detail.into() };
        let visited = timeout(SEQUENCED_WITHIN, wait.visited()).await;
        let visited = visited.map_err(|_| busy("it is kept, but nobody sequences its branch now; ask again"))?;
        failpoint::point("before_answer");
        let Visited { commits, heads, durable_at_us } = visited.map_err(|why| match why {
            Unseen::Closed => StoreError::Closed,
            Unseen::Lost => busy("the database was restarted, or a replica took its place, before it was sequenced; ask again"),
        })?;
        Ok(Seen { commits, heads, durable_at_us })
    }
}

/// A transaction that is undone unless it was ended: also when its case panics.
struct Open(Option<Session>);

impl Open {
    fn new(session: Session) -> Self {
        Self(Some(session))
    }

    fn session(&self) -> &Session {
        self.0.as_ref().expect("it is open until it is ended")
    }

    fn sql(&self) -> &dyn Sql {
        self.session()
    }

    fn commit(mut self) -> Result<(), StoreError> {
        self.0.take().map_or(Ok(()), Session::commit)
    }

    fn undo(mut self) {
        self.roll_back();
    }

    fn roll_back(&mut self) {
        if let Some(Err(error)) = self.0.take().map(Session::undo) {
            tracing::debug!(%error, "a connection is given up");
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.roll_back();
    }
}

fn once<T>(
    object: Object,
    handle: Handle,
    sequencing: &impl Sequencing,
    is_last: bool,
    run: &mut impl FnMut(&mut Work<'_>) -> Result<T, StoreError>,
) -> Attempt<T> {
    let open = Open::new(Session::begin(object, handle, "ISOLATION LEVEL READ COMMITTED", is_last));
    failpoint::point("begin");
    let mut work = Work::new(open.sql(), sequencing.now(), sequencing.personal_data());
    let done = run(&mut work).and_then(|value| {
        failpoint::point("job_done");
        Ok((value, leave(work, sequencing)?))
    });
    let (value, wait) = match done {
        Ok(done) => done,
        Err(error) => {
            let trouble = open.session().trouble();
            open.undo();
            return if trouble == Trouble::None { Attempt::Failed(error) } else { Attempt::Again(error) };
        }
    };
    failpoint::point("before_commit");
    match open.commit() {
        Ok(()) => {
            failpoint::point("after_commit");
            Attempt::Done(value, wait)
        }
        // Whether it was kept nobody knows; whoever asks again is told, for every case is done once.
        Err(error) => Attempt::Failed(error),
    }
}

/// What a case leaves for whoever sequences, in its own transaction. `None`: it changed nothing that is sequenced.
fn leave(work: Work<'_>, sequencing: &impl Sequencing) -> Result<Option<Wait>, StoreError> {
    let Work { sql, touched, confirmed, named, changed, .. } = work;
    for key in &confirmed {
        let sql_text = "UPDATE hold SET is_confirmed = 1 WHERE merchant_id = ?1 AND branch_id = ?2";
        sql.execute(sql_text, args![key.merchant.as_str(), key.branch.as_str()])?;
    }
    for (key, id) in named.iter().flat_map(|(key, ids)| ids.iter().map(move |id| (key, id))) {
        let sql_text = "INSERT INTO named_operation (merchant_id, branch_id, id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        sql.execute(sql_text, args![key.merchant.as_str(), key.branch.as_str(), id.to_string()])?;
    }
    for device in &changed {
        // Ids are made of letters, digits, _ and -.
        sql.execute(&format!("NOTIFY {DEVICE_CHANGED}, '{device}'"), &[])?;
    }
    let Marked { mut xid, mut branches, visited } = marked(sql)?;
    branches.extend(touched);
    for key in branches.difference(&visited) {
        let sql_text = format!(
            "INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('branch', ?1, ?2, '') RETURNING CAST(CAST(xid AS TEXT) AS BIGINT), {LIFE}"
        );
        xid = sql.row(&sql_text, args![key.merchant.as_str(), key.branch.as_str()], |row| number(row, 0))?;
    }
    let owned = sequencing.owned();
    let elsewhere: BTreeSet<u8> = branches.iter().map(shard_of).filter(|shard| !owned.contains(*shard)).collect();
    for shard in elsewhere {
        sql.execute(&format!("NOTIFY {WAKE}, '{shard}'"), &[])?;
    }
    Ok(xid.map(|xid| sequencing.register(xid, branches)))
}

/// What a transaction left marks for.
#[derive(Default)]
struct Marked {
    /// Its number, if there are any.
    xid: Option<Xid>,
    /// The branches, those of a whole catalogue included.
    branches: BTreeSet<BranchKey>,
    /// Those of them that have a mark of their own.
    visited: BTreeSet<BranchKey>,
}

fn marked(db: &dyn Sql) -> Result<Marked, StoreError> {
    let sql = format!(
        "SELECT merchant_id, branch_id, 1, CAST(CAST(xid AS TEXT) AS BIGINT), {LIFE} FROM mark
        WHERE xid = pg_current_xact_id() AND branch_id <> '*' GROUP BY merchant_id, branch_id, xid
        UNION ALL SELECT b.merchant_id, b.branch_id, 0, CAST(CAST(m.xid AS TEXT) AS BIGINT), {LIFE} FROM branch b JOIN
          (SELECT merchant_id, xid FROM mark WHERE xid = pg_current_xact_id() AND branch_id = '*' GROUP BY merchant_id, xid) m
          ON m.merchant_id = b.merchant_id"
    );
    let mut marked = Marked::default();
    for (key, is_own, xid) in db.rows(&sql, &[], |row| Ok((row.key(0)?, row.flag(2)?, number(row, 3)?)))? {
        if is_own {
            marked.visited.insert(key.clone());
        }
        marked.branches.insert(key);
        marked.xid = Some(xid);
    }
    Ok(marked)
}

/// The number of a transaction, and behind it who gave it.
fn number(row: &Row<'_>, at: usize) -> Result<Xid, StoreError> {
    Ok(Xid { number: row.number(at)?, life: Life(row.integer(at + 1)?) })
}

/// For measuring only: no decision depends on it.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
