//! What the app's side and the driver's task have in common.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use mstore_engine::QueuedOperation;
use mstore_protocol::{Cursor, DeviceState, Enrolment, Timestamp};
use tokio::sync::{Notify, broadcast, watch};

use crate::{
    db::{LocalDb, Reader},
    stats::{AppliedCommit, Freshness, Stats},
};

/// The state of the sync, for the app to show: never a silent staleness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What the cashier is shown.
    pub state: DeviceState,
    /// The last commit shown.
    pub cursor: Option<Cursor>,
    /// When the device last knew that it had everything, by its own clock; none if never.
    pub as_of: Option<Timestamp>,
    /// Operations that the server has not judged yet.
    pub queue_depth: u64,
    /// When the oldest of them was made.
    pub oldest_pending: Option<Timestamp>,
    /// Rejected operations that somebody must look at.
    pub dead_letters: u64,
    /// Every upload is refused on its way; the operations are kept.
    pub upload_refused: bool,
    /// Times, since the client was opened, that rows here were found not to be the server's; they are fetched again at once.
    pub digest_mismatches: u64,
}

impl Status {
    /// How old what is shown may be at `now`; none if nothing was ever fetched.
    pub fn staleness_ms(&self, now: Timestamp) -> Option<u64> {
        self.as_of.map(|as_of| u64::try_from(now.as_ms() - as_of.as_ms()).unwrap_or(0))
    }

    /// Everything but the clock.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        Self { as_of: None, ..self.clone() } == Self { as_of: None, ..other.clone() }
    }
}

/// The device's clock.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Timestamp::from_ms(i64::try_from(since).unwrap_or(i64::MAX))
}

/// Locks; a panic of another holder is a bug that must not spread silently.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it was held")
}

/// Operations on disk that the published status does not count yet.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    waiting: VecDeque<QueuedOperation>,
    /// The task has them, and has published nothing since.
    taken: u64,
}

impl Fresh {
    pub(crate) fn push(&mut self, operation: QueuedOperation) {
        self.waiting.push_back(operation);
    }

    /// Hands over those that wait; they go on counting.
    pub(crate) fn take(&mut self) -> VecDeque<QueuedOperation> {
        self.taken += self.waiting.len() as u64;
        std::mem::take(&mut self.waiting)
    }

    /// The published status counts all that were taken.
    pub(crate) fn published(&mut self) {
        self.taken = 0;
    }

    pub(crate) fn count(&self) -> u64 {
        self.waiting.len() as u64 + self.taken
    }
}

/// Shared by [`crate::Client`] and its task.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) db: Arc<Mutex<LocalDb>>,
    pub(crate) reader: Mutex<Reader>,
    pub(crate) fresh: Mutex<Fresh>,
    pub(crate) fresh_wake: Notify,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) applied: broadcast::Sender<AppliedCommit>,
    pub(crate) stats: Arc<Mutex<Stats>>,
    pub(crate) freshness: Mutex<Freshness>,
    pub(crate) online: watch::Sender<bool>,
    /// Wall milliseconds when the device was last known to be at the head; `i64::MIN`: never.
    pub(crate) as_of_ms: AtomicI64,
    /// Who this device is; its token changes.
    pub(crate) enrolment: Mutex<Enrolment>,
    pub(crate) started: Instant,
    pub(crate) started_at: Timestamp,
}

impl Shared {
    /// Milliseconds since the client was opened.
    pub(crate) fn moment(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn as_of(&self) -> Option<Timestamp> {
        let ms = self.as_of_ms.load(Ordering::Relaxed);
        (ms != i64::MIN).then(|| Timestamp::from_ms(ms))
    }
}

#[cfg(test)]
mod tests {
    use mstore_protocol::OperationId;

    use super::*;

    #[test]
    fn an_operation_counts_from_commit_to_publication_without_a_gap() {
        let mut fresh = Fresh::default();
        let at = Timestamp::from_ms(1);
        fresh.push(QueuedOperation { id: OperationId::from_parts(at, [1; 10]), at });
        assert_eq!(fresh.count(), 1);
        assert_eq!(fresh.take().len(), 1);
        fresh.push(QueuedOperation { id: OperationId::from_parts(at, [2; 10]), at });
        assert_eq!(fresh.count(), 2, "one is with the task, one waits");
        fresh.published();
        assert_eq!(fresh.count(), 1);
    }
}
