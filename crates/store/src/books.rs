//! Dead letters and the books of the stock: their traits, and what goes into them and comes out.

use async_trait::async_trait;
use mstore_protocol::{
    BranchId, BranchKey, DeadLetterReport, DeviceId, MerchantId, OperationDecision, OperationId, Quantity, StockTarget, Verdict,
};
use serde::{Deserialize, Serialize};

use crate::{By, Page, StoreError, Written};

/// Rejected operations, and the one decision about each.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Rejected operations with their bodies and codes, newest first, a page.
    async fn dead_letters(&self, of: DeadLettersOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// An operator decides; refused with `already_decided` if somebody has. A retry that would be rejected again is refused with that rejection's code and
    /// decides nothing. Sequenced before it returns.
    async fn decide(&self, decide: Decide) -> Result<Decided, StoreError>;

    /// A device tells what it decided, and hears what counts: its own decision, or the one before it. Numbers of what it decided about are present.
    async fn settle_dead_letters(
        &self,
        key: &BranchKey,
        device: &DeviceId,
        report: DeadLetterReport,
    ) -> Result<Vec<OperationDecision>, StoreError>;
}

/// The books of the stock, for a manager.
#[async_trait]
pub trait StockBooks: Send + Sync {
    /// Movements that took more than there was, newest first, a page.
    async fn oversells(&self, of: BooksOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Somebody has looked after one; the first note stays.
    async fn settle_oversell(&self, merchant: &MerchantId, n: u64, note: &str, by: &By) -> Result<(), StoreError>;

    /// Transfers, newest first, a page; without those that arrived unless asked for.
    async fn transfers(&self, of: BooksOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Goods in transit are at the branch now; sequenced before it returns. Saying so twice moves once.
    async fn receive_transfer(&self, at: &BranchKey, id: OperationId) -> Result<Written, StoreError>;

    /// When transfers of a merchant arrive, from now on.
    async fn set_transfer_arrival(&self, merchant: &MerchantId, arrival: TransferArrival) -> Result<(), StoreError>;

    /// Items of which transfers and goods in transit do not come to nothing: there must be none.
    async fn imbalances(&self, merchant: &MerchantId) -> Result<Vec<Imbalance>, StoreError>;
}

/// Which dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLettersOf {
    /// Whose.
    pub merchant: MerchantId,
    /// Of one branch only.
    pub branch: Option<BranchId>,
    /// Of one device only.
    pub device: Option<DeviceId>,
    /// Those that were decided about, too.
    pub decided_too: bool,
}

/// What an operator does about a rejected operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterAct {
    /// Sends it again as it was, under this id.
    Retry(OperationId),
    /// Sends something else under this id: the JSON of an operation without id, number and time.
    Edit(OperationId, String),
    /// Gives it up.
    Discard,
}

/// An operator's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decide {
    /// Whose.
    pub merchant: MerchantId,
    /// The rejected operation.
    pub id: OperationId,
    /// What to do.
    pub act: DeadLetterAct,
    /// Why, for the record.
    pub reason: String,
    /// Who decides.
    pub by: By,
}

/// A decision that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// As devices hear of it.
    pub decision: OperationDecision,
    /// The operation's branch.
    pub key: BranchKey,
    /// The verdict for the operation in its place.
    pub verdict: Option<Verdict>,
}

/// Which part of the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BooksOf {
    /// Whose.
    pub merchant: MerchantId,
    /// Of one branch only.
    pub branch: Option<BranchId>,
    /// What is settled, too.
    pub settled_too: bool,
}

/// When goods sent to another branch are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferArrival {
    /// In the commit that sends them.
    #[default]
    AtOnce,
    /// When the receiving branch says so.
    OnReceipt,
}

impl TransferArrival {
    /// The word in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at_once",
            Self::OnReceipt => "on_receipt",
        }
    }
}

/// An item whose transfers do not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imbalance {
    /// Product stock or inventory quantity.
    pub collection: StockTarget,
    /// The row's id.
    pub item_id: String,
    /// Movements and goods in transit together; 0 if all is well.
    pub difference: Quantity,
    /// Of that in transit.
    pub in_transit: Quantity,
}
