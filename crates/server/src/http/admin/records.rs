//! What happened: operations received, transactions, alarms.

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchKey, Problem};
use mstore_store::Listing;

use super::{
    super::{
        State,
        caller::Admin,
        extract::{Ask, Names},
        problem::Refusal,
    },
    PageAnswer, Paging, page,
};

/// Operations received for a branch with their verdicts, in order of arrival, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/operations",
    tag = "admin",
    operation_id = "list_operations",
    params(("merchant" = String, Path), ("branch" = String, Path), Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn operations(
    extract::State(app): State,
    _: Admin,
    Names(key): Names<BranchKey>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<PageAnswer>, Refusal> {
    page(&app, Listing::Operations(key), &paging).await
}

/// Transactions of a branch, those that devices no longer hold included, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/transactions",
    tag = "admin",
    operation_id = "list_transactions",
    params(("merchant" = String, Path), ("branch" = String, Path), Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn transactions(
    extract::State(app): State,
    _: Admin,
    Names(key): Names<BranchKey>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<PageAnswer>, Refusal> {
    page(&app, Listing::Transactions(key), &paging).await
}

/// Alarms, newest first, a page; a merchant's token sees those of its merchant.
#[utoipa::path(
    get,
    path = "/v1/admin/alarms",
    tag = "admin",
    operation_id = "list_alarms",
    params(Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn alarms(extract::State(app): State, admin: Admin, Ask(paging): Ask<Paging>) -> Result<Answer<PageAnswer>, Refusal> {
    page(&app, admin.only().cloned().map_or(Listing::Alarms, Listing::AlarmsOf), &paging).await
}
