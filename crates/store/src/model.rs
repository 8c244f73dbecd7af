//! What goes into a store and comes out of it: the arguments and answers of the use cases.

use std::collections::BTreeMap;

use mstore_protocol::{
    BranchId, BranchKey, Code, Collection, Currency, Cursor, DeviceId, Digest, Epoch, EventRequest, MerchantId, Money, OperationId,
    Position, Quantity, Seq, ServiceFigures, StockAuthority, StockTarget, Tag, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::By;

/// Why a use case was not carried out; nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The caller asked for something that cannot be: the code says what, the detail why.
    #[error("{code}: {detail}")]
    Refused {
        /// Stable code.
        code: Code,
        /// What and why.
        detail: String,
    },
    /// The database is locked by somebody else or has no room: worth trying again.
    #[error("the database cannot be written now: {detail}")]
    Busy {
        /// `unavailable` or `disk_full`.
        code: Code,
        /// What the database said.
        detail: String,
    },
    /// The database failed in a way that nobody expected.
    #[error("the database failed: {0}")]
    Failed(String),
    /// The store was shut down.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// A refusal.
    pub fn refused(code: Code, detail: impl Into<String>) -> Self {
        Self::Refused { code, detail: detail.into() }
    }
}

/// What happens when stock would fall below zero. An offline sale is always accepted and flagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StockPolicy {
    /// Accept.
    Allow,
    /// Accept and flag with `below_zero`.
    #[default]
    Warn,
    /// Refuse adjustments and transfers; sales are flagged, for the goods are gone.
    Block,
}

/// A merchant's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merchant {
    /// Its name in paths and topics.
    pub merchant: MerchantId,
    /// For people.
    pub name: String,
    /// Of every price and receipt.
    pub currency: Currency,
    /// Below zero.
    #[serde(default)]
    pub stock_policy: StockPolicy,
    /// Who decides what the stock is.
    #[serde(default)]
    pub stock_authority: StockAuthority,
}

/// A product of the merchant's catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Row id.
    pub id: String,
    /// The merchant's own article number.
    pub sku: String,
    /// GTIN or in-store code.
    #[serde(default)]
    pub barcode: Option<String>,
    /// For people.
    pub name: String,
    /// Free grouping.
    #[serde(default)]
    pub category: Option<String>,
    /// Unit of sale: `pcs`, `kg`, …
    #[serde(default = "default_unit")]
    pub unit: String,
    /// The merchant's price; a branch may have its own.
    pub price: Money,
    /// Whether stock is kept.
    #[serde(default = "yes")]
    pub track_stock: bool,
    /// Whether it is sold.
    #[serde(default = "yes")]
    pub is_active: bool,
}

fn default_unit() -> String {
    "pcs".into()
}

fn yes() -> bool {
    true
}

/// Something that is held and counted at a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryItem {
    /// Row id.
    pub id: String,
    /// For people.
    pub name: String,
    /// `kg`, `l`, `pcs`, …
    pub unit: String,
    /// Below this, order more.
    #[serde(default)]
    pub reorder_level: Quantity,
}

/// One ingredient of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipeLine {
    /// The inventory item.
    pub item_id: String,
    /// How much of it goes into one unit sold.
    pub quantity: Quantity,
}

/// A stock movement made by the back office.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockMove {
    /// Idempotency key: the same id moves once.
    pub id: OperationId,
    /// Product stock or inventory quantity.
    pub collection: StockTarget,
    /// The row's id.
    pub item_id: String,
    /// `delta` adds `quantity`, `count` makes it the new base.
    #[serde(default)]
    pub kind: MoveKind,
    /// Signed delta or counted amount.
    pub quantity: Quantity,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// How a movement's quantity is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveKind {
    /// Adds.
    #[default]
    Delta,
    /// Sets the base.
    Count,
}

