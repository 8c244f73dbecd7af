//! `GET /v1/{merchant}/{branch}/head`: what the branch is now, with authority.

use axum::{Json, extract};
use mstore_protocol::{Head, Problem};

use super::{State, caller::Reader, problem::Refusal};

/// The head of a branch.
#[utoipa::path(
    get,
    path = "/v1/{merchant}/{branch}/head",
    tag = "device",
    params(("merchant" = String, Path), ("branch" = String, Path)),
    responses((status = 200, body = Head), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("device" = []), ("admin" = [])),
)]
pub(crate) async fn head(extract::State(app): State, reader: Reader) -> Result<Json<Head>, Refusal> {
    app.head_of(&reader.key).await.map(Json)
}
