//! The outbox's table.

use mstore_protocol::Collection;
use rusqlite::{Connection, types::Type};

use super::mirror;
pub(super) use crate::fresh::Outbox;
use crate::{OutboxEntry, OutboxMessage, StoreError};

impl Outbox {
    /// Reads entries after an id from the table; at its end, memory takes over again.
    pub(super) fn read(&self, conn: &Connection, after: u64, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        let known = self.known();
        Ok(self.joined(known, read_table(conn, after, limit)?, limit))
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
