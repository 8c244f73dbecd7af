//! `POST /v1/devices/self/report`: how a device is doing, so that no till is stale in silence.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use axum::{
    extract,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use mstore_protocol::{Code, DeviceId, DeviceReport, Problem, ROTATE_HEADER, limits::REPORT_BYTES_MAX};
use mstore_store::{By, DeviceChange};

use super::{App, State, body::Json, caller::Device, problem::Refusal};

/// About 100 bytes each; beyond it the counting starts anew.
const DEVICES_MAX: usize = 50_000;

/// How many digest mismatches each device last reported: they count from the start of its app, the metric from ours.
#[derive(Default)]
pub(crate) struct Mismatches(Mutex<HashMap<DeviceId, u64>>);

impl Mismatches {
    /// Gives what is new in a report; `stored` is the figure of the report before, read when it is not known here.
    fn new_ones(&self, device: &DeviceId, reported: u64, stored: u64) -> u64 {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= DEVICES_MAX {
            known.clear();
        }
        let before = known.insert(device.clone(), reported).unwrap_or(stored);
        // A lower figure: the app was started again.
        if reported < before { reported } else { reported - before }
    }

    fn knows(&self, device: &DeviceId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(device)
    }
}

/// The counter in a report.
fn mismatches(report: &DeviceReport) -> u64 {
    report.counters.get("digest_mismatches").copied().unwrap_or(0)
}

async fn stored_mismatches(app: &App, device: &DeviceId) -> Result<u64, Refusal> {
    let stored = app.store.device(device).await?.and_then(|record| record.report);
    Ok(stored.and_then(|report| serde_json::from_value(report).ok()).as_ref().map_or(0, mismatches))
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
    let reported = mismatches(&report);
    let stored = if app.mismatches.knows(&record.device) { 0 } else { stored_mismatches(&app, &record.device).await? };
    let text = serde_json::to_string(&report).map_err(|error| Refusal::internal("a report could not be kept", &error))?;
    if text.len() > REPORT_BYTES_MAX {
        return Err(Refusal::new(Code::BodyTooLarge, format!("a report of {} bytes; at most {REPORT_BYTES_MAX}", text.len())));
    }
    let report = serde_json::from_str(&text).map_err(|error| Refusal::internal("a report could not be kept", &error))?;
    app.directory.change(&record.device, DeviceChange::Report(report), &By::device(&record.device, address)).await?;
    let new_ones = app.mismatches.new_ones(&record.device, reported, stored);
    if new_ones > 0 {
        tracing::warn!(branch = %record.key, device = record.device.as_str(), mismatches = new_ones, "device found rows that were not the server's");
        app.meters.branch(&record.key).mismatches.increment(new_ones);
    }
    let mut answer = StatusCode::NO_CONTENT.into_response();
    if app.directory.wants_rotation(&record) {
        answer.headers_mut().insert(ROTATE_HEADER, HeaderValue::from_static("now"));
    }
    Ok(answer)
}
