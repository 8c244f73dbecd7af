//! What is held and counted at a branch; quantities move by stock movements.

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchId, BranchKey, MerchantId, Problem, Quantity};
use mstore_store::{InventoryItem, Listing, SourceWrite};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    super::{
        State,
        body::Json,
        caller::Admin,
        extract::{Ask, Names},
        problem::Refusal,
    },
    PageAnswer, Paging, WriteAnswer, find, page, same_name, write,
};

/// An inventory item.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemBody {
    /// Row id; may be left out where the path has it.
    #[serde(default)]
    id: Option<String>,
    /// For people.
    name: String,
    /// `kg`, `l`, `pcs`, …
    unit: String,
    /// Below this, order more; default 0.
    #[serde(default)]
    #[schema(value_type = String)]
    reorder_level: Quantity,
}

impl ItemBody {
    fn into_item(self, id: String) -> InventoryItem {
        InventoryItem { id, name: self.name, unit: self.unit, reorder_level: self.reorder_level }
    }
}

/// Many items, all or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemImport {
    /// Each with its `id`.
    items: Vec<ItemBody>,
}

type ItemName = (MerchantId, BranchId, String);

/// Inventory items of a branch, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/inventory",
    tag = "admin",
    operation_id = "list_inventory",
    params(("merchant" = String, Path), ("branch" = String, Path), Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    extract::State(app): State,
    _: Admin,
    Names(key): Names<BranchKey>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<PageAnswer>, Refusal> {
    page(&app, Listing::Inventory(key), &paging).await
}

/// Create or change many items at once, all or none.
#[utoipa::path(
    post,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/inventory",
    tag = "admin",
    operation_id = "import_inventory",
    params(("merchant" = String, Path), ("branch" = String, Path)),
    request_body = ItemImport,
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn import(
    extract::State(app): State,
    _: Admin,
    Names(key): Names<BranchKey>,
    Json(import): Json<ItemImport>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    let mut items = Vec::with_capacity(import.items.len());
    for (i, mut item) in import.items.into_iter().enumerate() {
        let id = item.id.take().ok_or_else(|| Refusal::malformed(format!("items[{i}]: missing field `id`")))?;
        items.push(item.into_item(id));
    }
    write(&app, SourceWrite::PutInventory { key, items }).await
}

/// Create or change an item.
#[utoipa::path(
    put,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/inventory/{id}",
    tag = "admin",
    operation_id = "put_inventory",
    params(("merchant" = String, Path), ("branch" = String, Path), ("id" = String, Path)),
    request_body = ItemBody,
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn put(
    extract::State(app): State,
    _: Admin,
    Names((merchant, branch, id)): Names<ItemName>,
    Json(body): Json<ItemBody>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    same_name("id", &id, body.id.as_ref())?;
    write(&app, SourceWrite::PutInventory { key: BranchKey { merchant, branch }, items: vec![body.into_item(id)] }).await
}

/// One item.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/inventory/{id}",
    tag = "admin",
    operation_id = "read_inventory",
    params(("merchant" = String, Path), ("branch" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = ItemBody), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn read(
    extract::State(app): State,
    _: Admin,
    Names((merchant, branch, id)): Names<ItemName>,
) -> Result<Answer<Value>, Refusal> {
    find(&app, Listing::Inventory(BranchKey { merchant, branch }), "id", &id).await
}

/// Remove an item from the branch and its devices.
#[utoipa::path(
    delete,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/inventory/{id}",
    tag = "admin",
    operation_id = "delete_inventory",
    params(("merchant" = String, Path), ("branch" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn delete(
    extract::State(app): State,
    _: Admin,
    Names((merchant, branch, id)): Names<ItemName>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    write(&app, SourceWrite::DeleteInventory { key: BranchKey { merchant, branch }, id }).await
}
