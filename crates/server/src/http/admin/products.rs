//! The merchant's catalogue: a change reaches every branch.

use axum::{Json as Answer, extract};
use mstore_protocol::{MerchantId, Money, Problem};
use mstore_store::{Listing, Product, SourceWrite};
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
    PageAnswer, Paging, WriteAnswer, find, page,
    prices::amount,
    same_name, write,
};

/// A product of the catalogue.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProductBody {
    /// Row id; may be left out where the path has it.
    #[serde(default)]
    id: Option<String>,
    /// The merchant's own article number: of one product only, unless it is empty.
    sku: String,
    /// GTIN or in-store code.
    #[serde(default)]
    barcode: Option<String>,
    /// For people.
    name: String,
    /// Free grouping.
    #[serde(default)]
    category: Option<String>,
    /// Unit of sale: `pcs` (default), `kg`, …
    #[serde(default = "pieces")]
    unit: String,
    /// The merchant's price, not below 0; a branch may have its own.
    #[serde(deserialize_with = "amount")]
    price: Money,
    /// Whether stock is kept, default true.
    #[serde(default = "yes")]
    track_stock: bool,
    /// Whether it is sold, default true.
    #[serde(default = "yes")]
    is_active: bool,
}

fn pieces() -> String {
    "pcs".into()
}

fn yes() -> bool {
    true
}

impl ProductBody {
    fn into_product(self, id: String) -> Product {
        let Self { sku, barcode, name, category, unit, price, track_stock, is_active, .. } = self;
        Product { id, sku, barcode, name, category, unit, price, track_stock, is_active }
    }
}

/// Many products, all or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Import {
    /// Each with its `id`.
    products: Vec<ProductBody>,
}

/// Products of a merchant's catalogue, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/products",
    tag = "admin",
    operation_id = "list_products",
    params(("merchant" = String, Path), Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    extract::State(app): State,
    _: Admin,
    Names(merchant): Names<MerchantId>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<PageAnswer>, Refusal> {
    page(&app, Listing::Products(merchant), &paging).await
}

/// Create or change many products at once, all or none, in one commit per branch.
#[utoipa::path(
    post,
    path = "/v1/admin/merchants/{merchant}/products",
    tag = "admin",
    operation_id = "import_products",
    params(("merchant" = String, Path)),
    request_body = Import,
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn import(
    extract::State(app): State,
    _: Admin,
    Names(merchant): Names<MerchantId>,
    Json(import): Json<Import>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    let mut products = Vec::with_capacity(import.products.len());
    for (i, mut product) in import.products.into_iter().enumerate() {
        let id = product.id.take().ok_or_else(|| Refusal::malformed(format!("products[{i}]: missing field `id`")))?;
        products.push(product.into_product(id));
    }
    write(&app, SourceWrite::PutProducts { merchant, products }).await
}

/// Create or change a product.
#[utoipa::path(
    put,
    path = "/v1/admin/merchants/{merchant}/products/{id}",
    tag = "admin",
    operation_id = "put_product",
    params(("merchant" = String, Path), ("id" = String, Path)),
    request_body = ProductBody,
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn put(
    extract::State(app): State,
    _: Admin,
    Names((merchant, id)): Names<(MerchantId, String)>,
    Json(body): Json<ProductBody>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    same_name("id", &id, body.id.as_ref())?;
    write(&app, SourceWrite::PutProducts { merchant, products: vec![body.into_product(id)] }).await
}

/// One product.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/products/{id}",
    tag = "admin",
    operation_id = "read_product",
    params(("merchant" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = ProductBody), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn read(
    extract::State(app): State,
    _: Admin,
    Names((merchant, id)): Names<(MerchantId, String)>,
) -> Result<Answer<Value>, Refusal> {
    find(&app, Listing::Products(merchant), "id", &id).await
}

/// Remove a product from the catalogue and from every device.
#[utoipa::path(
    delete,
    path = "/v1/admin/merchants/{merchant}/products/{id}",
    tag = "admin",
    operation_id = "delete_product",
    params(("merchant" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn delete(
    extract::State(app): State,
    _: Admin,
    Names((merchant, id)): Names<(MerchantId, String)>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    write(&app, SourceWrite::DeleteProduct { merchant, id }).await
}
