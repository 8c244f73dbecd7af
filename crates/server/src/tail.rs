//! What was just published, for whoever watches: `/v1/admin/tail`. Watching slows nothing down; a slow watcher is told what it missed.

use std::sync::Arc;

use bytes::Bytes;
use mstore_protocol::{BranchKey, Collection};
use tokio::sync::broadcast;

/// Messages kept for a watcher that is behind; beyond it the oldest are skipped, and it is told how many.
const BEHIND_MAX: usize = 4_096;

/// One published message.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) key: BranchKey,
    /// `None` for a head.
    pub(crate) collection: Option<Collection>,
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
}

/// Hands published messages to watchers.
pub(crate) struct Tail(broadcast::Sender<Published>);

impl Tail {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BEHIND_MAX))
    }

    /// Tells the watchers, if there are any.
    pub(crate) fn tell(&self, published: impl FnOnce() -> Published) {
        if self.0.receiver_count() > 0 {
            // Fails only if the last watcher left just now.
            let _ = self.0.send(published());
        }
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<Published> {
        self.0.subscribe()
    }
}
