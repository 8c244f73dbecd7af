//! What a session tells its app: never a silent staleness.

use mstore_protocol::{Cursor, DeviceState, Timestamp};

use crate::Moment;

/// The session at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What the cashier is shown.
    pub state: DeviceState,
    /// The last commit shown.
    pub cursor: Option<Cursor>,
    /// When the device last knew that it was at the head; none if never. In `Live` it is at the head for all it can know.
    pub confirmed_at: Option<Moment>,
    /// Operations without a verdict.
    pub queue_depth: usize,
    /// When the oldest of them was made, by the device's clock.
    pub oldest_pending: Option<Timestamp>,
    /// The server or something before it refuses every upload; the operations are kept.
    pub upload_refused: bool,
}
