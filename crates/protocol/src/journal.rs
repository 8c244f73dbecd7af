//! The journal as a file: what a device keeps of its operations, for a server that the device itself cannot reach.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{BranchId, DeviceId, MerchantId, Timestamp};

/// What stands under `format` in a journal file.
pub const JOURNAL_FORMAT: &str = "mstore-journal-1";

/// The operations of one device: those without a verdict, those rejected, and those accepted in the last days. Handing it in is as safe as uploading
/// again: what the server knows already is a duplicate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JournalFile {
    /// [`JOURNAL_FORMAT`].
    pub format: String,
    /// Whose operations.
    pub device_id: DeviceId,
    /// The device's merchant.
    pub merchant: MerchantId,
    /// The branch that they belong to.
    pub branch: BranchId,
    /// As in [`crate::Upload`].
    pub journal_id: String,
    /// As in [`crate::Upload`], when the file was made.
    #[serde(default)]
    pub clock_offset_ms: i64,
    /// The device's clock when the file was made.
    pub exported_at: Timestamp,
    /// In the order of `device_seq`.
    pub operations: Vec<Box<RawValue>>,
}
