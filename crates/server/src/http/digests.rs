//! `GET /v1/{merchant}/{branch}/digests`: where a device and the server differ, to 1/256 of a collection.

use axum::{Json, extract};
use mstore_protocol::{Collection, Digest, Epoch, Problem, Seq, Tag};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{App, State, caller::Reader, extract::Ask, problem::Refusal};

/// Which collection.
#[derive(Deserialize)]
pub(crate) struct Of {
    collection: Collection,
}

/// The sub-digests of a collection at one commit.
#[derive(Serialize, ToSchema)]
pub(crate) struct SubDigests {
    epoch: Epoch,
    seq: Seq,
    tag: Tag,
    /// 256 of them, by the first byte of SHA-256(id).
    sub_digests: Vec<Digest>,
}

/// The 256 sub-digests of a collection.
#[utoipa::path(
    get,
    path = "/v1/{merchant}/{branch}/digests",
    tag = "device",
    params(("merchant" = String, Path), ("branch" = String, Path), ("collection" = String, Query)),
    responses((status = 200, body = SubDigests), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("device" = []), ("admin" = [])),
)]
pub(crate) async fn digests(extract::State(app): State, reader: Reader, Ask(of): Ask<Of>) -> Result<Json<SubDigests>, Refusal> {
    App::check_collection(&of.collection)?;
    app.head_of(&reader.key).await?;
    let (head, sub_digests) = app.store.digests(&reader.key, &of.collection).await?;
    Ok(Json(SubDigests { epoch: head.epoch, seq: head.seq, tag: head.tag, sub_digests: sub_digests.to_vec() }))
}
