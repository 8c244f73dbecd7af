//! Merchants: a business with one catalogue, one currency and any number of branches.

use axum::{Json as Answer, extract};
use mstore_protocol::{Currency, MerchantId, Problem, StockAuthority};
use mstore_store::{Listing, Merchant, SourceWrite, StockPolicy};
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

/// A merchant's settings.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MerchantBody {
    /// May be left out; the path has it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    merchant: Option<MerchantId>,
    /// For people.
    name: String,
    /// Of every price and receipt, ISO 4217.
    #[schema(value_type = String)]
    currency: Currency,
    /// `allow`, `warn` (default) or `block`: when stock would fall below zero.
    #[serde(default)]
    #[schema(value_type = String)]
    stock_policy: StockPolicy,
    /// `mstore` (default) or `backend`: who decides what the stock is.
    #[serde(default)]
    stock_authority: StockAuthority,
}

/// Merchants, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants",
    tag = "admin",
    operation_id = "list_merchants",
    params(Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(extract::State(app): State, admin: Admin, Ask(paging): Ask<Paging>) -> Result<Answer<PageAnswer>, Refusal> {
    page(&app, admin.only().cloned().map_or(Listing::Merchants, Listing::Merchant), &paging).await
}

/// Create or change a merchant.
#[utoipa::path(
    put,
    path = "/v1/admin/merchants/{merchant}",
    tag = "admin",
    operation_id = "put_merchant",
    params(("merchant" = String, Path)),
    request_body = MerchantBody,
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn put(
    extract::State(app): State,
    _: Admin,
    Names(merchant): Names<MerchantId>,
    Json(body): Json<MerchantBody>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    same_name("merchant", &merchant, body.merchant.as_ref())?;
    let MerchantBody { name, currency, stock_policy, stock_authority, .. } = body;
    write(&app, SourceWrite::PutMerchant(Merchant { merchant, name, currency, stock_policy, stock_authority })).await
}

/// One merchant.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}",
    tag = "admin",
    operation_id = "read_merchant",
    params(("merchant" = String, Path)),
    responses((status = 200, body = MerchantBody), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn read(extract::State(app): State, _: Admin, Names(merchant): Names<MerchantId>) -> Result<Answer<Value>, Refusal> {
    find(&app, Listing::Merchants, "merchant", merchant.as_str()).await
}
