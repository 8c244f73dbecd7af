//! The sweep at once: everything in the source against everything that devices should have.

use axum::{Json as Answer, extract};
use mstore_protocol::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{State, caller::Admin, problem::Refusal};

/// Rows compared in one read, so that writers are not held up.
const SLICE_ROWS: usize = 5_000;

/// What a full sweep found.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Verified {
    /// Rows compared.
    compared: u64,
    /// Rows that devices did not have as the source has them; they are on their way now.
    differing: u64,
    /// Rows whose stored hash or digest did not fit and were mended.
    mended: u64,
    /// Neither of the two.
    clean: bool,
}

/// Compare everything now.
#[utoipa::path(
    post,
    path = "/v1/admin/verify",
    tag = "admin",
    operation_id = "verify",
    responses((status = 200, body = Verified), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn verify(extract::State(app): State, _: Admin) -> Result<Answer<Verified>, Refusal> {
    let mut verified = Verified::default();
    let mut from = None;
    loop {
        let slice = app.store.sweep(from, SLICE_ROWS).await?;
        verified.compared += slice.compared;
        verified.differing += slice.differing;
        verified.mended += slice.mended;
        from = slice.next;
        if from.is_none() {
            break;
        }
    }
    verified.clean = verified.differing == 0 && verified.mended == 0;
    let Verified { compared, differing, mended, .. } = verified;
    tracing::info!(compared, differing, mended, "verify finished");
    Ok(Answer(verified))
}
