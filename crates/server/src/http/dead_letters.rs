//! `POST /v1/{merchant}/{branch}/dead-letters`: a till and the server agree on what becomes of rejected operations.

use axum::{Json as Answer, extract};
use mstore_protocol::{
    Code, DeadLetterAnswer, DeadLetterReport, Problem,
    limits::{OPERATIONS_PER_UPLOAD_MAX, TEXT_BYTES_MAX},
};

use super::{State, body::Json, caller::Uploader, problem::Refusal};

/// Tell what was decided at the till, ask about what is open. The first decision counts; telling twice is safe.
#[utoipa::path(
    post,
    path = "/v1/{merchant}/{branch}/dead-letters",
    tag = "device",
    operation_id = "settle_dead_letters",
    params(("merchant" = String, Path), ("branch" = String, Path)),
    request_body = DeadLetterReport,
    responses(
        (status = 200, description = "The decisions that count", body = DeadLetterAnswer),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(("device" = [])),
)]
pub(crate) async fn settle(
    extract::State(app): State,
    uploader: Uploader,
    Json(report): Json<DeadLetterReport>,
) -> Result<Answer<DeadLetterAnswer>, Refusal> {
    let most = report.decided.len().max(report.open.len());
    if most > OPERATIONS_PER_UPLOAD_MAX {
        return Err(Refusal::new(Code::TooManyOperations, format!("{most} operations; at most {OPERATIONS_PER_UPLOAD_MAX} in each list")));
    }
    if report.journal_id.is_empty() || report.journal_id.len() > TEXT_BYTES_MAX {
        return Err(Refusal::malformed(format!("journal_id: 1 to {TEXT_BYTES_MAX} bytes")));
    }
    let device = &uploader.device.device;
    let (decided, open) = (report.decided.len(), report.open.len());
    let decisions = app.store.settle_dead_letters(&uploader.key, device, report).await?;
    tracing::info!(branch = %uploader.key, device = device.as_str(), decided, open, standing = decisions.len(), "dead letters settled");
    Ok(Answer(DeadLetterAnswer { decisions }))
}
