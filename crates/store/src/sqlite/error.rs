//! What SQLite's errors mean to a caller: try again, no room, or a fault that nobody expected.

use mstore_protocol::Code;
use rusqlite::{ErrorCode, ffi};

use crate::StoreError;

pub(super) use crate::sql::damaged;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let detail = error.to_string();
        if is_no_room(&error) {
            return Self::Busy { code: Code::DiskFull, detail };
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Busy { code: Code::Unavailable, detail: format!("another program holds the database: {detail}") }
            }
            _other => Self::Failed(detail),
        }
    }
}

/// Whether there is no room for a page, or for the index of the WAL: of that file SQLite says "I/O error", and by its extended code that it could not
/// be made larger.
fn is_no_room(error: &rusqlite::Error) -> bool {
    let is_index = |error: &ffi::Error| error.extended_code == ffi::SQLITE_IOERR_SHMSIZE;
    error.sqlite_error_code() == Some(ErrorCode::DiskFull) || error.sqlite_error().is_some_and(is_index)
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite refuses the file or its directory.
    #[error("cannot open {path}: {source}; check that the directory exists and may be written")]
    Open {
        /// The file.
        path: std::path::PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The schema could not be brought up to date.
    #[error("cannot bring {path} up to date: {source}; a newer version may have written it")]
    Migrate {
        /// The file.
        path: std::path::PathBuf,
        /// What went wrong.
        source: rusqlite_migration::Error,
    },
    /// What it holds cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// What went wrong.
        source: StoreError,
    },
    /// The system gave no thread.
    #[error("cannot start the writer thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl OpenError {
    /// Whether all that is wrong is a full disk: the same call succeeds when there is room.
    pub fn is_no_room(&self) -> bool {
        match self {
            Self::Open { source, .. } => is_no_room(source),
            Self::Migrate { source, .. } => {
                matches!(source, rusqlite_migration::Error::RusqliteError { err, .. } if is_no_room(err))
            }
            Self::Read { source, .. } => matches!(source, StoreError::Busy { code: Code::DiskFull, .. }),
            Self::Thread(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(extended_code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None)
    }

    #[test]
    fn no_room_is_told_from_a_broken_disk() {
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_SHMSIZE] {
            assert!(matches!(failure(code).into(), StoreError::Busy { code: Code::DiskFull, .. }), "{code}");
            assert!(OpenError::Open { path: "db".into(), source: failure(code) }.is_no_room());
        }
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_READ, ffi::SQLITE_CORRUPT] {
            assert!(matches!(failure(code).into(), StoreError::Failed(_)), "{code}");
            assert!(!OpenError::Open { path: "db".into(), source: failure(code) }.is_no_room());
        }
    }
}
