//! JSON bodies: bounded, unpacked from gzip or zstd within the same bound, and refused with the place of the mistake.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use mstore_protocol::{Code, limits::BODY_BYTES_MAX};
use serde::de::DeserializeOwned;

use super::{App, problem::Refusal};
use crate::answers::{Coding, decompress};

/// A body over the limit is read on for this many times the limit, so that the sender gets to read the refusal.
const DRAIN_LIMITS: usize = 4;
/// Larger bodies are unpacked and parsed off the runtime's threads.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        check_type(&parts.headers)?;
        let coding = coding_of(&parts.headers)?;
        let limit = app.config.limits.body_timeout;
        let bytes = tokio::time::timeout(limit, read(body)).await.map_err(|_| {
            Refusal::with_status(StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {} s", limit.as_secs()))
        })??;
        if coding == Coding::Identity && bytes.len() <= INLINE_BYTES_MAX {
            return parse(coding, &bytes).map(Self);
        }
        let parsed = tokio::task::spawn_blocking(move || parse(coding, &bytes)).await;
        parsed.map_err(|error| Refusal::internal("a body could not be read", &error))?.map(Self)
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    Err(Refusal::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("content-type {essence:?}; send application/json")))
}

fn coding_of(headers: &HeaderMap) -> Result<Coding, Refusal> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(Coding::Identity) };
    match value.to_str().unwrap_or("?").trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        "zstd" => Ok(Coding::Zstd),
        other => {
            Err(Refusal::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("content-encoding {other:?}; send gzip, zstd or none")))
        }
    }
}

async fn read(mut body: Body) -> Result<Bytes, Refusal> {
    let mut gathered = BytesMut::new();
    let mut seen: usize = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::malformed(format!("the body broke off after {seen} bytes: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen > BODY_BYTES_MAX * DRAIN_LIMITS {
            break;
        }
        if seen <= BODY_BYTES_MAX {
            gathered.extend_from_slice(&data);
        }
    }
    if seen > BODY_BYTES_MAX { Err(too_large()) } else { Ok(gathered.freeze()) }
}

fn too_large() -> Refusal {
    Refusal::new(Code::BodyTooLarge, format!("the body is over {BODY_BYTES_MAX} bytes"))
}

fn parse<T: DeserializeOwned>(coding: Coding, bytes: &[u8]) -> Result<T, Refusal> {
    if coding == Coding::Identity {
        return from_json(bytes);
    }
    let plain = decompress(coding, bytes, BODY_BYTES_MAX)
        .map_err(|error| Refusal::malformed(format!("the compressed body is damaged or cut off: {error}")))?;
    from_json(&plain.ok_or_else(too_large)?)
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::malformed("the body is empty; a JSON object is expected"));
    }
    // The message ends with "at line L column C".
    serde_json::from_slice(bytes).map_err(|error| Refusal::malformed(format!("the body: {error}")))
}
