//! Dead letters: what became of rejected operations, whoever decided, and how a device and its server agree on it.

use serde::{Deserialize, Serialize};

use crate::{OperationId, Timestamp};

/// What became of a rejected operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Decision {
    /// Another operation takes its place, as it was or corrected.
    Replaced,
    /// It was given up.
    Discarded,
}

impl Decision {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Discarded => "discarded",
        }
    }
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DecidedBy {
    /// Somebody at the till.
    Device,
    /// Somebody at the server.
    Operator,
}

impl DecidedBy {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Operator => "operator",
        }
    }
}

/// The one decision about an operation that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationDecision {
    /// The rejected operation.
    pub id: OperationId,
    /// What became of it.
    pub decision: Decision,
    /// The operation in its place.
    pub replaced_by: Option<OperationId>,
    /// Whose decision it is.
    pub decided_by: DecidedBy,
    /// Why, as whoever decided put it.
    #[serde(default)]
    pub reason: String,
    /// When the server took it down.
    pub decided_at: Timestamp,
}

/// What somebody at the till decided about one of its operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LocalDecision {
    /// The rejected operation; the server need not have seen it.
    pub id: OperationId,
    /// Its number in the journal: present from now on, so that it leaves no gap.
    pub device_seq: u64,
    /// The operation in its place; none: it was discarded.
    #[serde(default)]
    pub replaced_by: Option<OperationId>,
}

/// The body of `POST /v1/{merchant}/{branch}/dead-letters`: what the till decided, and what it would like to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadLetterReport {
    /// The journal that the numbers belong to.
    pub journal_id: String,
    /// At most [`crate::limits::OPERATIONS_PER_UPLOAD_MAX`].
    #[serde(default)]
    pub decided: Vec<LocalDecision>,
    /// Dead letters that nobody at the till has decided about; as many at most.
    #[serde(default)]
    pub open: Vec<OperationId>,
}

/// The answer: the decisions that count, the till's own or an earlier one. Operations without a decision are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadLetterAnswer {
    /// In no particular order.
    pub decisions: Vec<OperationDecision>,
}
