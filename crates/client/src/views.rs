//! What the app reads: rows as types, with the effect of the device's own pending operations in them.

use mstore_protocol::{Money, Quantity, Timestamp};
use serde::Deserialize;

/// A product of the branch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Product {
    /// Row id.
    pub id: String,
    /// The merchant's own article number.
    #[serde(default)]
    pub sku: String,
    /// GTIN or in-store code.
    #[serde(default)]
    pub barcode: Option<String>,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Free grouping.
    #[serde(default)]
    pub category: Option<String>,
    /// Unit of sale.
    #[serde(default)]
    pub unit: String,
    /// The price at this branch.
    #[serde(default)]
    pub price: Option<Money>,
    /// The stock to show: the server's figure and the effect of own operations that are not in it yet.
    #[serde(default)]
    pub stock: Quantity,
    /// The server's figure.
    #[serde(skip)]
    pub server_stock: Quantity,
    /// Whether stock is kept.
    #[serde(default)]
    pub track_stock: bool,
    /// Whether it is sold.
    #[serde(default)]
    pub is_active: bool,
    /// When somebody last changed it, stock aside.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
}

/// Something held and counted at the branch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InventoryItem {
    /// Row id.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// `kg`, `l`, `pcs`, …
    #[serde(default)]
    pub unit: String,
    /// The quantity to show: the server's figure and the effect of own operations that are not in it yet.
    #[serde(default)]
    pub quantity: Quantity,
    /// The server's figure.
    #[serde(skip)]
    pub server_quantity: Quantity,
    /// Below this, order more.
    #[serde(default)]
    pub reorder_level: Quantity,
    /// When somebody last changed it, quantity aside.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
}

/// A sale or return of the branch, by whichever device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Transaction {
    /// Row id: the id of the operation.
    pub id: String,
    /// `sale` or `return`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// `completed`; `pending` for an own one that the stream does not contain yet.
    #[serde(default)]
    pub status: String,
    /// Who sold.
    #[serde(default)]
    pub device_id: String,
    /// Its number on that device.
    #[serde(default)]
    pub device_seq: u64,
    /// The number printed.
    #[serde(default)]
    pub receipt_no: String,
    /// By the clock of that device.
    #[serde(default)]
    pub occurred_at: Option<Timestamp>,
    /// What it came to.
    #[serde(default)]
    pub total: Option<Money>,
}

/// Which rows to list.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Text within the name, or exactly the sku or barcode; empty: all.
    pub search: String,
    /// Rows with an id after this one; the last id of the page before.
    pub after: Option<String>,
    /// At most this many; 0 means 100.
    pub limit: usize,
}