/// A write to the source tables through our own API; each is one transaction.
#[derive(Debug, Clone)]
pub enum SourceWrite {
    /// Create or change a merchant.
    PutMerchant(Merchant),
    /// Create or rename a branch.
    PutBranch {
        /// Which.
        key: BranchKey,
        /// For people.
        name: String,
    },
    /// Create or change products of the catalogue, all or none.
    PutProducts {
        /// Whose.
        merchant: MerchantId,
        /// Which.
        products: Vec<Product>,
    },
    /// Remove a product from the catalogue.
    DeleteProduct {
        /// Whose.
        merchant: MerchantId,
        /// Which.
        id: String,
    },
    /// Give a branch its own price, or take it away.
    PutBranchPrice {
        /// Where.
        key: BranchKey,
        /// Which product.
        product_id: String,
        /// `None`: the merchant's price holds.
        price: Option<Money>,
    },
    /// Create or change inventory items, all or none; quantities move by stock movements.
    PutInventory {
        /// Where.
        key: BranchKey,
        /// Which.
        items: Vec<InventoryItem>,
    },
    /// Remove an inventory item.
    DeleteInventory {
        /// Where.
        key: BranchKey,
        /// Which.
        id: String,
    },
    /// What a product is made of; replaces the former recipe.
    PutRecipe {
        /// Whose.
        merchant: MerchantId,
        /// Which product.
        product_id: String,
        /// Its ingredients.
        lines: Vec<RecipeLine>,
    },
    /// Move stock, all or none.
    MoveStock {
        /// Where.
        key: BranchKey,
        /// The movements.
        moves: Vec<StockMove>,
    },
    /// A change told by a backend that shares no database.
    Event {
        /// Where.
        key: BranchKey,
        /// What.
        event: Box<EventRequest>,
    },
    /// Let a held commit (a mass deletion) go out.
    ConfirmHold {
        /// Of which branch.
        key: BranchKey,
        /// Who lets it.
        by: By,
    },
}

/// What a write came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// The commits that show it, per branch; empty when nothing changed for any device.
    pub seqs: BTreeMap<BranchKey, Seq>,
    /// Events: the same key or id had been seen before.
    pub duplicate: bool,
    /// When it was durable, microseconds since 1970 on the store's clock; for measuring.
    pub durable_at_us: i64,
}

/// An upload whose sender is known and whose limits were checked.
#[derive(Debug, Clone)]
pub struct AcceptUpload {
    /// The branch it is for.
    pub key: BranchKey,
    /// Who sends.
    pub device: DeviceId,
    /// The sender's journal.
    pub journal_id: String,
    /// Server clock minus device clock, milliseconds.
    pub clock_offset_ms: i64,
    /// The operations' JSON texts, at most [`mstore_protocol::limits::OPERATIONS_PER_UPLOAD_MAX`].
    pub operations: Vec<String>,
}

/// What a device asks of `/changes`.
#[derive(Debug, Clone)]
pub struct ChangesAsk {
    /// Whose.
    pub key: BranchKey,
    /// What it has; `None` for a snapshot.
    pub after: Option<Cursor>,
    /// Where a broken answer stopped; wins over `after`.
    pub resume: Option<Position>,
}

/// One row of an answer, borrowed from the store's read.
#[derive(Debug, Clone, Copy)]
pub struct ChangeRow<'a> {
    /// Its collection.
    pub collection: &'a Collection,
    /// Its id.
    pub id: &'a str,
    /// The commit that last changed it.
    pub seq: Seq,
    /// Its canonical text; `None` when it was deleted.
    pub row: Option<&'a str>,
}

/// What surrounds the rows of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesSummary {
    /// The numbering.
    pub epoch: Epoch,
    /// After which seq.
    pub from: Seq,
    /// Up to which seq.
    pub to: Seq,
    /// The tag at `to`.
    pub tag: Tag,
    /// How many rows were handed to the sink.
    pub rows: u64,
    /// The digests at `to`.
    pub digests: BTreeMap<Collection, Digest>,
}

/// Why `/changes` has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// Another epoch, or below the tombstone floor.
    #[error("{0}")]
    SnapshotRequired(String),
    /// The cursor is of this epoch but unknown: this server was restored from a backup. A new epoch was started and an alarm raised.
    #[error("this server does not remember {cursor}: it was restored from a backup; a new epoch was started")]
    Restored {
        /// What the device has.
        cursor: Cursor,
    },
    /// No such branch.
    #[error("no branch {0}")]
    UnknownBranch(BranchKey),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A message to publish, in the order of `id`; durable until acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Ascending over all branches; order within a branch is the order of its commits.
    pub id: u64,
    /// Whose.
    pub key: BranchKey,
    /// The commit.
    pub seq: Seq,
    /// Server time of the commit.
    pub at: Timestamp,
    /// What to send.
    pub message: OutboxMessage,
}

/// What an outbox entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxMessage {
    /// A frame of a collection.
    Frame {
        /// The collection, for the topic.
        collection: Collection,
        /// The JSON payload.
        payload: std::sync::Arc<str>,
    },
    /// The commit has no frames (bulk, or the backlog was collapsed): publish the head, with a pull.
    HeadOnly,
}

/// How far a sweep has come and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepReport {
    /// Rows compared.
    pub compared: u64,
    /// Rows whose mirror differed from their source: they were marked, or are quarantined until the source is corrected.
    pub differing: u64,
    /// Mirror rows whose stored hash or digest did not fit their text and were mended.
    pub mended: u64,
    /// Where to go on; `None` when everything has been compared.
    pub next: Option<String>,
}

