//! The one thread that writes: it drains waiting jobs into a transaction, sequences what they and foreign programs changed, commits once,
//! and only then answers.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use mstore_protocol::{BranchKey, Code, Timestamp};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    SqliteConfig,
    job::{Job, Work},
    mirror,
    sequencer::{Round, Sequencer, Within},
    shared::Shared,
    upkeep,
};
use crate::{
    OutboxMessage, StoreError,
    cases::{self, Seen},
    failpoint,
};

/// Most jobs in one transaction: bounds how long the first of them waits for the last.
const JOBS_PER_TRANSACTION: usize = 256;
/// Acknowledged outbox entries are deleted with the next write, or after this much quiet.
const FORGET_AFTER: Duration = Duration::from_millis(250);
/// A store that was opened on a full disk looks for room this often.
const ROOM_AFTER: Duration = Duration::from_secs(1);

/// What is asked of the writer.
pub(super) enum Command {
    /// Carry this out.
    Job(Box<dyn Job>),
    /// Finish and go.
    Close(oneshot::Sender<()>),
}

/// A job that is durable but some of whose branches are not sequenced yet.
struct Waiting {
    job: Box<dyn Job>,
    touched: BTreeSet<BranchKey>,
    open: BTreeSet<BranchKey>,
    seen: Seen,
}

/// The writer's state.
pub(super) struct Writer {
    conn: Connection,
    config: SqliteConfig,
    shared: Arc<Shared>,
    sequencer: Sequencer,
    queue: Receiver<Command>,
    /// Taken from the queue, waiting for a transaction of its own.
    next: Option<Box<dyn Job>>,
    waiting: Vec<Waiting>,
    /// The last transaction left marks for the next.
    is_behind: bool,
    /// Nothing could be written since the start, for want of room: what comes before the first commit is still to be done.
    is_starting: bool,
    data_version: i64,
    /// The same as of the last transaction.
    seen_version: i64,
    last_traffic: Instant,
    last_round: Instant,
}

impl Writer {
    /// Takes over the connection and sequences what was left by foreign programs while nobody looked.
    pub(super) fn new(
        conn: Connection,
        config: SqliteConfig,
        shared: Arc<Shared>,
        sequencer: Sequencer,
        queue: Receiver<Command>,
    ) -> Result<Self, StoreError> {
        let now = Instant::now();
        let mut writer = Self {
            conn,
            config,
            shared,
            sequencer,
            queue,
            next: None,
            waiting: Vec::new(),
            is_behind: false,
            is_starting: true,
            data_version: 0,
            seen_version: 0,
            last_traffic: now,
            last_round: now,
        };
        writer.data_version = writer.read_data_version()?;
        writer.seen_version = writer.data_version;
        match writer.round(Vec::new()) {
            // What is there can be read, and what cannot be written is refused until there is room.
            Err(StoreError::Busy { code: Code::DiskFull, detail }) => {
                tracing::error!(error = %detail, path = %writer.config.path.display(), "no room on the disk: devices are served, nothing is accepted");
            }
            outcome => outcome?,
        }
        for key in writer.sequencer.branches() {
            if let Some(head) = writer.sequencer.public_head(key) {
                writer.shared.set_head(key, head);
            }
        }
        Ok(writer)
    }

