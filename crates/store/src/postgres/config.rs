//! Settings of the PostgreSQL store.

use std::{fmt, time::Duration};

use mstore_protocol::PersonalData;

use crate::sqlite::Clock;

/// Settings of the PostgreSQL store; [`PgConfig::new`] gives good ones.
#[derive(Clone)]
pub struct PgConfig {
    /// `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=ca.pem`. Several hosts may be named; the one that takes writes is used.
    /// `sslmode`: `disable`; `prefer` (the default: TLS when the server has it, its certificate unchecked); `require` (TLS, unchecked); `verify-ca` (a
    /// certificate of a trusted authority); `verify-full` (and of this very host). `sslrootcert`: a PEM file of authorities, instead of the system's.
    pub url: String,
    /// The server's clock.
    pub clock: Clock,
    /// Where other servers and operators reach this server; shown only.
    pub server_url: String,
    /// This server in all its starts, of which there is never more than one at a time: what the last one held is taken at once, and not when its lease has
    /// ended. Letters and digits; empty for a server without a memory.
    pub server_name: String,
    /// The broker that this server publishes to; empty for one of its own. All servers of a database publish to the same one.
    pub broker: String,
    /// Connections that read and carry out writes. Default 8; fewer make requests wait for each other, more than the database's processors gain nothing.
    pub connections: usize,
    /// How often foreign writers are looked for while there is traffic. Default 1 ms, which costs about 3 % of a core.
    pub poll_min: Duration,
    /// The same when nothing has happened for a while. Default 20 ms: the latency of the first foreign write after a quiet time.
    pub poll_max: Duration,
    /// How long without traffic until polling slows down. Default 3 s.
    pub poll_calm: Duration,
    /// For how long this server is believed to live without saying so. Default 3 s; shorter moves a dead server's branches sooner, and takes them from one
    /// that was merely slow.
    pub lease: Duration,
    /// A transaction that is open for longer than this is alarmed: what it may still see cannot be vacuumed. Default 5 minutes.
    pub old_snapshot: Duration,
    /// How long a statement waits for somebody else's lock before it answers busy. Default 5 s.
    pub lock_timeout: Duration,
    /// Days that a transaction stays on the devices. Default 7.
    pub transaction_window_days: u32,
    /// Days that deletions are remembered; a device away for longer fetches a snapshot. Default 30.
    pub tombstone_keep_days: u32,
    /// Commits remembered per branch, whatever their age. Default 1,000,000.
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
    /// Marks sequenced in one transaction, whole branches at a time. Default 20,000.
    pub marks_per_transaction: usize,
}

impl PgConfig {
    /// Default settings for a database.
    pub fn new(url: impl Into<String>, clock: Clock) -> Self {
        Self {
            url: url.into(),
            clock,
            server_url: String::new(),
            server_name: String::new(),
            broker: String::new(),
            connections: 8,
            poll_min: Duration::from_millis(1),
            poll_max: Duration::from_millis(20),
            poll_calm: Duration::from_secs(3),
            lease: Duration::from_secs(3),
            old_snapshot: Duration::from_secs(300),
            lock_timeout: Duration::from_secs(5),
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
            marks_per_transaction: 20_000,
        }
    }
}

/// Without the URL: it may hold a password.
impl fmt::Debug for PgConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgConfig").field("server_url", &self.server_url).field("connections", &self.connections).finish_non_exhaustive()
    }
}
