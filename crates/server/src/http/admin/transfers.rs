//! Goods between branches: what is in transit, when it arrives, whether it adds up.

use axum::{Json as Answer, extract, http::StatusCode};
use mstore_protocol::{BranchId, BranchKey, MerchantId, OperationId, Problem, Quantity, StockTarget};
use mstore_store::{Imbalance, TransferArrival, Written};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        State,
        body::Json,
        caller::Admin,
        extract::{Ask, Names},
        problem::Refusal,
    },
    BranchSeq, PageAnswer, Paging, WriteAnswer,
    oversells::Books,
};

/// When goods sent to another branch are there.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArrivalBody {
    /// `at_once`, or `on_receipt`: when the receiving branch says so.
    #[schema(value_type = String)]
    arrival: TransferArrival,
}

/// Whether transfers add up.
#[derive(Serialize, ToSchema)]
pub(crate) struct Balance {
    /// Nothing was lost or made between branches.
    is_balanced: bool,
    /// Items of which movements and goods in transit do not come to nothing.
    differing: Vec<DifferingItem>,
}

/// An item whose transfers do not add up.
#[derive(Serialize, ToSchema)]
pub(crate) struct DifferingItem {
    collection: StockTarget,
    item_id: String,
    #[schema(value_type = String)]
    difference: Quantity,
    #[schema(value_type = String)]
    in_transit: Quantity,
}

/// Transfers of a merchant, newest first, a page; those that arrived with `settled_too`.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/transfers",
    tag = "admin",
    operation_id = "list_transfers",
    params(("merchant" = String, Path), Books, Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    extract::State(app): State,
    _: Admin,
    Names(merchant): Names<MerchantId>,
    Ask(books): Ask<Books>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<PageAnswer>, Refusal> {
    let page = app.store.transfers(books.of(merchant), paging.after.as_deref(), paging.limit()?).await?;
    Ok(Answer(PageAnswer { items: page.items, next: page.next }))
}

/// Goods in transit are at the branch now. Saying so twice moves them once.
#[utoipa::path(
    post,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/transfers/{id}/receive",
    tag = "admin",
    operation_id = "receive_transfer",
    params(("merchant" = String, Path), ("branch" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn receive(
    extract::State(app): State,
    _: Admin,
    Names((merchant, branch, id)): Names<(MerchantId, BranchId, OperationId)>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    let Written { seqs, duplicate, durable_at_us } = app.store.receive_transfer(&BranchKey { merchant, branch }, id).await?;
    let seqs = seqs.into_iter().map(|(key, seq)| BranchSeq { merchant: key.merchant, branch: key.branch, seq }).collect();
    Ok(Answer(WriteAnswer { seqs, duplicate, durable_at_us }))
}

/// Set when transfers of a merchant arrive, from now on.
#[utoipa::path(
    put,
    path = "/v1/admin/merchants/{merchant}/transfer-arrival",
    tag = "admin",
    operation_id = "put_transfer_arrival",
    params(("merchant" = String, Path)),
    request_body = ArrivalBody,
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn put_arrival(
    extract::State(app): State,
    _: Admin,
    Names(merchant): Names<MerchantId>,
    Json(body): Json<ArrivalBody>,
) -> Result<StatusCode, Refusal> {
    app.store.set_transfer_arrival(&merchant, body.arrival).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Check that transfers and goods in transit come to nothing.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/transfers/balance",
    tag = "admin",
    operation_id = "balance_transfers",
    params(("merchant" = String, Path)),
    responses((status = 200, body = Balance), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn balance(extract::State(app): State, _: Admin, Names(merchant): Names<MerchantId>) -> Result<Answer<Balance>, Refusal> {
    let differing: Vec<DifferingItem> = app
        .store
        .imbalances(&merchant)
        .await?
        .into_iter()
        .map(|Imbalance { collection, item_id, difference, in_transit }| DifferingItem { collection, item_id, difference, in_transit })
        .collect();
    Ok(Answer(Balance { is_balanced: differing.is_empty(), differing }))
}
