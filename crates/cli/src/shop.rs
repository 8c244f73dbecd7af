//! Fills a server with a shop: merchant, branches, products, opening stock. Used by the demo, the benchmarks and `trigger shop`.

use mstore_protocol::{BranchKey, MerchantId, Money, OperationId, Quantity, StockTarget, Timestamp};
use mstore_store::{InventoryItem, Merchant, MoveKind, Product, RecipeLine, StockMove};
use rand::Rng as _;
use serde_json::json;

use crate::{
    api::{AdminApi, encode},
    failure::Failure,
};

/// Products, movements or items per request.
const CHUNK: usize = 1_000;

/// Writes a shop through the admin API.
#[derive(Clone)]
pub(crate) struct ShopWriter {
    api: AdminApi,
}

impl ShopWriter {
    pub(crate) fn new(api: &AdminApi) -> Self {
        Self { api: api.clone() }
    }

    pub(crate) async fn merchant(&self, merchant: &Merchant) -> Result<(), Failure> {
        self.api.put(&format!("/v1/admin/merchants/{}", merchant.merchant), merchant).await.map(|_| ())
    }

    pub(crate) async fn branch(&self, key: &BranchKey, name: &str) -> Result<(), Failure> {
        self.api.put(&path(key, ""), &json!({ "name": name })).await.map(|_| ())
    }

    /// Creates or changes products, in as few transactions as the body limit allows.
    pub(crate) async fn products(&self, merchant: &MerchantId, products: &[Product]) -> Result<(), Failure> {
        for chunk in products.chunks(20 * CHUNK) {
            self.api.post(&format!("/v1/admin/merchants/{merchant}/products"), &json!({ "products": chunk })).await?;
        }
        Ok(())
    }

    pub(crate) async fn inventory(&self, key: &BranchKey, items: &[InventoryItem]) -> Result<(), Failure> {
        for item in items {
            self.api.put(&path(key, &format!("/inventory/{}", encode(&item.id))), item).await?;
        }
        Ok(())
    }

    pub(crate) async fn recipe(&self, merchant: &MerchantId, product: &str, lines: &[RecipeLine]) -> Result<(), Failure> {
        let path = format!("/v1/admin/merchants/{merchant}/products/{}/recipe", encode(product));
        self.api.put(&path, &json!({ "lines": lines })).await.map(|_| ())
    }

    /// Moves stock; returns the commits' seq when something changed.
    pub(crate) async fn move_stock(&self, key: &BranchKey, moves: &[StockMove]) -> Result<(), Failure> {
        for chunk in moves.chunks(CHUNK) {
            self.api.post(&path(key, "/stock-moves"), &json!({ "moves": chunk })).await?;
        }
        Ok(())
    }
}

/// The admin path of a branch.
pub(crate) fn path(key: &BranchKey, rest: &str) -> String {
    format!("/v1/admin/merchants/{}/branches/{}{rest}", key.merchant, key.branch)
}

/// A product with nothing unusual about it.
pub(crate) fn product(id: &str, name: &str, price: Money) -> Product {
    Product {
        id: id.to_owned(),
        sku: id.to_owned(),
        barcode: None,
        name: name.to_owned(),
        category: None,
        unit: "pcs".into(),
        price,
        track_stock: true,
        is_active: true,
    }
}

/// A movement of product stock with an id of its own.
pub(crate) fn stock_move(item_id: &str, kind: MoveKind, quantity: Quantity, reason: &str) -> StockMove {
    StockMove { id: new_id(), collection: StockTarget::Product, item_id: item_id.to_owned(), kind, quantity, reason: reason.to_owned() }
}

/// A fresh UUIDv7.
pub(crate) fn new_id() -> OperationId {
    OperationId::from_parts(now(), rand::rng().random())
}

/// The system's clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Parses `merchant/branch`.
pub(crate) fn branch_key(raw: &str) -> Result<BranchKey, Failure> {
    let (merchant, branch) = raw.split_once('/').ok_or_else(|| Failure::usage(format!("{raw:?} is not merchant/branch, such as m1/b1")))?;
    BranchKey::parse(merchant, branch).map_err(|error| Failure::usage(error.to_string()))
}
