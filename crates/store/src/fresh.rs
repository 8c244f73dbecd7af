//! What is on its way to the broker: the freshest entries in memory, the rest in the database's table, and what may be forgotten there.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::OutboxEntry;

/// Shared between the sequencer, which fills it, and the publisher, which empties it.
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    fresh_max: usize,
    /// Woken after every transaction that added entries.
    pub(crate) wake: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    fresh: VecDeque<OutboxEntry>,
    /// Some were dropped: the table must be read to its end before memory can be trusted again.
    dropped: bool,
    last_id: u64,
    acknowledged: BTreeSet<u64>,
}

impl Outbox {
    /// Empty; `last_id` is the highest in the table.
    pub(crate) fn new(fresh_max: usize, last_id: u64) -> Self {
        // What an earlier process left is in the table only.
        let inner = Inner { last_id, dropped: last_id > 0, ..Inner::default() };
        Self { inner: Mutex::new(inner), fresh_max, wake: Arc::new(Notify::new()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over entries that are durable now.
    pub(crate) fn push(&self, entries: Vec<OutboxEntry>) {
        let Some(last) = entries.last() else { return };
        let mut inner = self.lock();
        inner.last_id = last.id;
        if inner.dropped || inner.fresh.len() + entries.len() > self.fresh_max {
            inner.fresh.clear();
            inner.dropped = true;
        } else {
            inner.fresh.extend(entries);
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// The table got or lost entries in another way, up to this id: it must be read.
    pub(crate) fn distrust(&self, last_id: u64) {
        let mut inner = self.lock();
        inner.last_id = inner.last_id.max(last_id);
        inner.fresh.clear();
        inner.dropped = true;
        drop(inner);
        self.wake.notify_one();
    }

    /// All fresh ones, in order.
    pub(crate) fn take(&self) -> Vec<OutboxEntry> {
        self.lock().fresh.drain(..).collect()
    }

    /// Remembers ids to forget with the next transaction.
    pub(crate) fn acknowledge(&self, ids: Vec<u64>) {
        self.lock().acknowledged.extend(ids);
    }

    /// Ids acknowledged and not yet deleted; they stay until [`Outbox::forgotten`].
    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        self.lock().acknowledged.iter().copied().collect()
    }

    /// How many ids wait to be deleted.
    pub(crate) fn acknowledged_count(&self) -> usize {
        self.lock().acknowledged.len()
    }

    /// These are deleted, durably.
    pub(crate) fn forgotten(&self, ids: &[u64]) {
        let mut inner = self.lock();
        for id in ids {
            inner.acknowledged.remove(id);
        }
    }

    /// The id up to which entries were pushed: a read of the table that begins now sees all of them.
    pub(crate) fn known(&self) -> u64 {
        self.lock().last_id
    }

    /// What a read of the table gave that began after [`Outbox::known`]; at the table's end, memory takes over again.
    pub(crate) fn joined(&self, known: u64, mut entries: Vec<OutboxEntry>, limit: usize) -> Vec<OutboxEntry> {
        let mut inner = self.lock();
        if entries.len() < limit && inner.last_id == known {
            inner.dropped = false;
        }
        entries.retain(|entry| !inner.acknowledged.contains(&entry.id));
        entries
    }
}
