//! What can go wrong, one narrow enum per kind of call.

use std::path::PathBuf;

use mstore_protocol::{BranchId, Code, OperationError, OperationId, Problem};

pub use crate::db::DbError;

/// A client could not be opened or enrolled.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no enrolment in this file.
    #[error("this device is not enrolled yet; make a claim code with `mstore-sync device add` and enrol with it")]
    NotEnrolled,
    /// The file belongs to another device.
    #[error("this database belongs to device {found}; open another file for {wanted}")]
    OtherDevice {
        /// Whose it is.
        found: String,
        /// Who wanted it.
        wanted: String,
    },
    /// The device was moved, and what it did at its old branch is not sent yet. The new token is kept: open the file, send, enrol again with the
    /// same claim code.
    #[error("{waiting} operations for branch {branch} are not sent yet; send them first, then enrol again with the same claim code")]
    UnsentWork {
        /// How many.
        waiting: usize,
        /// The branch they belong to.
        branch: BranchId,
    },
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The server could not be reached, or its answer was not understood.
    #[error("the server at {url} cannot be reached: {detail}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        detail: String,
    },
    /// The device's token would cross a network in the clear (`insecure_url`).
    #[error("{url} would take this device's token across the network in the clear ({}); {}", Code::InsecureUrl, Code::InsecureUrl.next_step())]
    Insecure {
        /// The server's or the broker's address.
        url: String,
    },
    /// Whoever answers there does not prove to be the server: nothing was sent.
    #[error("{url} is not believed: {} ({code}); {}", code.title(), code.next_step())]
    Certificate {
        /// Where.
        url: String,
        /// `certificate_untrusted`, `certificate_expired` or `certificate_name`.
        code: Code,
    },
    /// The file of authorities holds none.
    #[error("{} holds no authorities: {detail}", path.display())]
    Authorities {
        /// Which.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// A URL that is none.
    #[error("{url:?} is not a usable address: {detail}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// The local database.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl OpenError {
    /// The stable code, where there is one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(problem) => Some(problem.code),
            Self::Insecure { .. } => Some(Code::InsecureUrl),
            Self::Certificate { code, .. } => Some(*code),
            Self::NotEnrolled
            | Self::OtherDevice { .. }
            | Self::UnsentWork { .. }
            | Self::Unreachable { .. }
            | Self::Authorities { .. }
            | Self::Url { .. }
            | Self::Db(_) => None,
        }
    }
}

/// An operation was not written to the journal.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It breaks a rule that needs no server; the code is the one that the server would give.
    #[error("{code}: {detail}")]
    Refused {
        /// Stable code.
        code: Code,
        /// What and where.
        detail: String,
    },
    /// A receipt without lines.
    #[error("a receipt needs at least one line")]
    NoLines,
    /// No price was given and the product is not known here.
    #[error("no price for {product_id}: give one, for the product is not known here")]
    NoPrice {
        /// Which product.
        product_id: String,
    },
    /// Retry, edit or discard of something that was not rejected.
    #[error("{id} is not among the rejected operations")]
    NotRejected {
        /// Which.
        id: OperationId,
    },
    /// Retry or edit of something that was replaced or discarded before, at the server for one: sending it again would double it.
    #[error("{id} came after the decision about the operation that it replaces; it can only be discarded")]
    AlreadyDecided {
        /// Which.
        id: OperationId,
    },
    /// Not on disk: do not hand over the goods.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl CommitError {
    /// The stable code, where there is one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::NoLines => Some(Code::MalformedOperation),
            Self::AlreadyDecided { .. } => Some(Code::AlreadyDecided),
            Self::NoPrice { .. } | Self::NotRejected { .. } | Self::Db(_) | Self::Closed => None,
        }
    }
}

impl From<OperationError> for CommitError {
    fn from(error: OperationError) -> Self {
        Self::Refused { code: error.code, detail: error.detail }
    }
}

/// The journal is not in a file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no enrolment in this database, so nobody's journal.
    #[error("this device is not enrolled; it has no journal")]
    NotEnrolled,
    /// The file cannot be written.
    #[error("{path} cannot be written: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The local database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The database is still there.
#[derive(Debug, thiserror::Error)]
pub enum WipeError {
    /// Something in it is nowhere else.
    #[error(
        "{waiting} operations are not sent and {rejected} rejected ones are not decided about; send and settle them, or export the journal first"
    )]
    UnsentWork {
        /// Without a verdict.
        waiting: u64,
        /// Rejected, and nobody has decided about it.
        rejected: u64,
    },
    /// It is empty, but a file cannot be removed.
    #[error("{path} cannot be removed: {source}; it is empty")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The local database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The queue did not empty in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} operations still wait for the server; they are safe on this device")]
pub struct NotDrained {
    /// How many.
    pub waiting: u64,
}
