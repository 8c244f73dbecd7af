//! What SQLite's errors mean to a caller: try again, no room, or a fault that nobody expected.

use mstore_protocol::Code;
use rusqlite::ErrorCode;

use crate::StoreError;

pub(super) use crate::sql::damaged;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Busy { code: Code::Unavailable, detail: format!("another program holds the database: {detail}") }
            }
            Some(ErrorCode::DiskFull) => Self::Busy { code: Code::DiskFull, detail },
            _other => Self::Failed(detail),
        }
    }
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
