//! Uploads: what a device posts to `/operations`, and the verdict for each operation.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Code, Seq};

/// The body of `POST /v1/{merchant}/{branch}/operations`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upload {
    /// Random identity of the local database; `device_seq` is dense within it.
    pub journal_id: String,
    /// Server clock minus device clock as the device measured it, milliseconds.
    #[serde(default)]
    pub clock_offset_ms: i64,
    /// At most [`crate::limits::OPERATIONS_PER_UPLOAD_MAX`], each judged on its own.
    pub operations: Vec<Box<RawValue>>,
}

/// What became of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum VerdictStatus {
    /// Its effect is in the commit `seq`.
    Accepted,
    /// It was accepted before; `seq` is the first one.
    Duplicate,
    /// It will never be accepted as it is; see `code`.
    Rejected,
}

/// The verdict for one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Verdict {
    /// The operation's id as it was sent; empty when it had none.
    pub id: String,
    /// What became of it.
    pub status: VerdictStatus,
    /// The commit that contains its effect.
    pub seq: Option<Seq>,
    /// Why it was rejected, or what was noticed on an accepted one (`late_delta`, `below_zero`).
    pub code: Option<Code>,
    /// The same for people.
    pub detail: Option<String>,
}

/// The answer to an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UploadAnswer {
    /// One for each operation, in their order.
    pub verdicts: Vec<Verdict>,
}
