//! A branch's own price of a product.

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchId, BranchKey, Currency, MerchantId, Money, Problem};
use mstore_store::SourceWrite;
use serde::{Deserialize, Deserializer, de::Error as _};
use utoipa::ToSchema;

use super::{
    super::{State, body::Json, caller::Admin, extract::Names, problem::Refusal},
    WriteAnswer, write,
};

/// A price.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceBody {
    /// In minor units of the merchant's currency, not below 0.
    #[serde(deserialize_with = "amount")]
    price: Money,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Amount {
    amount: i64,
    currency: Currency,
}

/// Money as operators send it: a field that money does not have is a mistake.
pub(super) fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    let Amount { amount, currency } = Amount::deserialize(deserializer)?;
    Money::new(amount, currency).map_err(D::Error::custom)
}

type PriceName = (MerchantId, BranchId, String);

/// Give a branch its own price of a product.
#[utoipa::path(
    put,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/prices/{product_id}",
    tag = "admin",
    operation_id = "put_price",
    params(("merchant" = String, Path), ("branch" = String, Path), ("product_id" = String, Path)),
    request_body = PriceBody,
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn put(
    extract::State(app): State,
    _: Admin,
    Names((merchant, branch, product_id)): Names<PriceName>,
    Json(body): Json<PriceBody>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    let key = BranchKey { merchant, branch };
    write(&app, SourceWrite::PutBranchPrice { key, product_id, price: Some(body.price) }).await
}

/// Take a branch's own price away: the merchant's holds again.
#[utoipa::path(
    delete,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/prices/{product_id}",
    tag = "admin",
    operation_id = "delete_price",
    params(("merchant" = String, Path), ("branch" = String, Path), ("product_id" = String, Path)),
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn delete(
    extract::State(app): State,
    _: Admin,
    Names((merchant, branch, product_id)): Names<PriceName>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    let key = BranchKey { merchant, branch };
    write(&app, SourceWrite::PutBranchPrice { key, product_id, price: None }).await
}
