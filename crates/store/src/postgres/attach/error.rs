//! Why a database could not be attached, and whose turn it is.

use mstore_protocol::Code;

use super::name::TableName;

/// Why attaching, or reading what is attached, failed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The database could not be reached or did not let us in.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The mapping does not fit the tables.
    #[error("collection {collection:?}: {why}")]
    Mapping {
        /// The collection whose mapping it is.
        collection: String,
        /// What does not fit, and what would.
        why: String,
    },
    /// Our role may not do what it takes.
    #[error("{table}: {why}")]
    NotAllowed {
        /// The table.
        table: TableName,
        /// What is missing, and how to grant it.
        why: String,
    },
    /// Writers held the table for longer than we are willing to wait in front of others.
    #[error("{table} is busy: no lock within {waited_ms} ms, tried {tries} times")]
    Locked {
        /// The table.
        table: TableName,
        /// How long each try waited.
        waited_ms: u64,
        /// How often it was tried.
        tries: u32,
    },
    /// What we stored about an attached table cannot be read.
    #[error("what is stored about the attached tables cannot be read: {0}")]
    Damaged(String),
    /// The database refused a statement.
    #[error("the database failed: {}", said(.0))]
    Database(#[from] tokio_postgres::Error),
}

impl AttachError {
    /// Its stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Unreachable(_) => Code::Unavailable,
            Self::Mapping { .. } => Code::AttachMappingInvalid,
            Self::NotAllowed { .. } => Code::AttachNotAllowed,
            Self::Locked { .. } => Code::AttachTableBusy,
            Self::Damaged(_) | Self::Database(_) => Code::Internal,
        }
    }

    pub(super) fn mapping(collection: &str, why: impl Into<String>) -> Self {
        Self::Mapping { collection: collection.to_owned(), why: why.into() }
    }
}

/// What the server said, not only that it said something.
fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}

impl From<serde_json::Error> for AttachError {
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}
