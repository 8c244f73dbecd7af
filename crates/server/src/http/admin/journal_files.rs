//! A till's journal handed in as a file: for a till that cannot reach the server any more. As safe as the till's own uploads, before or after them.

use axum::{Json as Answer, extract};
use mstore_protocol::{
    BranchKey, Code, DeviceId, JOURNAL_FORMAT, JournalFile, Problem, UploadAnswer,
    limits::{OPERATIONS_PER_UPLOAD_MAX, TEXT_BYTES_MAX},
};
use mstore_store::{AcceptUpload, Act};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{App, State, body::Json, caller::Admin, extract::Names, openapi::UploadBody, problem::Refusal};

/// A journal file, or a part of one; the endpoint reads `mstore_protocol::JournalFile`, which has the same shape.
#[derive(Serialize, ToSchema)]
pub(crate) struct JournalFileBody {
    /// `mstore-journal-1`.
    format: String,
    device_id: String,
    merchant: String,
    branch: String,
    exported_at: String,
    #[serde(flatten)]
    upload: UploadBody,
}

/// Hand in a till's journal file; at most 500 operations at once: a longer file is handed in in parts.
#[utoipa::path(
    post,
    path = "/v1/admin/devices/{device}/journal",
    tag = "admin",
    operation_id = "hand_in_journal",
    params(("device" = String, Path)),
    request_body = JournalFileBody,
    responses(
        (status = 200, description = "A verdict for each, in their order", body = UploadAnswer),
        (status = 413, description = "`too_many_operations` or `body_too_large`", body = Problem, content_type = "application/problem+json"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(("admin" = [])),
)]
pub(crate) async fn hand_in(
    extract::State(app): State,
    admin: Admin,
    Names(device): Names<DeviceId>,
    Json(file): Json<JournalFile>,
) -> Result<Answer<UploadAnswer>, Refusal> {
    let key = check(&app, &device, &file).await?;
    let JournalFile { journal_id, clock_offset_ms, operations, .. } = file;
    let operations: Vec<String> = operations.into_iter().map(|operation| String::from(Box::<str>::from(operation))).collect();
    let count = operations.len();
    // Before it is done: an act that nobody recorded must not have been one.
    let act = Act {
        action: "journal.handed_in",
        merchant: Some(key.merchant.to_string()),
        branch: Some(key.branch.to_string()),
        device: Some(device.to_string()),
        subject: Some(journal_id.clone()),
        detail: format!("{count} operations"),
    };
    app.store.record_act(act, &admin.by()).await?;
    let accept = AcceptUpload { key: key.clone(), device: device.clone(), journal_id, clock_offset_ms, operations };
    let verdicts = app.store.accept(accept).await?;
    tracing::warn!(branch = %key, device = device.as_str(), count, "a journal file was handed in");
    Ok(Answer(UploadAnswer { verdicts }))
}

async fn check(app: &App, device: &DeviceId, file: &JournalFile) -> Result<BranchKey, Refusal> {
    if file.format != JOURNAL_FORMAT {
        return Err(Refusal::malformed(format!("format: {:?} instead of {JOURNAL_FORMAT:?}", file.format)));
    }
    if file.device_id != *device {
        return Err(Refusal::malformed(format!("device_id: the file is of {}, the path says {device}", file.device_id)));
    }
    if file.operations.len() > OPERATIONS_PER_UPLOAD_MAX {
        let detail = format!("{} operations; at most {OPERATIONS_PER_UPLOAD_MAX}: hand the file in in parts", file.operations.len());
        return Err(Refusal::new(Code::TooManyOperations, detail));
    }
    if file.journal_id.is_empty() || file.journal_id.len() > TEXT_BYTES_MAX {
        return Err(Refusal::malformed(format!("journal_id: 1 to {TEXT_BYTES_MAX} bytes")));
    }
    let known = app.store.device(device).await?;
    let record = known.ok_or_else(|| Refusal::not_found(format!("there is no device {device}")))?;
    let was_there = record.key.merchant == file.merchant && (record.key.branch == file.branch || record.branches.contains(&file.branch));
    if !was_there {
        return Err(Refusal::new(Code::Conflict, format!("device {device} never belonged to {}/{}", file.merchant, file.branch)));
    }
    Ok(BranchKey { merchant: file.merchant.clone(), branch: file.branch.clone() })
}
