//! `GET /v1/{merchant}/{branch}/rows`: the rows of the ranges in which a device differs.

use std::fmt::Write as _;

use axum::{
    extract,
    http::header,
    response::{IntoResponse, Response},
};
use mstore_protocol::{Collection, Problem};
use serde::Deserialize;

use super::{App, State, caller::Reader, extract::Ask, problem::Refusal};

/// Which rows.
#[derive(Deserialize)]
pub(crate) struct Ranges {
    collection: Collection,
    range: String,
}

/// The rows of some ranges of a collection, at one commit.
#[utoipa::path(
    get,
    path = "/v1/{merchant}/{branch}/rows",
    tag = "device",
    params(
        ("merchant" = String, Path), ("branch" = String, Path), ("collection" = String, Query),
        ("range" = String, Query, description = "Range numbers 0 to 255 separated by commas: the first byte of SHA-256(id)"),
    ),
    responses(
        (status = 200, description = "`{\"epoch\",\"seq\",\"tag\",\"rows\":[{\"seq\",\"row\"}]}`", body = Object),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(("device" = []), ("admin" = [])),
)]
pub(crate) async fn rows(extract::State(app): State, reader: Reader, Ask(asked): Ask<Ranges>) -> Result<Response, Refusal> {
    let ranges = parse_ranges(&asked.range)?;
    App::check_collection(&asked.collection)?;
    app.head_of(&reader.key).await?;
    let (head, rows) = app.store.rows(&reader.key, &asked.collection, &ranges).await?;
    let mut body = format!("{{\"epoch\":\"{}\",\"seq\":{},\"tag\":\"{}\",\"rows\":[", head.epoch, head.seq, head.tag);
    for (i, (row, seq)) in rows.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        write!(body, "{comma}{{\"seq\":{seq},\"row\":{row}}}").expect("memory takes it");
    }
    body.push_str("]}");
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn parse_ranges(raw: &str) -> Result<Vec<u8>, Refusal> {
    let parsed: Result<Vec<u8>, _> = raw.split(',').map(|number| number.trim().parse()).collect();
    let mut ranges = parsed.map_err(|_| Refusal::malformed(format!("range: {raw:?} is not a list of numbers from 0 to 255")))?;
    ranges.sort_unstable();
    ranges.dedup();
    Ok(ranges)
}
