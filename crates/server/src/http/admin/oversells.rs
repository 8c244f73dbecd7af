//! Exceptions for the manager: what was sold or sent although the books said that it was not there.

use axum::{Json as Answer, extract, http::StatusCode};
use mstore_protocol::{BranchId, MerchantId, Problem, limits::TEXT_BYTES_MAX};
use mstore_store::BooksOf;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        State,
        body::Json,
        caller::Admin,
        extract::{Ask, Names},
        problem::Refusal,
    },
    PageAnswer, Paging,
};

/// Which part of a listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Books {
    /// Of one branch only.
    #[param(value_type = Option<String>)]
    branch: Option<BranchId>,
    /// What is settled, too.
    #[serde(default)]
    settled_too: bool,
}

impl Books {
    /// Of this merchant.
    pub(super) fn of(self, merchant: MerchantId) -> BooksOf {
        BooksOf { merchant, branch: self.branch, settled_too: self.settled_too }
    }
}

/// What was found out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    /// For people.
    #[serde(default)]
    note: String,
}

/// Movements below zero with their receipts, newest first, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/oversells",
    tag = "admin",
    operation_id = "list_oversells",
    params(("merchant" = String, Path), Books, Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    extract::State(app): State,
    _: Admin,
    Names(merchant): Names<MerchantId>,
    Ask(books): Ask<Books>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<PageAnswer>, Refusal> {
    let page = app.store.oversells(books.of(merchant), paging.after.as_deref(), paging.limit()?).await?;
    Ok(Answer(PageAnswer { items: page.items, next: page.next }))
}

/// Somebody has looked after an exception. It moves no stock: count the shelf, or record a movement.
#[utoipa::path(
    post,
    path = "/v1/admin/merchants/{merchant}/oversells/{id}/settle",
    tag = "admin",
    operation_id = "settle_oversell",
    params(("merchant" = String, Path), ("id" = u64, Path)),
    request_body = Note,
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn settle(
    extract::State(app): State,
    admin: Admin,
    Names((merchant, n)): Names<(MerchantId, u64)>,
    Json(body): Json<Note>,
) -> Result<StatusCode, Refusal> {
    if body.note.len() > TEXT_BYTES_MAX {
        return Err(Refusal::malformed(format!("note: at most {TEXT_BYTES_MAX} bytes")));
    }
    app.store.settle_oversell(&merchant, n, &body.note, &admin.by()).await?;
    Ok(StatusCode::NO_CONTENT)
}