    /// Works until it is told to close or nobody can ask any more.
    pub(super) fn run(mut self) {
        let mut poll = self.config.poll_min;
        let closing = loop {
            if let Some(job) = self.next.take() {
                self.guarded(vec![job]);
                continue;
            }
            let pause = if self.is_behind { Duration::ZERO } else { poll };
            match self.queue.recv_timeout(pause) {
                Ok(Command::Job(first)) => {
                    poll = self.config.poll_min;
                    let (jobs, closing) = self.drain(first);
                    self.guarded(jobs);
                    self.last_traffic = Instant::now();
                    if let Some(closing) = closing {
                        break Some(closing);
                    }
                }
                Ok(Command::Close(reply)) => break Some(reply),
                Err(RecvTimeoutError::Timeout) => {
                    if self.look_around() {
                        poll = self.config.poll_min;
                        self.last_traffic = Instant::now();
                    } else if self.last_traffic.elapsed() > self.config.poll_calm {
                        poll = (poll * 2).min(self.config.poll_max);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        self.close(closing);
    }

    fn drain(&mut self, first: Box<dyn Job>) -> (Vec<Box<dyn Job>>, Option<oneshot::Sender<()>>) {
        let mut jobs = vec![first];
        while jobs.len() < JOBS_PER_TRANSACTION && !jobs[0].is_large() {
            match self.queue.try_recv() {
                Ok(Command::Job(job)) if job.is_large() => {
                    self.next = Some(job);
                    break;
                }
                Ok(Command::Job(job)) => jobs.push(job),
                Ok(Command::Close(reply)) => return (jobs, Some(reply)),
                Err(_empty) => break,
            }
        }
        (jobs, None)
    }

    /// Nobody asks: foreign writers, branches due again, marks left over, entries to forget. Tells whether there was traffic.
    fn look_around(&mut self) -> bool {
        let changed = match self.read_data_version() {
            Ok(version) => std::mem::replace(&mut self.data_version, version) != version,
            Err(error) => {
                tracing::error!(%error, "the database does not answer");
                false
            }
        };
        let forget = self.shared.outbox.acknowledged_count() > 0 && self.last_round.elapsed() > FORGET_AFTER;
        let due = self.sequencer.is_retry_due((self.config.clock)());
        let start = self.is_starting && self.last_round.elapsed() > ROOM_AFTER;
        if changed || forget || due || start || self.is_behind {
            self.guarded(Vec::new());
        }
        changed
    }

    fn read_data_version(&self) -> Result<i64, StoreError> {
        Ok(self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
    }

    /// A round that may fail or panic without taking the thread along: whoever waits gets the error, nothing is half written.
    fn guarded(&mut self, jobs: Vec<Box<dyn Job>>) {
        self.last_round = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.round(jobs)));
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            // The jobs went down with the panic; their callers are told so by the broken channel.
            Err(_panic) => StoreError::Failed("the writer panicked; see the log".into()),
        };
        tracing::error!(%error, "write transaction failed");
        if !self.conn.is_autocommit() {
            let _undone = self.conn.execute_batch("ROLLBACK");
        }
        match Sequencer::load(&self.conn) {
            Ok(sequencer) => self.sequencer.reload(sequencer),
            Err(error) => tracing::error!(%error, "cannot read the heads"),
        }
    }

    fn round(&mut self, mut jobs: Vec<Box<dyn Job>>) -> Result<(), StoreError> {
        let now = (self.config.clock)();
        let mut round = Round::default();
        let mut results = Vec::with_capacity(jobs.len());
        let forgotten = self.shared.outbox.acknowledged();
        let outcome = self.transaction(&mut jobs, now, &forgotten, &mut round, &mut results);
        if let Err(error) = outcome {
            if !self.conn.is_autocommit() {
                let _undone = self.conn.execute_batch("ROLLBACK");
            }
            for job in jobs {
                job.finish(Err(error.clone()));
            }
            return if matches!(error, StoreError::Refused { .. }) { Ok(()) } else { Err(error) };
        }
        round.durable_at_us = now_us();
        self.is_behind = !round.deferred.is_empty();
        self.sequencer.accept(&round, now);
        self.shared.outbox.forgotten(&forgotten);
        for key in round.heads.keys().chain(round.held.keys()) {
            if let Some(head) = self.sequencer.public_head(key) {
                self.shared.set_head(key, head);
            }
        }
        if !round.commits.is_empty() || !jobs.is_empty() {
            self.shared.committed();
        }
        self.shared.outbox.push(std::mem::take(&mut round.outbox));
        failpoint::point("before_answer");
        for (job, result) in jobs.into_iter().zip(results) {
            match result {
                Ok(touched) => self.waiting.push(Waiting { job, open: touched.clone(), touched, seen: Seen::default() }),
                Err(error) => job.finish(Err(error)),
            }
        }
        self.answer(&round);
        Ok(())
    }

    /// Answers the jobs all of whose branches are sequenced, held or failed.
    fn answer(&mut self, round: &Round) {
        for waiting in std::mem::take(&mut self.waiting) {
            let Waiting { job, touched, mut open, mut seen } = waiting;
            for key in &touched {
                if let Some(seq) = round.commits.get(key).filter(|_| open.contains(key)) {
                    seen.commits.insert(key.clone(), *seq);
                }
            }
            open.retain(|key| round.deferred.contains(key));
            if !open.is_empty() {
                self.waiting.push(Waiting { job, touched, open, seen });
                continue;
            }
            for key in touched.iter().filter(|key| !round.blocked.contains(*key)) {
                if let Some(entry) = self.sequencer.head(round, key) {
                    seen.heads.insert(key.clone(), entry.state.seq);
                }
            }
            seen.durable_at_us = round.durable_at_us;
            job.finish(Ok(&seen));
        }
    }

    fn transaction(
        &mut self,
        jobs: &mut [Box<dyn Job>],
        now: Timestamp,
        forgotten: &[u64],
        round: &mut Round,
        results: &mut Vec<Result<BTreeSet<BranchKey>, StoreError>>,
    ) -> Result<(), StoreError> {
        if self.is_starting {
            upkeep::at_start(&self.conn, &self.config)?;
            self.is_starting = false;
        }
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        failpoint::point("begin");
        self.notice_foreign_writers()?;
        round.forgotten = self.forget(forgotten)?;
        if !forgotten.is_empty() {
            failpoint::point("outbox_deleted");
        }
        let mut touched: BTreeSet<BranchKey> = BTreeSet::new();
        // Alone, a job that fails takes the transaction along and needs no savepoint.
        let savepoints = jobs.len() > 1;
        for job in jobs {
            let result = self.run_job(job.as_mut(), savepoints, now, round)?;
            touched.extend(result.iter().flatten().cloned());
            results.push(result);
            failpoint::point("job_done");
        }
        self.sequencer.step(Within { conn: &self.conn, config: &self.config, now }, &touched, round)?;
        failpoint::point("before_commit");
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        failpoint::point("after_commit");
        Ok(())
    }

    /// Another program has written since the last transaction. If it left no marks, nobody knows what it changed: the sweep must look.
    fn notice_foreign_writers(&mut self) -> Result<(), StoreError> {
        let version = self.read_data_version()?;
        if std::mem::replace(&mut self.seen_version, version) == version {
            return Ok(());
        }
        let has_marks: bool = self.conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM mark)")?.query_row([], |row| row.get(0))?;
        if !has_marks {
            self.shared.saw_unexplained_write();
        }
        Ok(())
    }

    /// Deletes acknowledged entries and answers the branches that they were of.
    fn forget(&self, ids: &[u64]) -> Result<Vec<BranchKey>, StoreError> {
        let sql = "DELETE FROM outbox WHERE id = ?1
            RETURNING (SELECT merchant_id FROM head WHERE n = outbox.head), (SELECT branch_id FROM head WHERE n = outbox.head)";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut keys = Vec::with_capacity(ids.len());
        for id in ids {
            keys.extend(statement.query_map([id], |row| mirror::key(row, 0))?.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(keys)
    }

    /// One job, in a savepoint if there are others. The outer error means that the whole transaction is gone.
    fn run_job(
        &mut self,
        job: &mut dyn Job,
        savepoint: bool,
        now: Timestamp,
        round: &mut Round,
    ) -> Result<Result<BTreeSet<BranchKey>, StoreError>, StoreError> {
        if savepoint {
            self.conn.prepare_cached("SAVEPOINT job")?.execute([])?;
        }
        let before: i64 = self.conn.prepare_cached("SELECT coalesce(max(n), 0) FROM mark")?.query_row([], |row| row.get(0))?;
        let mut work = Work::new(&self.conn, now, &self.config);
        let ran = catch_unwind(AssertUnwindSafe(|| job.run(&mut work)));
        let result = ran.unwrap_or_else(|_panic| Err(StoreError::Failed("this request made the server panic; see the log".into())));
        if let Err(error) = result {
            if !savepoint || self.conn.is_autocommit() {
                return Err(error);
            }
            self.conn.execute_batch("ROLLBACK TO job; RELEASE job")?;
            return Ok(Err(error));
        }
        let Work { case: cases::Work { mut touched, confirmed, named, .. }, restarted, reload, .. } = work;
        touched.extend(branches_marked_after(&self.conn, before)?);
        if savepoint {
            self.conn.prepare_cached("RELEASE job")?.execute([])?;
        }
        round.confirmed.extend(confirmed);
        for (key, ids) in named {
            round.named.entry(key).or_default().extend(ids);
        }
        for key in restarted.keys().chain(&reload) {
            if let Some(entry) = mirror::load_head(&self.conn, key)? {
                if restarted.contains_key(key) {
                    self.sequencer.push(&self.conn, key, &entry, OutboxMessage::HeadOnly, round)?;
                }
                round.heads.insert(key.clone(), entry);
            }
        }
        Ok(Ok(touched))
    }

    fn close(mut self, reply: Option<oneshot::Sender<()>>) {
        while self.is_behind || self.shared.outbox.acknowledged_count() > 0 {
            let before = (self.waiting.len(), self.shared.outbox.acknowledged_count());
            self.guarded(Vec::new());
            if before == (self.waiting.len(), self.shared.outbox.acknowledged_count()) {
                break;
            }
        }
        self.shared.close();
        let checkpointed: rusqlite::Result<i64> = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        if let Err(error) = checkpointed {
            tracing::warn!(%error, "checkpoint at close failed; the next start does it");
        }
        drop(self.conn);
        if let Some(reply) = reply {
            let _gone = reply.send(());
        }
    }
}

/// For measuring only: no decision depends on it.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The branches that marks were left for since; catalogue-wide ones count for every branch of the merchant.
fn branches_marked_after(conn: &Connection, n: i64) -> Result<Vec<BranchKey>, StoreError> {
    let sql = "SELECT DISTINCT merchant_id, branch_id FROM mark WHERE n > ?1 AND branch_id <> '*'
        UNION SELECT b.merchant_id, b.branch_id FROM (SELECT DISTINCT merchant_id FROM mark WHERE n > ?1 AND branch_id = '*') m
        JOIN branch b ON b.merchant_id = m.merchant_id";
    let mut statement = conn.prepare_cached(sql)?;
    let keys = statement.query_map([n], |row| mirror::key(row, 0))?;
    Ok(keys.collect::<Result<_, _>>()?)
}
