//! What the writer thread shares with everybody else: heads in memory, the outbox, the sign that it is closed.

use std::{
    collections::HashMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use mstore_protocol::{BranchKey, Head};

use super::outbox::Outbox;

/// Shared state.
pub(super) struct Shared {
    heads: RwLock<HashMap<BranchKey, Head>>,
    /// On its way to the broker.
    pub(super) outbox: Outbox,
    is_closed: AtomicBool,
    has_committed: AtomicBool,
    unexplained_writes: AtomicU64,
}

impl Shared {
    /// Around an outbox.
    pub(super) fn new(outbox: Outbox) -> Self {
        let unexplained_writes = AtomicU64::new(0);
        Self {
            heads: RwLock::default(),
            outbox,
            is_closed: AtomicBool::new(false),
            has_committed: AtomicBool::new(false),
            unexplained_writes,
        }
    }

    /// The head of a branch.
    pub(super) fn head(&self, key: &BranchKey) -> Option<Head> {
        self.heads.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All heads, by branch.
    pub(super) fn heads(&self) -> Vec<(BranchKey, Head)> {
        let heads = self.heads.read().unwrap_or_else(PoisonError::into_inner);
        let mut heads: Vec<_> = heads.iter().map(|(key, head)| (key.clone(), head.clone())).collect();
        heads.sort_by(|a, b| a.0.cmp(&b.0));
        heads
    }

    /// The head is this now, durably.
    pub(super) fn set_head(&self, key: &BranchKey, head: Head) {
        self.heads.write().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), head);
    }

    /// Another program wrote and left no marks.
    pub(super) fn saw_unexplained_write(&self) {
        self.unexplained_writes.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that happened since the start.
    pub(super) fn unexplained_writes(&self) -> u64 {
        self.unexplained_writes.load(Ordering::Relaxed)
    }

    /// Nothing more is accepted.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Something was written to the WAL.
    pub(super) fn committed(&self) {
        self.has_committed.store(true, Ordering::Relaxed);
    }

    /// Whether something was written to the WAL since this was asked.
    pub(super) fn take_committed(&self) -> bool {
        self.has_committed.swap(false, Ordering::Relaxed)
    }
}
