//! Connections: one that writes, some that read, all on the same WAL database.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use super::{SqliteConfig, error::OpenError};

const STATEMENTS_CACHED: usize = 200;
/// The WAL is copied into the database when it has grown by this many pages.
pub(super) const CHECKPOINT_PAGES: i64 = 1_000;

/// Migrations only grow; the number of the last is the schema's version.
const MIGRATIONS: &[M<'static>] = &[
    M::up(include_str!("../../migrations/sqlite/0001_source.sql")),
    M::up(include_str!("../../migrations/sqlite/0002_capture.sql")),
    M::up(include_str!("../../migrations/sqlite/0003_sync.sql")),
    M::up(include_str!("../../migrations/sqlite/0004_sku.sql")),
    M::up(include_str!("../../migrations/sqlite/0005_dead_letters.sql")),
    M::up(include_str!("../../migrations/sqlite/0006_inbox.sql")),
    M::up(include_str!("../../migrations/sqlite/0007_growth.sql")),
    M::up(include_str!("../../migrations/sqlite/0008_windows.sql")),
    M::up(include_str!("../../migrations/sqlite/0009_closing.sql")),
    M::up(include_str!("../../migrations/sqlite/0010_access.sql")),
    M::up(include_str!("../../migrations/sqlite/0011_levels.sql")),
];

/// Opens the connection that writes, and brings the schema up to date.
pub(super) fn writer(config: &SqliteConfig) -> Result<Connection, OpenError> {
    let path = &config.path;
    let open = |source| OpenError::Open { path: path.clone(), source };
    let mut conn = Connection::open(path).map_err(open)?;
    set_up(&conn, config.busy_timeout).map_err(open)?;
    // FULL: what was answered survives a power cut. Checkpoints are made beside the writer, not by it.
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;").map_err(open)?;
    Migrations::from_slice(MIGRATIONS).to_latest(&mut conn).map_err(|source| OpenError::Migrate { path: path.clone(), source })?;
    Ok(conn)
}

/// Opens a connection that cannot write.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    set_up(&conn, Duration::from_secs(5))?;
    Ok(conn)
}

/// Opens the connection that copies the WAL into the database.
pub(super) fn checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(path)?;
    set_up(&conn, Duration::ZERO)?;
    conn.execute_batch("PRAGMA wal_autocheckpoint = 0;")?;
    Ok(conn)
}

fn set_up(conn: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    conn.busy_timeout(busy_timeout)?;
    conn.execute_batch(
        "PRAGMA cache_size = -65536; PRAGMA mmap_size = 268435456; PRAGMA temp_store = MEMORY; PRAGMA recursive_triggers = OFF;",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_valid() {
        Migrations::from_slice(MIGRATIONS).validate().expect("the schema can be made from nothing");
    }
}
