//! The device's own database: one SQLite file, one writer. Rows, cursor and the operations they contain move in one transaction.
//!
//! It decides nothing about sync and knows no network.

mod ahead;
mod apply;
mod dead_letters;
mod export;
mod journal;
mod read;
mod repair;
mod rows;
mod show;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fs::File, path::Path, time::Duration};

use mstore_engine::Resume;
use mstore_protocol::{Collection, Cursor, Digest, OperationId};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, config::DbConfig, params};
use rusqlite_migration::{M, Migrations};
use serde::{Deserialize, Serialize};

use ahead::Ahead;
pub(crate) use apply::{Applied, ApplyError};
pub(crate) use dead_letters::Journalled;
pub(crate) use export::{Export, Unsaved};
pub(crate) use journal::NewOperation;
pub(crate) use read::Reader;
pub(crate) use repair::{FetchedRange, recount};

/// Migrations only grow.
const MIGRATIONS: &[M<'_>] = &[
    M::up(include_str!("../migrations/0001_device.sql")),
    M::up(include_str!("../migrations/0002_moved.sql")),
    M::up(include_str!("../migrations/0003_dead_letters.sql")),
];

/// The local database failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite said no: disk full, file gone, locked by another program.
    #[error("the local database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file was made by a newer client, or is damaged.
    #[error("the local database cannot be brought to this version: {0}")]
    Migration(#[from] rusqlite_migration::Error),
    /// An operation was to take the place of one that is not, or no longer, rejected.
    #[error("{id} is not among the rejected operations")]
    NotRejected {
        /// Which.
        id: OperationId,
    },
    /// Something in it is not what this client wrote.
    #[error("the local database holds {what} that cannot be read: {detail}")]
    Damaged {
        /// Which value.
        what: &'static str,
        /// What was wrong with it.
        detail: String,
    },
}

fn damaged(what: &'static str, detail: impl ToString) -> DbError {
    DbError::Damaged { what, detail: detail.to_string() }
}

/// What is staged beyond this process's life.
#[derive(Debug, Serialize, Deserialize)]
struct Staging {
    position: String,
    snapshot: bool,
    ops: Vec<OperationId>,
}

/// The write side.
#[derive(Debug)]
pub(crate) struct LocalDb {
    conn: Connection,
    cursor: Option<Cursor>,
    digests: BTreeMap<Collection, Digest>,
    /// Operations whose effect is not in the stream yet: while there are none, applying needs no look at the journal.
    unshown: u64,
    ahead: Option<Ahead>,
}

