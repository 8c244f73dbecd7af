//! Events: how a backend that shares no database tells us what changed (the brief's EventPublisher).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Code, OperationId, Quantity, Row, RowError, Seq};

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
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
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

/// Why a body is not an event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Its transaction is not a row.
    #[error("transaction: {0}")]
    Row(#[from] RowError),
    /// Anything else; an unknown field is named.
    #[error("{0}")]
    Shape(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Loose<'a> {
    #[serde(borrow)]
    transaction: Option<&'a RawValue>,
}

impl EventRequest {
    /// Parses a body. The transaction is read as it was sent: a key that stands twice is refused, not dropped.
    pub fn parse(text: &str) -> Result<Self, EventError> {
        let loose: Loose<'_> = serde_json::from_str(text)?;
        if let Some(transaction) = loose.transaction {
            Row::parse(transaction.get())?;
        }
        Ok(serde_json::from_str(text)?)
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn transaction(row: &str) -> Result<EventRequest, EventError> {
        EventRequest::parse(&format!(r#"{{"type":"transaction_created","idempotency_key":"k","version":1,"transaction":{row}}}"#))
    }

    #[test]
    fn a_transaction_that_is_no_row_has_a_code() {
        assert!(transaction(r#"{"id":"a","total":1}"#).is_ok());
        for (row, code) in [
            (r#"{"id":"a","total":1.5}"#.to_owned(), Code::FloatRefused),
            (r#"{"id":"a","total":9007199254740992}"#.to_owned(), Code::IntegerOutOfRange),
            (r#"{"id":"a","total":1,"total":2}"#.to_owned(), Code::MalformedRow),
            (r#"{"total":1}"#.to_owned(), Code::MalformedRow),
            ("[]".to_owned(), Code::MalformedRow),
            (format!(r#"{{"id":"a","note":"{}"}}"#, "x".repeat(300_000)), Code::RowTooLarge),
        ] {
            assert!(matches!(transaction(&row), Err(EventError::Row(error)) if error.code() == code), "{code}");
        }
    }

    #[test]
    fn an_unknown_field_is_named() {
        let text = r#"{"type":"product_stock_updated","idempotency_key":"k","version":1,"product_id":"a","stock":"1","stok":"2"}"#;
        let error = EventRequest::parse(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `stok`") && error.contains("`stock`"), "{error}");
    }
}
