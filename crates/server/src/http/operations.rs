//! `POST /v1/{merchant}/{branch}/operations`: what devices did. One bad operation never fails the others.

use axum::{Json as Answer, extract};
use mstore_protocol::{
    Code, Problem, Upload, UploadAnswer, VerdictStatus,
    limits::{OPERATIONS_PER_UPLOAD_MAX, TEXT_BYTES_MAX},
};
use mstore_store::AcceptUpload;

use super::{State, body::Json, caller::Uploader, openapi::UploadBody, problem::Refusal};
use crate::webhook::Webhook;

/// Upload operations; each gets a verdict of its own. Resending is safe.
#[utoipa::path(
    post,
    path = "/v1/{merchant}/{branch}/operations",
    tag = "device",
    params(("merchant" = String, Path), ("branch" = String, Path)),
    request_body(content = UploadBody, description = "At most 500 operations and 8 MiB; gzip and zstd are accepted"),
    responses(
        (status = 200, description = "A verdict for each, in their order", body = UploadAnswer),
        (status = 413, description = "`too_many_operations` or `body_too_large`", body = Problem, content_type = "application/problem+json"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(("device" = [])),
)]
pub(crate) async fn operations(
    extract::State(app): State,
    uploader: Uploader,
    Json(upload): Json<Upload>,
) -> Result<Answer<UploadAnswer>, Refusal> {
    check(&upload)?;
    let device = uploader.device.device.clone();
    let accept = AcceptUpload {
        key: uploader.key.clone(),
        device: device.clone(),
        journal_id: upload.journal_id,
        clock_offset_ms: upload.clock_offset_ms,
        operations: upload.operations.into_iter().map(|operation| String::from(Box::<str>::from(operation))).collect(),
    };
    let listener = app.webhook.as_deref().map(Webhook::listen);
    let mut verdicts = app.store.accept(accept).await?;
    if let Some(listener) = listener {
        verdicts = listener.settled(&*app.store, &uploader.key, verdicts).await;
    }
    let count = |status| verdicts.iter().filter(|verdict| verdict.status == status).count();
    let (accepted, duplicates, rejected) =
        (count(VerdictStatus::Accepted), count(VerdictStatus::Duplicate), count(VerdictStatus::Rejected));
    let meters = app.meters.branch(&uploader.key);
    for (counter, count) in [(&meters.accepted, accepted), (&meters.duplicates, duplicates), (&meters.rejected, rejected)] {
        counter.increment(u64::try_from(count).unwrap_or(0));
    }
    let seq = verdicts.iter().filter_map(|verdict| verdict.seq).max();
    tracing::info!(branch = %uploader.key, device = device.as_str(), seq, accepted, duplicates, rejected, "operations judged");
    for verdict in verdicts.iter().filter(|verdict| verdict.status == VerdictStatus::Rejected) {
        let (id, code) = (verdict.id.as_str(), verdict.code.map(Code::as_str));
        tracing::warn!(branch = %uploader.key, device = device.as_str(), id, code, detail = verdict.detail, "operation rejected");
    }
    Ok(Answer(UploadAnswer { verdicts }))
}

fn check(upload: &Upload) -> Result<(), Refusal> {
    if upload.operations.len() > OPERATIONS_PER_UPLOAD_MAX {
        let detail = format!("{} operations; at most {OPERATIONS_PER_UPLOAD_MAX}", upload.operations.len());
        return Err(Refusal::new(Code::TooManyOperations, detail));
    }
    if upload.journal_id.is_empty() || upload.journal_id.len() > TEXT_BYTES_MAX {
        return Err(Refusal::malformed(format!("journal_id: 1 to {TEXT_BYTES_MAX} bytes")));
    }
    Ok(())
}
