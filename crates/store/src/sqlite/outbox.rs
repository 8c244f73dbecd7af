//! What is on its way to the broker: the freshest entries in memory, the rest in the table, and what may be forgotten.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use mstore_protocol::Collection;
use rusqlite::{Connection, types::Type};
use tokio::sync::Notify;

use super::mirror;
use crate::{OutboxEntry, OutboxMessage, StoreError};

/// Shared between the writer, which fills it, and the publisher, which empties it.
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    fresh_max: usize,
    /// Woken after every transaction that added entries.
    pub(super) wake: Arc<Notify>,
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
    pub(super) fn new(fresh_max: usize, last_id: u64) -> Self {
        // What an earlier process left is in the table only.
        let inner = Inner { last_id, dropped: last_id > 0, ..Inner::default() };
        Self { inner: Mutex::new(inner), fresh_max, wake: Arc::new(Notify::new()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over entries that are durable now.
    pub(super) fn push(&self, entries: Vec<OutboxEntry>) {
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

    /// All fresh ones, in order.
    pub(super) fn take(&self) -> Vec<OutboxEntry> {
        self.lock().fresh.drain(..).collect()
    }

    /// Remembers ids to forget with the next transaction.
    pub(super) fn acknowledge(&self, ids: Vec<u64>) {
        self.lock().acknowledged.extend(ids);
    }

    /// Ids acknowledged and not yet deleted; they stay until [`Outbox::forgotten`].
    pub(super) fn acknowledged(&self) -> Vec<u64> {
        self.lock().acknowledged.iter().copied().collect()
    }

    /// How many ids wait to be deleted.
    pub(super) fn acknowledged_count(&self) -> usize {
        self.lock().acknowledged.len()
    }

    /// These are deleted, durably.
    pub(super) fn forgotten(&self, ids: &[u64]) {
        let mut inner = self.lock();
        for id in ids {
            inner.acknowledged.remove(id);
        }
    }

    /// Reads entries after an id from the table; at its end, memory takes over again.
    pub(super) fn read(&self, conn: &Connection, after: u64, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        // Entries are pushed once they are durable, so a read that begins now sees all up to here.
        let known = self.lock().last_id;
        let mut entries = read_table(conn, after, limit)?;
        let mut inner = self.lock();
        if entries.len() < limit && inner.last_id == known {
            inner.dropped = false;
        }
        entries.retain(|entry| !inner.acknowledged.contains(&entry.id));
        Ok(entries)
    }
}

/// The highest id in the table.
pub(super) fn newest(conn: &Connection) -> Result<u64, StoreError> {
    Ok(conn.prepare_cached("SELECT coalesce(max(id), 0) FROM outbox")?.query_row([], |row| row.get(0))?)
}

fn read_table(conn: &Connection, after: u64, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
    let sql = "SELECT o.id, h.merchant_id, h.branch_id, o.seq, o.at, o.collection, o.payload
        FROM outbox o JOIN head h ON h.n = o.head WHERE o.id > ?1 ORDER BY o.id LIMIT ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let entries = statement.query_map([after, limit as u64], |row| {
        let message = match (row.get::<_, Option<String>>(5)?, row.get::<_, Option<String>>(6)?) {
            (Some(name), Some(payload)) => {
                let collection =
                    Collection::parse(&name).map_err(|error| rusqlite::Error::FromSqlConversionFailure(5, Type::Text, Box::new(error)))?;
                OutboxMessage::Frame { collection, payload: payload.into() }
            }
            _head => OutboxMessage::HeadOnly,
        };
        Ok(OutboxEntry { id: row.get(0)?, key: mirror::key(row, 1)?, seq: row.get(3)?, at: mirror::time(row, 4)?, message })
    })?;
    Ok(entries.collect::<Result<_, _>>()?)
}
