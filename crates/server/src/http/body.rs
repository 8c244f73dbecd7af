//! JSON bodies: bounded, unpacked from gzip or zstd within the same bound, and refused with the place of the mistake.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use mstore_protocol::{Code, limits::BODY_BYTES_MAX, nearest};
use serde::de::DeserializeOwned;

use super::{App, problem::Refusal};
use crate::answers::{Coding, decompress};

/// A parser's complaint may repeat what it was given; this much of it is enough.
const COMPLAINT_CHARS_MAX: usize = 400;
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
        // One that says so is refused before a byte of it is read.
        if hyper::body::Body::size_hint(&body).lower() > BODY_BYTES_MAX as u64 {
            return Err(too_large());
        }
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
    while let Some(frame) = body.frame().await {
        let broke_off = |error| Refusal::malformed(format!("the body broke off after {} bytes: {error}", gathered.len()));
        let Ok(data) = frame.map_err(broke_off)?.into_data() else { continue };
        if gathered.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        gathered.extend_from_slice(&data);
    }
    Ok(gathered.freeze())
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
    // A list would be read as an object's values in their order, which nobody means.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Refusal::malformed("the body is not a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| malformed(&error.to_string()))
}

/// A refusal that says where the mistake is (serde's words end with "at line L column C"), and what an unknown field may have meant.
pub(super) fn malformed(complaint: &str) -> Refusal {
    let said: String = complaint.chars().take(COMPLAINT_CHARS_MAX).collect();
    let hint = meant(complaint).map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
    Refusal::malformed(format!("the body: {said}{hint}"))
}

/// serde says: unknown field `a`, expected one of `b`, `c` at line 1 column 2.
fn meant(complaint: &str) -> Option<&str> {
    let (typed, expected) = complaint.strip_prefix("unknown field `")?.split_once("`, expected ")?;
    nearest(typed, expected.split('`').skip(1).step_by(2))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its names matter")]
    struct Three {
        name: String,
        is_active: bool,
        sku: String,
    }

    #[test]
    fn an_unknown_field_is_named_with_what_it_may_have_meant() {
        let detail =
            |body: &str| serde_json::to_value(from_json::<Three>(body.as_bytes()).unwrap_err().problem()).unwrap()["detail"].to_string();
        assert!(detail(r#"{"is_activ":true}"#).contains(r#"did you mean \"is_active\"?"#));
        let far = detail(r#"{"colour":true}"#);
        assert!(far.contains("`colour`") && far.contains("`sku`") && !far.contains("did you mean"), "{far}");
        let long = detail(&format!("{{\"{}\":1}}", "x".repeat(100_000)));
        assert!(long.len() < 2 * COMPLAINT_CHARS_MAX, "{} bytes", long.len());
    }
}
