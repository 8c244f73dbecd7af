//! What a job needs of whoever sequences: to wait for its branches, and to wake them.

use std::collections::BTreeSet;

use mstore_protocol::{BranchKey, PersonalData, Timestamp};

use super::{life::Xid, snapshot::Shards, waiters::Wait};

/// Notified with the number of a shard by jobs that changed one which another server sequences.
pub(super) const WAKE: &str = "mstore_wake";
/// Notified with the id of a device that was changed.
pub(super) const DEVICE_CHANGED: &str = "mstore_device";

/// The sequencer as jobs see it.
pub(super) trait Sequencing: Send + Sync + 'static {
    /// The time of the next transaction.
    fn now(&self) -> Timestamp;

    /// What no row and no operation may hold.
    fn personal_data(&self) -> &PersonalData;

    /// The shards that this server sequences now.
    fn owned(&self) -> Shards;

    /// Registers a transaction before it is committed; it has left a mark in each of these branches.
    fn register(&self, xid: Xid, branches: BTreeSet<BranchKey>) -> Wait;

    /// Something was committed: there are marks.
    fn wake(&self);
}
