//! `GET /v1/{merchant}/{branch}/changes`: catch-up, poll and snapshot are one endpoint.

use std::sync::Arc;

use axum::{
    extract,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use mstore_protocol::{Code, Cursor, Head, Position, Problem};
use mstore_store::ChangesAsk;
use serde::Deserialize;

use super::{App, State, caller::Reader, extract::Ask, problem::Refusal, stream::Pieces};
use crate::answers::{Answer, Coding};

/// What a device asks.
#[derive(Deserialize)]
pub(crate) struct Since {
    after: Option<String>,
    resume: Option<String>,
    #[serde(default)]
    ops: Named,
}

/// Which of the caller's own operations the first line names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Named {
    /// Those of the commits since the cursor.
    #[default]
    Since,
    /// All that are contained, for a device whose rows came by ranges: they tell nothing of what made them.
    All,
}

/// Rows changed since a cursor, or all of them.
///
/// Newline-delimited JSON: a first line `ChangesFirst`, a line `{"c","op","id","seq","p","row"}` per row in (seq, collection, id) order, a
/// last line `ChangesEnd`. An answer without its last line is incomplete: stage its rows and go on with `?resume=` and the `p` of the last
/// line received.
#[utoipa::path(
    get,
    path = "/v1/{merchant}/{branch}/changes",
    tag = "device",
    params(
        ("merchant" = String, Path), ("branch" = String, Path),
        ("after" = Option<String>, Query, description = "The cursor `{epoch}:{seq}:{tag}` that the device has; none for a snapshot"),
        ("resume" = Option<String>, Query, description = "The `p` of the last line of a broken answer; wins over `after`"),
        ("ops" = Option<String>, Query, description = "`all`: the first line names all own operations contained, not only those since the \
            cursor; never 304. Default `since`"),
        ("If-None-Match" = Option<String>, Header, description = "A cursor in quotes: 304 if it is the head"),
    ),
    responses(
        (status = 200, description = "Lines of JSON; gzip or zstd by Accept-Encoding", content_type = "application/x-ndjson",
         body = String, headers(("ETag", description = "The cursor after this answer, in quotes"))),
        (status = 304, description = "The cursor is the head"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "`snapshot_required`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("device" = []), ("admin" = [])),
)]
pub(crate) async fn changes(
    extract::State(app): State,
    reader: Reader,
    Ask(since): Ask<Since>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let head = app.head_of(&reader.key).await?;
    let after = since.after.as_deref().map(cursor).transpose()?;
    let resume =
        since.resume.as_deref().map(Position::parse).transpose().map_err(|error| Refusal::malformed(format!("resume: {error}")))?;
    let held = after.or_else(|| not_modified_since(&headers));
    let meters = app.meters.branch(&reader.key);
    if resume.is_none() && since.ops == Named::Since && held == Some(head.cursor()) {
        meters.unchanged.increment(1);
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag(&head.cursor()))]).into_response());
    }
    if let (None, None, Some(record)) = (after, &resume, &reader.device) {
        app.rates.snapshot(&record.device, (app.config.clock)())?;
    }
    match answer(&app, &reader, (after, resume, since.ops), &head, wished(&headers)).await {
        Ok(response) => {
            meters.answers.increment(1);
            Ok(response)
        }
        Err(refusal) => {
            if refusal.code() == Code::SnapshotRequired {
                meters.snapshots_required.increment(1);
                let device = reader.device.as_ref().map(|record| record.device.as_str());
                tracing::info!(branch = %reader.key, device, cursor = ?after, head = head.seq, "snapshot required");
            }
            Err(refusal)
        }
    }
}

async fn answer(
    app: &App,
    reader: &Reader,
    (after, resume, named): (Option<Cursor>, Option<Position>, Named),
    head: &Head,
    wished: Coding,
) -> Result<Response, Refusal> {
    let answer = match resume {
        Some(resume) => {
            let ask = ChangesAsk { key: reader.key.clone(), after, resume: Some(resume) };
            Arc::new(Answer::read(&*app.store, ask).await?)
        }
        None => app.answers.get(&reader.key, after, head).await?,
    };
    let ops = match &reader.device {
        Some(record) => {
            let from = if named == Named::All { 0 } else { answer.summary.from };
            app.store.own_operations(&reader.key, &record.device, from, answer.summary.to).await?
        }
        None => Vec::new(),
    };
    let first = answer.first_line(ops);
    let coding = answer.shared.coding(wished);
    let pieces = if answer.shared.is_ready(coding) {
        answer.shared.body(coding, &first)
    } else {
        let answer = answer.clone();
        let compressed = tokio::task::spawn_blocking(move || answer.shared.body(coding, &first)).await;
        compressed.map_err(|error| Refusal::internal("an answer could not be compressed", &error))?
    };
    let pieces = pieces.map_err(|error| Refusal::internal("an answer could not be compressed", &error))?;
    tracing::debug!(
        branch = %reader.key,
        device = reader.device.as_ref().map(|record| record.device.as_str()),
        from = answer.summary.from,
        seq = answer.summary.to,
        rows = answer.summary.rows,
        bytes = pieces.iter().map(bytes::Bytes::len).sum::<usize>(),
        "changes answered"
    );
    let mut response = Response::new(Pieces::body(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::ETAG, etag(&answer.cursor()));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(name) = coding.name() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    Ok(response)
}

fn cursor(raw: &str) -> Result<Cursor, Refusal> {
    Cursor::parse(raw).map_err(|error| Refusal::new(Code::MalformedCursor, format!("after: {error}")))
}

/// The cursor in `If-None-Match`; anything else there matches nothing, as HTTP has it.
fn not_modified_since(headers: &HeaderMap) -> Option<Cursor> {
    let raw = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?.trim();
    let quoted = raw.strip_prefix("W/").unwrap_or(raw);
    Cursor::parse(quoted.strip_prefix('"')?.strip_suffix('"')?).ok()
}

fn wished(headers: &HeaderMap) -> Coding {
    let value = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    Coding::negotiate(value.unwrap_or(""))
}

fn etag(cursor: &Cursor) -> HeaderValue {
    HeaderValue::try_from(format!("\"{cursor}\"")).expect("a cursor is plain ASCII")
}
