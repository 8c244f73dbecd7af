//! Jobs of the writer thread: each runs in a savepoint of a shared transaction and is answered when that is durable and sequenced.

use std::collections::{BTreeMap, BTreeSet};

use mstore_protocol::{BranchKey, Epoch, Timestamp};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::SqliteConfig;
use crate::{
    StoreError,
    cases::{self, Seen},
};

/// What a job may use and leave behind.
pub(super) struct Work<'a> {
    /// Inside the round's transaction and the job's savepoint.
    pub(super) conn: &'a Connection,
    /// The time of the round.
    pub(super) now: Timestamp,
    /// Settings.
    pub(super) config: &'a SqliteConfig,
    /// What a use case works with: the same transaction.
    pub(super) case: cases::Work<'a>,
    /// Branches that got a new epoch.
    pub(super) restarted: BTreeMap<BranchKey, Epoch>,
    /// Branches whose stored head was changed by the job itself.
    pub(super) reload: BTreeSet<BranchKey>,
}

impl<'a> Work<'a> {
    /// At the beginning.
    pub(super) fn new(conn: &'a Connection, now: Timestamp, config: &'a SqliteConfig) -> Self {
        Self {
            conn,
            now,
            config,
            case: cases::Work::new(conn, now, &config.personal_data),
            restarted: BTreeMap::new(),
            reload: BTreeSet::new(),
        }
    }
}

/// Something for the writer to do.
pub(super) trait Job: Send {
    /// It changes so much that it gets a transaction of its own. Beside the wait of others there is SQLite: it keeps the pages changed since
    /// a savepoint in a list that every statement walks to its end, so an import inside a savepoint takes time by the square.
    fn is_large(&self) -> bool;

    /// Does it.
    fn run(&mut self, work: &mut Work<'_>) -> Result<(), StoreError>;

    /// Answers the caller.
    fn finish(self: Box<Self>, outcome: Result<&Seen, StoreError>);
}

type Run<T> = Box<dyn FnOnce(&mut Work<'_>) -> Result<T, StoreError> + Send>;
type Finish<T, R> = Box<dyn FnOnce(T, &Seen) -> R + Send>;

/// A job made of two closures.
pub(super) struct Task<T, R> {
    is_large: bool,
    run: Option<Run<T>>,
    value: Option<T>,
    finish: Finish<T, R>,
    reply: oneshot::Sender<Result<R, StoreError>>,
}

impl<T: Send + 'static, R: Send + 'static> Task<T, R> {
    /// `run` works in the transaction; `finish` makes the answer from what it gave and what was sequenced.
    pub(super) fn boxed(
        is_large: bool,
        run: impl FnOnce(&mut Work<'_>) -> Result<T, StoreError> + Send + 'static,
        finish: impl FnOnce(T, &Seen) -> R + Send + 'static,
    ) -> (Box<dyn Job>, oneshot::Receiver<Result<R, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { is_large, run: Some(Box::new(run)), value: None, finish: Box::new(finish), reply }), answer)
    }
}

impl<T: Send, R: Send> Job for Task<T, R> {
    fn is_large(&self) -> bool {
        self.is_large
    }

    fn run(&mut self, work: &mut Work<'_>) -> Result<(), StoreError> {
        let run = self.run.take().expect("a job runs once");
        self.value = Some(run(work)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<&Seen, StoreError>) {
        let Self { value, finish, reply, .. } = *self;
        let answer = outcome.map(|seen| finish(value.expect("a job that succeeded gave a value"), seen));
        // A caller that went away does not want its answer.
        let _gone = reply.send(answer);
    }
}
