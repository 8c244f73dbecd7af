//! Events: how a backend that shares no database tells us what changed (the brief's EventPublisher).

use serde::{Deserialize, Serialize};

use crate::{Code, OperationId, Quantity, Row, Seq};

/// Who decides what the stock of a merchant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StockAuthority {
    /// Operations move the stock here.
    #[default]
    Mstore,
    /// A backend does, and tells us with events; operations change no stock here.
    Backend,
}

/// The body of `POST /v1/{merchant}/{branch}/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventRequest {
    /// `PublishProductStockUpdate`.
    ProductStockUpdated {
        /// Same key, same answer.
        idempotency_key: String,
        /// Version of the product's stock in the backend; a lower one than seen before answers `stale`.
        version: u64,
        /// The product.
        product_id: String,
        /// Its stock now.
        stock: Quantity,
        /// Device operations that this figure includes.
        #[serde(default)]
        ops: Vec<OperationId>,
    },
    /// `PublishInventoryUpdate`.
    InventoryUpdated {
        /// Same key, same answer.
        idempotency_key: String,
        /// Version of the item's quantity in the backend.
        version: u64,
        /// The inventory item.
        item_id: String,
        /// Its quantity now.
        quantity: Quantity,
        /// Device operations that this figure includes.
        #[serde(default)]
        ops: Vec<OperationId>,
    },
    /// `PublishTransactionCreated`.
    TransactionCreated {
        /// Same key, same answer.
        idempotency_key: String,
        /// Version of the transaction in the backend.
        version: u64,
        /// The transaction row.
        #[serde(deserialize_with = "buffered_row")]
        transaction: Row,
        /// Device operations that it is the result of.
        #[serde(default)]
        ops: Vec<OperationId>,
    },
}

/// The answer to an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventVerdict {
    /// `accepted`, `duplicate` (same key) or `stale` (lower version).
    pub status: String,
    /// The commit that shows it.
    pub seq: Option<Seq>,
    /// Set when it was not accepted.
    pub code: Option<Code>,
}

/// A tagged enum buffers its fields, which raw JSON does not survive: the row is read as a tree and written anew.
fn buffered_row<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Row, D::Error> {
    let map = serde_json::Map::deserialize(deserializer)?;
    Row::from_map(&map).map_err(serde::de::Error::custom)
}
