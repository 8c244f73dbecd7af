//! What PostgreSQL's errors mean to a caller: try again, no room, or a fault that nobody expected.

use mstore_protocol::Code;
use tokio_postgres::error::SqlState;

use crate::StoreError;

/// Somebody else changed the same rows at the same time: the whole transaction may simply be done again.
pub(super) fn is_conflict(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code))
}

/// The connection is gone, or the server behind it is going.
pub(super) fn is_gone(error: &tokio_postgres::Error) -> bool {
    const GOING: [SqlState; 5] = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    error.is_closed() || error.code().is_none_or(|code| GOING.contains(code) || code.code().starts_with("08"))
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let detail = match error.as_db_error() {
            Some(said) => format!("{} ({})", said.message(), said.code().code()),
            None => described(&error),
        };
        let unavailable = |detail| Self::Busy { code: Code::Unavailable, detail };
        match error.code() {
            Some(code) if *code == SqlState::DISK_FULL => Self::Busy { code: Code::DiskFull, detail },
            Some(code)
                if *code == SqlState::LOCK_NOT_AVAILABLE
                    || *code == SqlState::QUERY_CANCELED
                    || *code == SqlState::TOO_MANY_CONNECTIONS =>
            {
                unavailable(detail)
            }
            _other if is_conflict(&error) || is_gone(&error) => unavailable(detail),
            _other => Self::Failed(detail),
        }
    }
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => error.into(),
            deadpool_postgres::PoolError::Closed => Self::Closed,
            deadpool_postgres::PoolError::Timeout(_)
            | deadpool_postgres::PoolError::NoRuntimeSpecified
            | deadpool_postgres::PoolError::PostCreateHook(_) => {
                Self::Busy { code: Code::Unavailable, detail: format!("no connection to the database: {error}") }
            }
        }
    }
}

/// An error with its causes.
pub(super) fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// A text in the database that its own rules do not allow.
pub(super) fn damaged(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("the database holds {what} that this version cannot read: {error}"))
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PgOpenError {
    /// The URL says something that cannot be.
    #[error("the database's URL cannot be used: {0}; it looks like postgres://user:password@host:5432/database?sslmode=verify-full")]
    Url(String),
    /// No connection.
    #[error("cannot connect to the database: {0}; check that it runs, and host, port, user and password")]
    Unreachable(String),
    /// Older than what we use of it.
    #[error("this is PostgreSQL {version}; version 13 or newer is needed")]
    TooOld {
        /// As it says itself.
        version: String,
    },
    /// Not every text could be kept.
    #[error("the database's encoding is {0}; make one with ENCODING 'UTF8'")]
    Encoding(String),
    /// Sessions do not last.
    #[error(
        "connections to the database go through a pooler in transaction mode; point the URL at the database itself or at a pooler in session mode"
    )]
    TransactionPooler,
    /// Something is not allowed.
    #[error("the role {role} may not {what}; as the database's owner: {remedy}")]
    Rights {
        /// Who connects.
        role: String,
        /// What it may not.
        what: &'static str,
        /// A statement that allows it.
        remedy: String,
    },
    /// The schema could not be brought up to date.
    #[error("cannot bring the schema mstore up to date: {0}")]
    Migrate(String),
    /// A newer version made the schema.
    #[error("the schema mstore was made by a newer version of this program ({found}; this one knows {known}): use that")]
    Newer {
        /// The newest migration that is there.
        found: i64,
        /// The newest that this program has.
        known: i64,
    },
    /// What it holds cannot be read.
    #[error("cannot read the database: {0}")]
    Read(#[from] StoreError),
    /// The system gave no thread.
    #[error("cannot start the sequencer's thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl PgOpenError {
    /// A stable name for scripts and tests.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url(_) => "database_url",
            Self::Unreachable(_) => "database_unreachable",
            Self::TooOld { .. } => "database_too_old",
            Self::Encoding(_) => "database_encoding",
            Self::TransactionPooler => "database_transaction_pooler",
            Self::Rights { .. } => "database_rights",
            Self::Migrate(_) => "database_migration",
            Self::Newer { .. } => "database_newer",
            Self::Read(_) => "database_unreadable",
            Self::Thread(_) => "database_thread",
        }
    }
}