impl LocalDb {
    /// Opens or makes the file.
    pub(crate) fn open(path: &Path) -> Result<Self, DbError> {
        let is_new = std::fs::metadata(path).map_or(true, |file| file.len() == 0);
        let mut conn = Connection::open(path)?;
        conn.busy_timeout(Duration::from_secs(5))?;
        conn.execute_batch(
            "PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2000; PRAGMA wal_autocheckpoint = 4000;
             PRAGMA journal_size_limit = 16777216;",
        )?;
        conn.set_prepared_statement_cache_capacity(48);
        // The guard triggers are for everybody else: here they are not even compiled into a statement.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        if is_new {
            // Nothing can be lost yet: the file is made durable once, when it is whole, not at every step of its making.
            conn.execute_batch("PRAGMA synchronous = OFF")?;
        }
        conn.execute_batch("PRAGMA journal_mode = WAL")?;
        Migrations::from_slice(MIGRATIONS).to_latest(&mut conn)?;
        if is_new {
            make_durable(path)?;
            conn.execute_batch("PRAGMA synchronous = NORMAL")?;
        }
        let (cursor, digests) = position(&conn)?;
        let unshown = count_unshown(&conn)?;
        Ok(Self { conn, cursor, digests, unshown, ahead: None })
    }

    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    pub(crate) fn digests(&self) -> &BTreeMap<Collection, Digest> {
        &self.digests
    }

    pub(crate) fn state(&self, name: &str) -> Result<Option<String>, DbError> {
        let mut find = self.conn.prepare_cached("SELECT value FROM state WHERE name = ?1")?;
        Ok(find.query_row([name], |row| row.get(0)).optional()?)
    }

    pub(crate) fn set_state(&self, name: &str, value: &str) -> Result<(), DbError> {
        Self::end_open_transaction(&self.conn)?;
        self.conn.execute(
            "INSERT INTO state (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            params![name, value],
        )?;
        Ok(())
    }

    /// The value of `name`, made by `make` when there is none yet.
    pub(crate) fn state_or(&self, name: &str, make: impl FnOnce() -> String) -> Result<String, DbError> {
        if let Some(value) = self.state(name)? {
            return Ok(value);
        }
        let value = make();
        self.set_state(name, &value)?;
        Ok(value)
    }

    /// Where a broken answer stopped whose rows are staged.
    pub(crate) fn staged(&self) -> Result<Option<(Resume, Vec<OperationId>)>, DbError> {
        let Some(raw) = self.state("staging")? else { return Ok(None) };
        let staging: Staging = serde_json::from_str(&raw).map_err(|error| damaged("a staging note", error))?;
        Ok(Some((Resume { position: staging.position, snapshot: staging.snapshot }, staging.ops)))
    }

    /// Runs `work` in one transaction; nothing of it stays if it fails.
    fn transaction<T, E: From<rusqlite::Error>>(conn: &Connection, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        Self::end_open_transaction(conn)?;
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Self::finish(conn, work)
    }

    /// Only what is written ahead stays open between two calls, and anything else goes before it.
    fn end_open_transaction(conn: &Connection) -> rusqlite::Result<()> {
        if conn.is_autocommit() { Ok(()) } else { conn.execute_batch("ROLLBACK") }
    }

    /// Runs `work` in the open transaction and ends that.
    fn finish<T, E: From<rusqlite::Error>>(conn: &Connection, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        let result = work(conn).and_then(|value| {
            conn.prepare_cached("COMMIT")?.execute([])?;
            Ok(value)
        });
        if result.is_err() && !conn.is_autocommit() {
            // A failed rollback leaves no transaction behind either: SQLite rolls back by itself.
            let _ = conn.execute_batch("ROLLBACK");
        }
        result
    }

    /// Another numbering, or everything anew, is taken over: accepted operations wait for a verdict again, in the same transaction, so that no crash in between
    /// leaves them with a server that may have forgotten them.
    fn if_renumbered(conn: &Connection, from: Option<Cursor>, to: Cursor, snapshot: bool) -> rusqlite::Result<()> {
        if from.is_some_and(|from| snapshot || from.epoch != to.epoch) {
            conn.execute(
                "UPDATE operation SET state = 'queued' WHERE (state = 'accepted' OR (state = 'replaced' AND by_operator = 1)) AND elsewhere = 0",
                [],
            )?;
            // It may have forgotten the decisions about rejected ones, too.
            conn.execute("UPDATE operation SET told = 0 WHERE state IN ('replaced', 'discarded') AND elsewhere = 0", [])?;
        }
        Ok(())
    }

    /// Writes the position; within a transaction.
    fn write_position(conn: &Connection, cursor: Cursor, digests: &BTreeMap<Collection, Digest>) -> rusqlite::Result<()> {
        let digests = serde_json::to_string(digests).expect("digests are always JSON");
        conn.prepare_cached("UPDATE position SET cursor = ?1, digests = ?2 WHERE one = 1")?
            .execute(params![cursor.to_string(), digests])?;
        Ok(())
    }

    /// Moves the write-ahead log into the file; called when there is nothing else to do, and at the end.
    pub(crate) fn checkpoint(&self) {
        if !self.conn.is_autocommit() {
            return;
        }
        if let Err(error) = self.conn.execute_batch("PRAGMA wal_checkpoint(PASSIVE)") {
            tracing::debug!(%error, "checkpoint postponed");
        }
    }

    /// The device belongs to another branch now and shows nothing of the old one; what it did there is settled there.
    pub(crate) fn leave_branch(&mut self) -> Result<(), DbError> {
        Self::transaction(&self.conn, |conn| {
            conn.execute_batch(
                "DELETE FROM row; DELETE FROM staging; DELETE FROM pending_effect; DELETE FROM state WHERE name = 'staging';
                 UPDATE position SET cursor = NULL, digests = '{}';
                 UPDATE operation SET elsewhere = 1, shown = 1, named = 1 WHERE state = 'accepted';",
            )?;
            Ok::<_, DbError>(())
        })?;
        (self.cursor, self.digests) = (None, BTreeMap::new());
        self.unshown = count_unshown(&self.conn)?;
        Ok(())
    }

    /// The server has the same rows under another numbering.
    pub(crate) fn adopt(&mut self, cursor: Cursor) -> Result<(), DbError> {
        let (from, digests) = (self.cursor, &self.digests);
        Self::transaction(&self.conn, |conn| {
            Self::if_renumbered(conn, from, cursor, false)?;
            Self::write_position(conn, cursor, digests)
        })?;
        self.cursor = Some(cursor);
        Ok(())
    }
}

/// A new file and its name are on disk from here on. SQLite throws the log of an empty file away: the first sale needs both.
fn make_durable(path: &Path) -> rusqlite::Result<()> {
    let failed = |error: std::io::Error| {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC), Some(error.to_string()))
    };
    File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
    if cfg!(unix) {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// What is shown, and the stored digests there.
fn position(conn: &Connection) -> Result<(Option<Cursor>, BTreeMap<Collection, Digest>), DbError> {
    let mut find = conn.prepare_cached("SELECT cursor, digests FROM position")?;
    let (cursor, digests): (Option<String>, String) = find.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let cursor = cursor.map(|raw| Cursor::parse(&raw)).transpose().map_err(|error| damaged("a cursor", error))?;
    Ok((cursor, serde_json::from_str(&digests).map_err(|error| damaged("digests", error))?))
}

fn count_unshown(conn: &Connection) -> rusqlite::Result<u64> {
    conn.prepare_cached("SELECT count(*) FROM operation WHERE state IN ('queued', 'accepted') AND shown = 0")?
        .query_row([], |row| row.get(0))
}

/// Opens a second, read-only connection to the same file.
pub(crate) fn open_reader(path: &Path) -> Result<Reader, DbError> {
    Ok(Reader::new(open_read_only(path)?))
}

fn open_read_only(path: &Path) -> Result<Connection, DbError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.execute_batch("PRAGMA cache_size = -1000; PRAGMA query_only = ON;")?;
    Ok(conn)
}
