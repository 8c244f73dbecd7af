//! Settings of the SQLite store.

use std::{path::PathBuf, sync::Arc, time::Duration};

use mstore_protocol::{PersonalData, Timestamp};

/// Where the store takes the time from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Between two new epochs of a branch passes at least this: whoever invents cursors makes devices compare once a minute, not all the time.
pub(super) const EPOCH_MIN_MS: i64 = 60_000;

/// Settings of the SQLite store; [`SqliteConfig::new`] gives good ones.
#[derive(Clone)]
pub struct SqliteConfig {
    /// The database file; made when it does not exist. Its directory must.
    pub path: PathBuf,
    /// The server's clock.
    pub clock: Clock,
    /// Connections that read, each on a thread of its own while it does. Default 4; fewer make slow reads wait for each other, never writes.
    pub readers: usize,
    /// How often foreign writers are looked for while there is traffic. Default 1 ms, which costs about 2 % of a core.
    pub poll_min: Duration,
    /// The same when nothing has happened for a while. Default 20 ms: the latency of the first foreign write after a quiet time.
    pub poll_max: Duration,
    /// How long without traffic until polling slows down. Default 3 s.
    pub poll_calm: Duration,
    /// How long a write waits for another program's lock before it answers busy. Default 5 s.
    pub busy_timeout: Duration,
    /// Days that a transaction stays on the devices. Default 7.
    pub transaction_window_days: u32,
    /// Days that deletions are remembered; a device away for longer fetches a snapshot. Default 30.
    pub tombstone_keep_days: u32,
    /// Commits remembered per branch, whatever their age. Default 1,000,000, about 60 MB.
    pub commits_keep_max: u64,
    /// Days that the bodies of operations are kept. Default 60; their ids stay for ever.
    pub operation_keep_days: u32,
    /// Days that alarms are kept once they are over. Default 90; open ones stay.
    pub alarm_keep_days: u32,
    /// Days that acts stay in the audit log. Default 400.
    pub audit_keep_days: u32,
    /// What no row and no operation may hold: such rows stay away from the devices, such operations are rejected. Default all kinds.
    pub personal_data: PersonalData,
    /// Days that the movements of the ledger are kept one by one; older ones become one per item, and go to an archive. Default 0: for ever.
    pub ledger_keep_days: u32,
    /// Frames of a branch that wait for the broker before they collapse into one head. Default 10,000.
    pub outbox_per_branch_max: usize,
    /// Frames handed over in memory before the publisher has to read them from the table. Default 4,096.
    pub fresh_max: usize,
    /// Marks sequenced in one transaction, whole branches at a time. Default 50,000; more makes other writers wait longer behind a bulk import.
    pub marks_per_transaction: u64,
}

impl SqliteConfig {
    /// Default settings for a file.
    pub fn new(path: impl Into<PathBuf>, clock: Clock) -> Self {
        Self {
            path: path.into(),
            clock,
            readers: 4,
            poll_min: Duration::from_millis(1),
            poll_max: Duration::from_millis(20),
            poll_calm: Duration::from_secs(3),
            busy_timeout: Duration::from_secs(5),
            transaction_window_days: 7,
            tombstone_keep_days: 30,
            commits_keep_max: 1_000_000,
            operation_keep_days: 60,
            alarm_keep_days: 90,
            audit_keep_days: 400,
            personal_data: PersonalData::default(),
            ledger_keep_days: 0,
            outbox_per_branch_max: 10_000,
            fresh_max: 4_096,
            marks_per_transaction: 50_000,
        }
    }
}
