//! What a device tells the server about itself, so that no till is stale in silence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Code, Collection, Cursor, Digest, Timestamp};

/// On the answer to a report: the device should get another token now, while the one that it has still works.
pub const ROTATE_HEADER: &str = "mstore-rotate";

/// The state of a device's sync; what the app shows the cashier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "code")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DeviceState {
    /// Opening the local database, finding out what is there.
    Starting,
    /// Fetching what it does not have yet.
    CatchingUp,
    /// MQTT is up and the cursor is at the head.
    Live,
    /// MQTT is down; the HTTP poll bounds the staleness.
    Polling,
    /// Neither MQTT nor HTTP.
    Offline,
    /// The server has no changes since this cursor any more: fetching everything, keeping the queue.
    NeedsSnapshot,
    /// The server refuses this device; somebody must act.
    Blocked(Code),
}

impl DeviceState {
    /// The word on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::Polling => "polling",
            Self::Offline => "offline",
            Self::NeedsSnapshot => "needs_snapshot",
            Self::Blocked(_) => "blocked",
        }
    }
}

/// Commit → applied latency in buckets: `counts[i]` are those up to `bounds_ms[i]`, the last count those above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LatencyHistogram {
    /// Upper bounds, milliseconds, ascending.
    pub bounds_ms: Vec<u64>,
    /// One more than the bounds.
    pub counts: Vec<u64>,
}

/// The last refusal that a device got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastError {
    /// What was wrong.
    pub code: Code,
    /// When, by the device's clock.
    pub at: Timestamp,
}

/// The body of `POST /v1/devices/self/report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceReport {
    /// The sync state.
    #[serde(flatten)]
    pub state: DeviceState,
    /// What it has; none before the first snapshot.
    pub cursor: Option<Cursor>,
    /// Its own digests at the cursor.
    #[serde(default)]
    pub digests: BTreeMap<Collection, Digest>,
    /// Operations not yet answered.
    pub queue_depth: u64,
    /// Age of the oldest of them, seconds.
    pub oldest_pending_s: u64,
    /// Rejected operations that somebody must look at.
    #[serde(default)]
    pub dead_letters: u64,
    /// Every upload is refused on its way to the server; the operations are kept.
    #[serde(default)]
    pub upload_refused: bool,
    /// Things counted since the start, by name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Commit → applied.
    #[serde(default)]
    pub latency: LatencyHistogram,
    /// The last request of its that was refused since the start, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// When the app was started, by the device's clock: counters and latencies count from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The device's clock when it reported.
    pub device_time: Timestamp,
    /// Version of the app or client.
    #[serde(default)]
    pub client_version: String,
}
