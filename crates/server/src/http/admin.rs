//! `/v1/admin/…`: what operators and back offices do, with an admin token.

mod audit;
mod branches;
mod dead_letters;
mod devices;
mod fleet;
mod holds;
mod inbox;
mod inventory;
mod journal_files;
mod merchants;
mod oversells;
mod overview;
mod prices;
mod products;
mod recipes;
mod records;
mod stock_moves;
mod tail;
mod tokens;
mod transfers;
mod verify;

use std::sync::Arc;

use axum::Json;
use mstore_protocol::{BranchId, MerchantId, Seq, limits::PAGE_ROWS_MAX};
use mstore_store::{Listing, Page, SourceWrite, Written};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{App, problem::Refusal};

const PAGE_ROWS: usize = 100;

/// The routes of this folder.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(merchants::list))
        .routes(routes!(merchants::put, merchants::read))
        .routes(routes!(branches::list))
        .routes(routes!(branches::put, branches::read))
        .routes(routes!(products::list, products::import))
        .routes(routes!(products::put, products::read, products::delete))
        .routes(routes!(recipes::put))
        .routes(routes!(prices::put, prices::delete))
        .routes(routes!(inventory::list, inventory::import))
        .routes(routes!(inventory::put, inventory::read, inventory::delete))
        .routes(routes!(stock_moves::list, stock_moves::move_stock))
        .routes(routes!(records::operations))
        .routes(routes!(records::transactions))
        .routes(routes!(records::alarms))
        .routes(routes!(holds::confirm))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::retry))
        .routes(routes!(dead_letters::edit))
        .routes(routes!(dead_letters::discard))
        .routes(routes!(inbox::list))
        .routes(routes!(inbox::give_verdict))
        .routes(routes!(oversells::list))
        .routes(routes!(oversells::settle))
        .routes(routes!(transfers::list))
        .routes(routes!(transfers::balance))
        .routes(routes!(transfers::receive))
        .routes(routes!(transfers::put_arrival))
        .routes(routes!(journal_files::hand_in))
        .routes(routes!(devices::list, devices::claim))
        .routes(routes!(devices::read))
        .routes(routes!(devices::rotate))
        .routes(routes!(devices::revoke))
        .routes(routes!(devices::lose))
        .routes(routes!(devices::move_device))
        .routes(routes!(fleet::fleet))
        .routes(routes!(overview::overview))
        .routes(routes!(overview::levels))
        .routes(routes!(verify::verify))
        .routes(routes!(tail::tail))
        .routes(routes!(audit::list))
        .routes(routes!(tokens::list, tokens::add))
        .routes(routes!(tokens::rotate))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::rotate_own))
}

/// Which page of a listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// The `next` of the page before.
    after: Option<String>,
    /// Items on the page, default 100, at most 1000.
    limit: Option<usize>,
}

impl Paging {
    fn limit(&self) -> Result<usize, Refusal> {
        match self.limit {
            None => Ok(PAGE_ROWS),
            Some(limit) if (1..=PAGE_ROWS_MAX).contains(&limit) => Ok(limit),
            Some(limit) => Err(Refusal::malformed(format!("limit: {limit} is not within 1 to {PAGE_ROWS_MAX}"))),
        }
    }
}

/// One page of a listing.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PageAnswer {
    /// The items.
    #[schema(value_type = Vec<Object>)]
    items: Vec<Value>,
    /// Pass it as `after` to get the next page; null at the end.
    next: Option<String>,
}

async fn page(app: &App, listing: Listing, paging: &Paging) -> Result<Json<PageAnswer>, Refusal> {
    let Page { items, next } = app.store.list(listing, paging.after.as_deref(), paging.limit()?).await?;
    Ok(Json(PageAnswer { items, next }))
}

/// One item of a listing, by the value of a field.
async fn find(app: &App, listing: Listing, field: &str, value: &str) -> Result<Json<Value>, Refusal> {
    let mut after: Option<String> = None;
    loop {
        let page = app.store.list(listing.clone(), after.as_deref(), PAGE_ROWS_MAX).await?;
        if let Some(item) = page.items.into_iter().find(|item| item[field] == value) {
            return Ok(Json(item));
        }
        after = page.next;
        if after.is_none() {
            return Err(Refusal::not_found(format!("there is no {value:?} here")));
        }
    }
}

/// What a write came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WriteAnswer {
    /// The commits that show it; none when nothing changed for any device.
    seqs: Vec<BranchSeq>,
    /// The same id or key had been seen before.
    duplicate: bool,
    /// When it was durable, microseconds since 1970 on the server's clock; for measuring.
    durable_at_us: i64,
}

/// A commit of a branch.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BranchSeq {
    #[schema(value_type = String)]
    merchant: MerchantId,
    #[schema(value_type = String)]
    branch: BranchId,
    seq: Seq,
}

async fn write(app: &App, write: SourceWrite) -> Result<Json<WriteAnswer>, Refusal> {
    let Written { seqs, duplicate, durable_at_us } = app.store.write(write).await?;
    let seqs = seqs.into_iter().map(|(key, seq)| BranchSeq { merchant: key.merchant, branch: key.branch, seq }).collect();
    Ok(Json(WriteAnswer { seqs, duplicate, durable_at_us }))
}

/// A name in the body must be the one in the path.
fn same_name<T: PartialEq + std::fmt::Display>(what: &str, path: &T, body: Option<&T>) -> Result<(), Refusal> {
    match body {
        Some(body) if body != path => Err(Refusal::malformed(format!("{what}: the body says {body}, the path {path}"))),
        _ => Ok(()),
    }
}
