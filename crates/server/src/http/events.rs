//! `POST /v1/{merchant}/{branch}/events`: changes told by a backend that shares no database.

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchKey, Code, EventError, EventRequest, EventVerdict, Problem};
use mstore_store::{SourceWrite, StoreError};
use serde_json::value::RawValue;

use super::{
    State,
    body::{Json, malformed},
    caller::Admin,
    extract::Names,
    openapi::EventBody,
    problem::Refusal,
};

/// Tell of a change. The same idempotency key gives the same answer; a lower version than one seen before is `stale`.
#[utoipa::path(
    post,
    path = "/v1/{merchant}/{branch}/events",
    tag = "backend",
    params(("merchant" = String, Path), ("branch" = String, Path)),
    request_body = EventBody,
    responses(
        (status = 200, description = "`accepted`, `duplicate` or `stale`", body = EventVerdict),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(("admin" = [])),
)]
pub(crate) async fn events(
    extract::State(app): State,
    _: Admin,
    Names(key): Names<BranchKey>,
    Json(body): Json<Box<RawValue>>,
) -> Result<Answer<EventVerdict>, Refusal> {
    let event = parse(body.get())?;
    let written = app.store.write(SourceWrite::Event { key: key.clone(), event: Box::new(event) }).await;
    let verdict = match written {
        Ok(written) => {
            let status = if written.duplicate { "duplicate" } else { "accepted" };
            EventVerdict { status: status.into(), seq: written.seqs.get(&key).copied(), code: None }
        }
        Err(StoreError::Refused { code: Code::StaleEvent, .. }) => {
            EventVerdict { status: "stale".into(), seq: None, code: Some(Code::StaleEvent) }
        }
        Err(error) => return Err(error.into()),
    };
    tracing::info!(branch = %key, status = verdict.status, seq = verdict.seq, "event received");
    Ok(Answer(verdict))
}

fn parse(body: &str) -> Result<EventRequest, Refusal> {
    EventRequest::parse(body).map_err(|error| match error {
        EventError::Row(row) => Refusal::new(row.code(), format!("transaction: {row}")),
        EventError::Shape(shape) => malformed(&shape.to_string()),
    })
}
