//! The inbox of a merchant's backend: operations that it decides about, how they get there and how its verdicts come back.

use async_trait::async_trait;
use mstore_protocol::{BackendVerdict, BranchId, BranchKey, DeviceId, MerchantId, OperationId, Timestamp, Verdict};

use crate::{Page, StoreError};

/// Operations for backends. A verdict counts once, whichever way it comes: an answer to the webhook, this trait, SQL, or an event that names the operation.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Whether operations of merchants whose backend decides are put into the inbox from now on. What is there stays there until it is decided.
    async fn set_inbox(&self, is_on: bool) -> Result<(), StoreError>;

    /// Operations due at a time, in order: the first of each branch, and what was set aside; nobody else is given them before `until`.
    async fn claim_deliveries(&self, now: Timestamp, until: Timestamp, limit: usize) -> Result<Vec<Due>, StoreError>;

    /// What became of an attempt; its effect is sequenced before it returns.
    async fn attempted(&self, due: &Due, attempt: Attempt) -> Result<(), StoreError>;

    /// A backend's verdict; the same again is fine, another one is refused. Sequenced before it returns, and answers what the till will hear.
    async fn give_verdict(&self, merchant: &MerchantId, id: OperationId, verdict: BackendVerdict) -> Result<Verdict, StoreError>;

    /// What became of operations by now; those that are not known are left out.
    async fn verdicts(&self, merchant: &MerchantId, ids: Vec<OperationId>) -> Result<Vec<Verdict>, StoreError>;

    /// What is in the inbox, newest first, a page.
    async fn inbox(&self, of: InboxOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// How much waits.
    async fn inbox_backlog(&self) -> Result<InboxBacklog, StoreError>;
}

/// Which part of the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxOf {
    /// Whose.
    pub merchant: MerchantId,
    /// Of one branch only.
    pub branch: Option<BranchId>,
    /// What is decided, too.
    pub decided_too: bool,
}

/// An operation to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Its number in the inbox.
    pub n: u64,
    /// Where it was done.
    pub key: BranchKey,
    /// The operation.
    pub id: OperationId,
    /// The till.
    pub device: DeviceId,
    /// The till's journal.
    pub journal_id: String,
    /// The operation as the till sent it, JSON.
    pub body: String,
    /// Attempts before this one.
    pub attempts: u32,
}

/// What became of an attempt to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The backend decided.
    Decided(BackendVerdict),
    /// It has taken it, and decides later.
    Taken,
    /// It could not be reached, or asks to be tried again: what is behind waits too.
    Failed {
        /// What happened.
        why: String,
        /// When to try again.
        again_at: Timestamp,
    },
    /// It does not take this one.
    Refused {
        /// What it said.
        why: String,
        /// When to try again.
        again_at: Timestamp,
        /// What is behind goes on without it.
        is_set_aside: bool,
    },
}

/// How much waits in the inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InboxBacklog {
    /// Operations without a verdict.
    pub undecided: u64,
    /// Of these, those that no webhook has delivered.
    pub undelivered: u64,
}
