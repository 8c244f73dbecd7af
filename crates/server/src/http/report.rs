//! `POST /v1/devices/self/report`: how a device is doing, so that no till is stale in silence.

use axum::{
    extract,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use mstore_protocol::{Code, DeviceId, DeviceReport, Problem, ROTATE_HEADER, ServiceFigures, limits::REPORT_BYTES_MAX};
use mstore_store::{By, DeviceChange};

use super::{App, State, body::Json, caller::Device, problem::Refusal};

/// What it had reported before; a report that this version cannot read counts as none.
async fn before(app: &App, device: &DeviceId) -> Result<Option<DeviceReport>, Refusal> {
    let stored = app.store.device(device).await?.and_then(|record| record.report);
    Ok(stored.and_then(|report| serde_json::from_value(report).ok()))
}

/// Report the device's state.
#[utoipa::path(
    post,
    path = "/v1/devices/self/report",
    tag = "device",
    request_body = DeviceReport,
    responses((status = 204, description = "With the header `mstore-rotate: now` when the device should get another token"), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("device" = [])),
)]
pub(crate) async fn report(
    extract::State(app): State,
    Device { record, address }: Device,
    Json(report): Json<DeviceReport>,
) -> Result<Response, Refusal> {
    tracing::debug!(
        branch = %record.key,
        device = record.device.as_str(),
        seq = report.cursor.map(|cursor| cursor.seq),
        state = report.state.as_str(),
        queue_depth = report.queue_depth,
        oldest_pending_s = report.oldest_pending_s,
        dead_letters = report.dead_letters,
        "device reported"
    );
    let before = before(&app, &record.device).await?;
    let text = serde_json::to_string(&report).map_err(|error| Refusal::internal("a report could not be kept", &error))?;
    if text.len() > REPORT_BYTES_MAX {
        return Err(Refusal::new(Code::BodyTooLarge, format!("a report of {} bytes; at most {REPORT_BYTES_MAX}", text.len())));
    }
    let kept = serde_json::from_str(&text).map_err(|error| Refusal::internal("a report could not be kept", &error))?;
    app.directory.change(&record.device, DeviceChange::Report(kept), &By::device(&record.device, address)).await?;
    let achieved = ServiceFigures::between(before.as_ref(), &report);
    let new_ones = |counter| report.counted_since(before.as_ref(), counter);
    let meters = app.meters.branch(&record.key);
    meters.applied(&achieved.latency);
    meters.gaps.increment(new_ones("gaps"));
    meters.snapshots.increment(new_ones("snapshots"));
    app.levels.add(&record.key.merchant, &achieved);
    let mismatches = new_ones("digest_mismatches");
    if mismatches > 0 {
        tracing::warn!(branch = %record.key, device = record.device.as_str(), mismatches, "device found rows that were not the server's");
        meters.mismatches.increment(mismatches);
    }
    let mut answer = StatusCode::NO_CONTENT.into_response();
    if app.directory.wants_rotation(&record) {
        answer.headers_mut().insert(ROTATE_HEADER, HeaderValue::from_static("now"));
    }
    Ok(answer)
}
