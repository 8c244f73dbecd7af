//! Mass deletions are held until somebody confirms them.

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchKey, Problem};
use mstore_store::SourceWrite;

use super::{
    super::{State, caller::Admin, extract::Names, problem::Refusal},
    WriteAnswer, write,
};

/// Let a held commit go out.
#[utoipa::path(
    post,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/holds/confirm",
    tag = "admin",
    operation_id = "confirm_hold",
    params(("merchant" = String, Path), ("branch" = String, Path)),
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn confirm(
    extract::State(app): State,
    admin: Admin,
    Names(key): Names<BranchKey>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    tracing::warn!(branch = %key, "held commit confirmed");
    write(&app, SourceWrite::ConfirmHold { key, by: admin.by() }).await
}