/// Something that an operator must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its number.
    pub id: u64,
    /// When it was raised.
    pub at: Timestamp,
    /// `restored_from_backup`, `device_seq_gap`, `device_seq_reused`, `mass_delete_held`, `sweep_difference`, `row_quarantined`,
    /// `branch_blocked`, `clock_offset_refused`, …
    pub kind: String,
    /// Where.
    pub merchant: Option<MerchantId>,
    /// Where.
    pub branch: Option<BranchId>,
    /// Who.
    pub device: Option<DeviceId>,
    /// What, and what to do.
    pub detail: String,
    /// When it came to an end by itself; `None` while it stands.
    #[serde(default)]
    pub cleared_at: Option<Timestamp>,
}

/// A new claim for a device.
#[derive(Debug, Clone)]
pub struct NewClaim {
    /// SHA-256 of the claim code.
    pub code_hash: [u8; 32],
    /// The device that redeems it; made if it does not exist.
    pub device: DeviceId,
    /// Where it will belong.
    pub key: BranchKey,
    /// For people.
    pub name: String,
    /// Not valid after.
    pub expires_at: Timestamp,
    /// Who makes it.
    pub by: By,
}

/// Whether a device may do anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceStatus {
    /// A claim code waits for it.
    Claimed,
    /// It may.
    Active,
    /// It may not.
    Revoked,
}

/// What the registry knows of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Its id.
    pub device: DeviceId,
    /// Its branch now.
    pub key: BranchKey,
    /// For people.
    pub name: String,
    /// May it?
    pub status: DeviceStatus,
    /// The token's generation: part of what the token is derived from.
    pub generation: u32,
    /// The generation before, while the new token has not been used.
    pub previous_generation: Option<u32>,
    /// Branches it was ever assigned to: it may upload for these.
    pub branches: Vec<BranchId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its newest token was made; `None` before its first.
    pub token_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When somebody said that it is lost.
    pub lost_at: Option<Timestamp>,
    /// When it last reported.
    pub reported_at: Option<Timestamp>,
    /// Its last report, as JSON.
    pub report: Option<serde_json::Value>,
}

/// A change to a device.
#[derive(Debug, Clone)]
pub enum DeviceChange {
    /// The next generation; the old token works until the new one is used.
    Rotate,
    /// The new token was used: the old one ends.
    RetireOld,
    /// It may nothing any more; tokens of the past never work again.
    Revoke,
    /// The same, and nobody knows where it is.
    Lose,
    /// Another branch of the same merchant.
    Move(BranchId),
    /// Its latest report.
    Report(serde_json::Value),
}

/// How far a journal of a device was handed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalSeen {
    /// The journal: made with the device's local database.
    pub journal_id: String,
    /// The highest number seen of it.
    pub device_seq: u64,
    /// When the last operation of it came.
    pub at: Timestamp,
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// Merchants.
    Merchants,
    /// Branches of a merchant.
    Branches(MerchantId),
    /// Products of a merchant's catalogue.
    Products(MerchantId),
    /// Inventory items of a branch.
    Inventory(BranchKey),
    /// Stock movements of a branch, newest first.
    StockMoves(BranchKey),
    /// Operations received for a branch with their verdicts, in order of arrival.
    Operations(BranchKey),
    /// Transactions of a branch.
    Transactions(BranchKey),
    /// Alarms, newest first.
    Alarms,
    /// One merchant.
    Merchant(MerchantId),
    /// Alarms of a merchant, newest first.
    AlarmsOf(MerchantId),
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The items.
    pub items: Vec<serde_json::Value>,
    /// Pass it as `after` to get the next page; `None` at the end.
    pub next: Option<String>,
}

/// The service levels of one span of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelSpan {
    /// When it began.
    pub at: Timestamp,
    /// What was counted in it.
    pub figures: ServiceFigures,
}

/// Counts for `/metrics` and `/readyz`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreGauges {
    /// Marks not yet sequenced.
    pub marks: u64,
    /// Outbox entries not yet acknowledged.
    pub outbox: u64,
    /// Rows in the mirror, without tombstones.
    pub mirror_rows: u64,
    /// Branches.
    pub branches: u64,
    /// Alarms raised since the start of the database.
    pub alarms: u64,
    /// Branches held back by a mass deletion.
    pub held: u64,
    /// Times, since the start, that another program wrote and left no marks: what it changed only the sweep can tell.
    pub unexplained_writes: u64,
}
