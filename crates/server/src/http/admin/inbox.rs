//! The inbox of a merchant's backend as operators see it, and the way for a verdict that comes later than the answer to the webhook.

use axum::{Json as Answer, extract};
use mstore_protocol::{BackendDecision, BackendVerdict, BranchId, MerchantId, OperationId, Problem, Verdict};
use mstore_store::InboxOf;
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

/// Which part of the inbox.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Waiting {
    /// Of one branch only.
    #[param(value_type = Option<String>)]
    branch: Option<BranchId>,
    /// What is decided, too.
    #[serde(default)]
    decided_too: bool,
}

/// A backend's verdict.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerdictBody {
    verdict: BackendDecision,
    /// The backend's own code.
    #[serde(default)]
    code: Option<String>,
    /// Why, for people.
    #[serde(default)]
    detail: Option<String>,
}

/// Operations that wait for the backend's verdict, newest first, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/inbox",
    tag = "backend",
    operation_id = "list_inbox",
    params(("merchant" = String, Path), Waiting, Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    extract::State(app): State,
    _: Admin,
    Names(merchant): Names<MerchantId>,
    Ask(Waiting { branch, decided_too }): Ask<Waiting>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<PageAnswer>, Refusal> {
    let page = app.store.inbox(InboxOf { merchant, branch, decided_too }, paging.after.as_deref(), paging.limit()?).await?;
    Ok(Answer(PageAnswer { items: page.items, next: page.next }))
}

/// The backend's verdict about an operation. The same again is fine; another one than the first is refused with `already_decided`.
#[utoipa::path(
    post,
    path = "/v1/admin/merchants/{merchant}/inbox/{id}/verdict",
    tag = "backend",
    operation_id = "give_verdict",
    params(("merchant" = String, Path), ("id" = String, Path)),
    request_body = VerdictBody,
    responses(
        (status = 200, description = "What the till hears", body = Verdict),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(("admin" = [])),
)]
pub(crate) async fn give_verdict(
    extract::State(app): State,
    _: Admin,
    Names((merchant, id)): Names<(MerchantId, OperationId)>,
    Json(VerdictBody { verdict, code, detail }): Json<VerdictBody>,
) -> Result<Answer<Verdict>, Refusal> {
    let verdict = app.store.give_verdict(&merchant, id, BackendVerdict { verdict, code, detail }).await?;
    tracing::info!(%merchant, operation = %id, code = verdict.code.map(tracing::field::display), "verdict of a backend");
    Ok(Answer(verdict))
}
