//! The traits: what a server needs of its storage, as whole use cases.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use mstore_protocol::{
    BranchKey, Collection, DeviceId, Digest, Head, MerchantId, OperationId, SUB_DIGESTS, Seq, ServiceFigures, Timestamp, Verdict,
};
use tokio::sync::{Notify, broadcast};

use crate::{AdminTokens, AuditLog, By, DeadLetters, Inbox, StockBooks, model::*};

/// Takes the rows of a `/changes` answer, in (seq, collection, id) order, while the store's one consistent read lasts.
pub trait RowSink: Send {
    /// The next row. It must not block on a socket.
    fn row(&mut self, row: ChangeRow<'_>);

    /// The sink as it was given, with what it gathered.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any>;
}

/// Sequencing and what devices read: the heart of the server.
#[async_trait]
pub trait SyncStore: Send + Sync {
    /// Writes to the source tables; sequenced before it returns.
    async fn write(&self, write: SourceWrite) -> Result<Written, StoreError>;

    /// Judges each operation of an upload on its own and carries out the accepted ones; sequenced before it returns, so every verdict has its seq.
    async fn accept(&self, upload: AcceptUpload) -> Result<Vec<Verdict>, StoreError>;

    /// The head of a branch, from memory.
    async fn head(&self, key: &BranchKey) -> Result<Option<Head>, StoreError>;

    /// Rows changed since a cursor, or all; given to the sink in one consistent read.
    async fn changes(&self, ask: ChangesAsk, sink: Box<dyn RowSink>) -> Result<(ChangesSummary, Box<dyn RowSink>), ChangesError>;

    /// The device's own operations whose commits lie in `from < seq <= to`, oldest first, the newest [`mstore_protocol::limits::CHANGES_OPS_MAX`].
    async fn own_operations(&self, key: &BranchKey, device: &DeviceId, from: Seq, to: Seq) -> Result<Vec<OperationId>, StoreError>;

    /// The 256 sub-digests of a collection, with the head they belong to.
    async fn digests(&self, key: &BranchKey, collection: &Collection) -> Result<(Head, Box<[Digest; SUB_DIGESTS]>), StoreError>;

    /// The rows of some ranges of a collection as canonical texts with their seq, with the head they belong to.
    async fn rows(&self, key: &BranchKey, collection: &Collection, ranges: &[u8]) -> Result<(Head, Vec<(String, Seq)>), StoreError>;

    /// Outbox entries after an id, in order.
    async fn outbox(&self, after: u64, limit: usize) -> Result<Vec<OutboxEntry>, StoreError>;

    /// The broker has these: forget them. Need not be durable before it returns.
    async fn acknowledged(&self, ids: Vec<u64>) -> Result<(), StoreError>;

    /// Woken after every transaction that added outbox entries.
    fn outbox_wake(&self) -> Arc<Notify>;

    /// Takes the freshest outbox entries straight from memory, in order, without a read; empty when there are none or when some were
    /// dropped for want of room: then `outbox` has them.
    fn take_fresh(&self) -> Vec<OutboxEntry>;

    /// Compares a slice of source and mirror, marks what differs, mends the mirror's own arithmetic. Start with `None`.
    async fn sweep(&self, from: Option<String>, rows_max: usize) -> Result<SweepReport, StoreError>;
}

/// The device registry.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Makes a claim, and the device if there is none.
    async fn claim(&self, claim: NewClaim) -> Result<DeviceRecord, StoreError>;

    /// Redeems a claim once, for who calls from an address; the same nonce again gets the same device, another nonce `claim_refused`.
    async fn redeem(&self, code_hash: [u8; 32], nonce: &str, from: Option<IpAddr>, now: Timestamp) -> Result<DeviceRecord, StoreError>;

    /// One device.
    async fn device(&self, device: &DeviceId) -> Result<Option<DeviceRecord>, StoreError>;

    /// Devices by id, of a branch or all.
    async fn devices(&self, key: Option<&BranchKey>, after: Option<&str>, limit: usize) -> Result<Vec<DeviceRecord>, StoreError>;

    /// Devices of a merchant by id.
    async fn devices_of(&self, merchant: &MerchantId, after: Option<&str>, limit: usize) -> Result<Vec<DeviceRecord>, StoreError>;

    /// Changes a device and answers what it is then.
    async fn change_device(&self, device: &DeviceId, change: DeviceChange, by: &By, now: Timestamp) -> Result<DeviceRecord, StoreError>;

    /// How far each journal of a device was handed in, the newest first.
    async fn journals_of(&self, device: &DeviceId) -> Result<Vec<JournalSeen>, StoreError>;
}

/// What operators read, and the upkeep that a clock starts.
#[async_trait]
pub trait Admin: Send + Sync {
    /// One page of a listing; `after` is the `next` of the page before.
    async fn list(&self, listing: Listing, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Every branch with its head.
    async fn heads(&self) -> Result<Vec<(BranchKey, Head)>, StoreError>;

    /// Raises an alarm.
    async fn alarm(&self, kind: &str, key: Option<&BranchKey>, device: Option<&DeviceId>, detail: &str) -> Result<(), StoreError>;

    /// Expires transactions past their window, tombstones past their keep time (raising the floor), old operations' bodies; collapses backlogs.
    async fn upkeep(&self) -> Result<(), StoreError>;

    /// Writes something of no account, durably: proves that whatever comes next can be kept.
    async fn prove_writable(&self) -> Result<(), StoreError>;

    /// Counts.
    async fn gauges(&self) -> Result<StoreGauges, StoreError>;

    /// Finishes what was accepted, checkpoints, closes. Later calls answer `Closed`.
    async fn close(&self) -> Result<(), StoreError>;
}

/// What is remembered of the service levels: sums by the minute for two hours and by the hour for a month.
#[async_trait]
pub trait ServiceLevels: Send + Sync {
    /// Adds figures of merchants to the minute and the hour that it is.
    async fn add_levels(&self, figures: BTreeMap<MerchantId, ServiceFigures>) -> Result<(), StoreError>;

    /// The spans of one length (60 or 3,600 seconds) that began at or after a time, of a merchant or of each.
    async fn levels(&self, merchant: Option<&MerchantId>, length_s: u32, since: Timestamp) -> Result<Vec<LevelSpan>, StoreError>;
}

/// What a server must know of other servers on the same database. A store that has one server only answers as if it were that one.
pub trait Sharing: Send + Sync {
    /// Whether this server sequences and publishes the branch now.
    fn owns(&self, _key: &BranchKey) -> bool {
        true
    }

    /// How often branches came to this server; [`SyncStore::outbox_wake`] is woken when it grows.
    fn takeovers(&self) -> u64 {
        0
    }

    /// Devices that were changed through another server, so that nothing remembered about them outlives the change.
    fn devices_changed_elsewhere(&self) -> Option<broadcast::Receiver<DeviceId>> {
        None
    }
}

/// A whole store.
pub trait Store:
    SyncStore + Registry + Admin + AdminTokens + AuditLog + DeadLetters + StockBooks + Inbox + ServiceLevels + Sharing
{
}

impl<T: SyncStore + Registry + Admin + AdminTokens + AuditLog + DeadLetters + StockBooks + Inbox + ServiceLevels + Sharing> Store for T {}
