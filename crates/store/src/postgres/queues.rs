//! Cases of one branch come one after the other, whatever they are given. No more of them get a connection than keep it busy: the others wait here, and leave
//! the connections to other branches and to reads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One is at work, one waits for its lock in the database, and goes on as soon as the first has committed.
const AT_ONCE: usize = 2;
/// Queues that may be remembered before those are looked for in which nobody is.
const KEPT_MAX: usize = 1_024;

/// All queues, by what their cases lock.
#[derive(Default)]
pub(super) struct Queues(Mutex<HashMap<Box<str>, Weak<Semaphore>>>);

/// A place at the front; it ends when dropped.
pub(super) struct Turn(#[allow(dead_code, reason = "held for its end")] Option<OwnedSemaphorePermit>);

impl Queues {
    /// Waits for a place at the front of a queue; cases without a queue go at once.
    pub(super) async fn turn(&self, name: Option<&str>) -> Turn {
        let Some(name) = name else { return Turn(None) };
        // Nobody closes a queue.
        Turn(self.queue(name).acquire_owned().await.ok())
    }

    fn queue(&self, name: &str) -> Arc<Semaphore> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(name).and_then(Weak::upgrade) {
            return queue;
        }
        if queues.len() >= KEPT_MAX {
            queues.retain(|_, queue| queue.strong_count() > 0);
        }
        let queue = Arc::new(Semaphore::new(AT_ONCE));
        queues.insert(name.into(), Arc::downgrade(&queue));
        queue
    }
}
