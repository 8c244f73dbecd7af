//! The rows shown, written within somebody else's transaction: each statement is looked up once for all the rows that it writes.

use mstore_protocol::{Collection, RowHash};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

/// Reads and writes single rows.
pub(super) struct Rows<'c> {
    conn: &'c Connection,
    find: Option<CachedStatement<'c>>,
    put: Option<CachedStatement<'c>>,
    delete: Option<CachedStatement<'c>>,
}

impl<'c> Rows<'c> {
    pub(super) fn of(conn: &'c Connection) -> Self {
        Self { conn, find: None, put: None, delete: None }
    }

    /// What `read` makes of a row's text, and the row's stored hash; none if there is no such row.
    pub(super) fn read<T>(
        &mut self,
        collection: &Collection,
        id: &str,
        read: impl FnOnce(&str) -> T,
    ) -> rusqlite::Result<Option<(T, RowHash)>> {
        let find = ready(&mut self.find, self.conn, "SELECT body, hash FROM row WHERE collection = ?1 AND id = ?2")?;
        let row = |row: &rusqlite::Row<'_>| Ok((read(row.get_ref(0)?.as_str()?), RowHash::from_bytes(row.get(1)?)));
        find.query_row((collection.as_str(), id), row).optional()
    }

    /// The stored hash of a row that may be there.
    pub(super) fn hash(&mut self, collection: &Collection, id: &str) -> rusqlite::Result<Option<RowHash>> {
        Ok(self.read(collection, id, |_| ())?.map(|(_, hash)| hash))
    }

    /// Puts a row in the place of whatever was there. REPLACE finds the place once; an upsert and an UPDATE look for it twice.
    pub(super) fn put(&mut self, collection: &Collection, id: &str, seq: u64, body: &str, hash: RowHash) -> rusqlite::Result<()> {
        let put = ready(&mut self.put, self.conn, "REPLACE INTO row (collection, id, seq, body, hash) VALUES (?1, ?2, ?3, ?4, ?5)")?;
        put.execute(params![collection.as_str(), id, seq, body, hash.to_bytes()]).map(drop)
    }

    /// Deletes a row, if it is there, and gives its stored hash.
    pub(super) fn delete(&mut self, collection: &Collection, id: &str) -> rusqlite::Result<Option<RowHash>> {
        let delete = ready(&mut self.delete, self.conn, "DELETE FROM row WHERE collection = ?1 AND id = ?2 RETURNING hash")?;
        delete.query_row((collection.as_str(), id), |row| row.get(0).map(RowHash::from_bytes)).optional()
    }
}

fn ready<'s, 'c>(
    held: &'s mut Option<CachedStatement<'c>>,
    conn: &'c Connection,
    sql: &str,
) -> rusqlite::Result<&'s mut CachedStatement<'c>> {
    match held {
        Some(statement) => Ok(statement),
        none => Ok(none.insert(conn.prepare_cached(sql)?)),
    }
}
