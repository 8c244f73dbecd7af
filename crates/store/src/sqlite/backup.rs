//! A copy of a database while a server writes to it: one consistent state, in one file, without a log beside it.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use rusqlite::{ErrorCode, OptionalExtension as _};

use super::connection;

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The file's size.
    pub bytes: u64,
    /// Branches with a head.
    pub branches: u64,
    /// Commits of all branches.
    pub commits: u64,
}

/// Why there is no copy, or why one cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database could not be read, or the copy not be made.
    #[error("{path}: {source}")]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The copy could not be made durable.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a database, and not a whole one of ours.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// The first thing that is wrong.
        what: String,
    },
}

/// Copies the database at `from` to `to`, where nothing may be yet. A server may go on writing meanwhile: the copy has everything that was answered before
/// it began. What it returns was read from the copy, which has been checked and is on disk.
pub fn backup(from: &Path, to: &Path) -> Result<Copied, BackupError> {
    let failed = |source| unreadable(from, source);
    let source = connection::reader(from).map_err(failed)?;
    // Numbers of rows that no column keeps may change by this; nothing remembers them.
    source.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(failed)?;
    // SQLite leaves that to us.
    File::open(to).and_then(|file| file.sync_all()).map_err(|source| BackupError::Io { path: to.to_owned(), source })?;
    check(to)
}

/// Reads a copy from its first page to its last, and says what is in it.
pub fn check(path: &Path) -> Result<Copied, BackupError> {
    let failed = |source| unreadable(path, source);
    let bytes = std::fs::metadata(path).map_err(|source| BackupError::Io { path: path.to_owned(), source })?.len();
    let conn = connection::reader(path).map_err(failed)?;
    let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(BackupError::Damaged { path: path.to_owned(), what: verdict });
    }
    let ours =
        conn.query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'head'", [], |_| Ok(())).optional().map_err(failed)?;
    if ours.is_none() {
        return Err(BackupError::Damaged { path: path.to_owned(), what: "it has no table of heads".to_owned() });
    }
    let counts =
        conn.query_row("SELECT count(*), coalesce(sum(seq), 0) FROM head", [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    let (branches, commits) = counts;
    Ok(Copied { bytes, branches, commits })
}

fn unreadable(path: &Path, source: rusqlite::Error) -> BackupError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => BackupError::Damaged { path, what: source.to_string() },
        Some(_) | None => BackupError::Sqlite { path, source },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_is_no_database_of_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert!(matches!(check(&path), Err(BackupError::Damaged { .. })));
        std::fs::write(&path, [7; 8192]).unwrap();
        assert!(matches!(check(&path), Err(BackupError::Damaged { .. })));
        assert!(matches!(check(&dir.path().join("none.db")), Err(BackupError::Io { .. })));
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from.db"), dir.path().join("to.db"));
        rusqlite::Connection::open(&from).unwrap().execute_batch("CREATE TABLE head (seq INTEGER)").unwrap();
        assert_eq!(backup(&from, &to).unwrap().branches, 0);
        assert!(matches!(backup(&from, &to), Err(BackupError::Sqlite { .. })));
    }
}
