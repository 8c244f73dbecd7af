//! Branches: shops of a merchant; a new one sees the whole catalogue at once.

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchId, BranchKey, MerchantId, Problem};
use mstore_store::{Listing, SourceWrite};
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

/// A branch's settings.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BranchBody {
    /// May be left out; the path has it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    branch: Option<BranchId>,
    /// For people.
    name: String,
}

/// Branches of a merchant, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/branches",
    tag = "admin",
    operation_id = "list_branches",
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
    page(&app, Listing::Branches(merchant), &paging).await
}

/// Create or rename a branch.
#[utoipa::path(
    put,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}",
    tag = "admin",
    operation_id = "put_branch",
    params(("merchant" = String, Path), ("branch" = String, Path)),
    request_body = BranchBody,
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn put(
    extract::State(app): State,
    _: Admin,
    Names(key): Names<BranchKey>,
    Json(body): Json<BranchBody>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    same_name("branch", &key.branch, body.branch.as_ref())?;
    write(&app, SourceWrite::PutBranch { key, name: body.name }).await
}

/// One branch.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}",
    tag = "admin",
    operation_id = "read_branch",
    params(("merchant" = String, Path), ("branch" = String, Path)),
    responses((status = 200, body = BranchBody), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn read(extract::State(app): State, _: Admin, Names(key): Names<BranchKey>) -> Result<Answer<Value>, Refusal> {
    find(&app, Listing::Branches(key.merchant), "branch", key.branch.as_str()).await
}
