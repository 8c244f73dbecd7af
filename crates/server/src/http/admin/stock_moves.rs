//! Stock movements of the back office: stock moves by deltas in a ledger, never by setting a value.

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchKey, OperationId, Problem, Quantity, StockTarget};
use mstore_store::{Listing, MoveKind, SourceWrite, StockMove};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    super::{
        State,
        body::Json,
        caller::Admin,
        extract::{Ask, Names},
        problem::Refusal,
    },
    PageAnswer, Paging, WriteAnswer, page, write,
};

/// Movements, all or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Moves {
    /// At least one.
    moves: Vec<MoveBody>,
}

/// One movement.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveBody {
    /// Idempotency key, a UUIDv7: the same id moves once.
    #[schema(value_type = String)]
    id: OperationId,
    /// Product stock or inventory quantity.
    collection: StockTarget,
    /// The row's id.
    item_id: String,
    /// `delta` (default) adds `quantity`, `count` makes it the new base.
    #[serde(default)]
    #[schema(value_type = String)]
    kind: MoveKind,
    /// Signed delta or counted amount.
    #[schema(value_type = String)]
    quantity: Quantity,
    /// Why.
    #[serde(default)]
    reason: String,
}

/// Stock movements of a branch, newest first, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/stock-moves",
    tag = "admin",
    operation_id = "list_stock_moves",
    params(("merchant" = String, Path), ("branch" = String, Path), Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    extract::State(app): State,
    _: Admin,
    Names(key): Names<BranchKey>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<PageAnswer>, Refusal> {
    page(&app, Listing::StockMoves(key), &paging).await
}

/// Move stock.
#[utoipa::path(
    post,
    path = "/v1/admin/merchants/{merchant}/branches/{branch}/stock-moves",
    tag = "admin",
    operation_id = "move_stock",
    params(("merchant" = String, Path), ("branch" = String, Path)),
    request_body = Moves,
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn move_stock(
    extract::State(app): State,
    _: Admin,
    Names(key): Names<BranchKey>,
    Json(body): Json<Moves>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    if body.moves.is_empty() {
        return Err(Refusal::malformed("moves: at least one"));
    }
    let to_move =
        |MoveBody { id, collection, item_id, kind, quantity, reason }| StockMove { id, collection, item_id, kind, quantity, reason };
    let moves = body.moves.into_iter().map(to_move).collect();
    write(&app, SourceWrite::MoveStock { key, moves }).await
}
