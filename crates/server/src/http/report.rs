//! `POST /v1/devices/self/report`: how a device is doing, so that no till is stale in silence.

use axum::{extract, http::StatusCode};
use mstore_protocol::{Code, DeviceReport, Problem, limits::REPORT_BYTES_MAX};
use mstore_store::DeviceChange;

use super::{State, body::Json, caller::Device, problem::Refusal};

/// Report the device's state.
#[utoipa::path(
    post,
    path = "/v1/devices/self/report",
    tag = "device",
    request_body = DeviceReport,
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("device" = [])),
)]
pub(crate) async fn report(
    extract::State(app): State,
    Device(record): Device,
    Json(report): Json<DeviceReport>,
) -> Result<StatusCode, Refusal> {
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
    let text = serde_json::to_string(&report).map_err(|error| Refusal::internal("a report could not be kept", &error))?;
    if text.len() > REPORT_BYTES_MAX {
        return Err(Refusal::new(Code::BodyTooLarge, format!("a report of {} bytes; at most {REPORT_BYTES_MAX}", text.len())));
    }
    let report = serde_json::from_str(&text).map_err(|error| Refusal::internal("a report could not be kept", &error))?;
    app.directory.change(&record.device, DeviceChange::Report(report)).await?;
    Ok(StatusCode::NO_CONTENT)
}
