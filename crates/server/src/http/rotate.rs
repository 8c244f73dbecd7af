//! `POST /v1/devices/self/rotate`: the next token; the old one ends when the new one is first used.

use axum::{Json, extract};
use mstore_protocol::{Problem, Rotation};
use mstore_store::{By, DeviceChange};

use super::{State, caller::Device, problem::Refusal};

/// Get the next token.
#[utoipa::path(
    post,
    path = "/v1/devices/self/rotate",
    tag = "device",
    responses((status = 200, body = Rotation), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("device" = [])),
)]
pub(crate) async fn rotate(extract::State(app): State, Device { record, address }: Device) -> Result<Json<Rotation>, Refusal> {
    // The answer to an earlier call was lost: give it again, or the device would hold neither token that works.
    if record.previous_generation.is_some() {
        return Ok(Json(Rotation { token: app.directory.token(&record) }));
    }
    let rotated = app.directory.change(&record.device, DeviceChange::Rotate, &By::device(&record.device, address)).await?;
    tracing::info!(branch = %record.key, device = record.device.as_str(), generation = rotated.generation, "device token rotated");
    Ok(Json(Rotation { token: app.directory.token(&rotated) }))
}
