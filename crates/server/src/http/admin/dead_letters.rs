//! Rejected operations on the operator's desk: send again, correct, give up.

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchId, Code, DeviceId, MerchantId, OperationDecision, OperationId, Problem, Verdict, limits::TEXT_BYTES_MAX};
use mstore_store::{DeadLetterAct, DeadLettersOf, Decide, Decided};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        App, State,
        body::Json,
        caller::Admin,
        extract::{Ask, Names},
        problem::Refusal,
    },
    PageAnswer, Paging,
};

/// Which dead letters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Letters {
    /// Of one branch only.
    #[param(value_type = Option<String>)]
    branch: Option<BranchId>,
    /// Of one till only.
    #[param(value_type = Option<String>)]
    device: Option<DeviceId>,
    /// Those that were decided about, too.
    #[serde(default)]
    decided_too: bool,
}

/// Why, for the record.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// For people.
    #[serde(default)]
    reason: String,
}

/// What is sent in the place of a rejected operation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Correction {
    /// An operation: `type` and what belongs to it; id, number and time are set by the server.
    #[schema(value_type = Object)]
    operation: Map<String, Value>,
    /// For people.
    #[serde(default)]
    reason: String,
}

/// What counts from now on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionAnswer {
    decision: OperationDecision,
    /// The branch of the operation.
    #[schema(value_type = String)]
    branch: BranchId,
    /// Of the operation in its place; null when it was discarded.
    verdict: Option<Verdict>,
}

type LetterName = (MerchantId, OperationId);

/// Rejected operations of a merchant with body, code and reason, newest first, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/merchants/{merchant}/dead-letters",
    tag = "admin",
    operation_id = "list_dead_letters",
    params(("merchant" = String, Path), Letters, Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    extract::State(app): State,
    _: Admin,
    Names(merchant): Names<MerchantId>,
    Ask(letters): Ask<Letters>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<PageAnswer>, Refusal> {
    let of = DeadLettersOf { merchant, branch: letters.branch, device: letters.device, decided_too: letters.decided_too };
    let mut page = app.store.dead_letters(of, paging.after.as_deref(), paging.limit()?).await?;
    for letter in &mut page.items {
        let next = letter["code"].as_str().and_then(Code::parse).map(Code::next_step);
        letter["next"] = Value::from(next);
    }
    Ok(Answer(PageAnswer { items: page.items, next: page.next }))
}

/// Send a rejected operation again as it was, under a new id.
#[utoipa::path(
    post,
    path = "/v1/admin/merchants/{merchant}/dead-letters/{id}/retry",
    tag = "admin",
    operation_id = "retry_dead_letter",
    params(("merchant" = String, Path), ("id" = String, Path)),
    request_body = Reason,
    responses(
        (status = 200, body = DecisionAnswer),
        (status = 409, description = "`already_decided`: somebody was first", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "It would be rejected again: nothing was decided", body = Problem, content_type = "application/problem+json"),
    ),
    security(("admin" = [])),
)]
pub(crate) async fn retry(
    extract::State(app): State,
    admin: Admin,
    Names(letter): Names<LetterName>,
    Json(body): Json<Reason>,
) -> Result<Answer<DecisionAnswer>, Refusal> {
    let act = DeadLetterAct::Retry(new_id(&app));
    decide(&app, &admin, letter, act, body.reason).await
}

/// Send something else in the place of a rejected operation.
#[utoipa::path(
    post,
    path = "/v1/admin/merchants/{merchant}/dead-letters/{id}/edit",
    tag = "admin",
    operation_id = "edit_dead_letter",
    params(("merchant" = String, Path), ("id" = String, Path)),
    request_body = Correction,
    responses(
        (status = 200, body = DecisionAnswer),
        (status = 409, description = "`already_decided`: somebody was first", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "It would be rejected, too: nothing was decided", body = Problem, content_type = "application/problem+json"),
    ),
    security(("admin" = [])),
)]
pub(crate) async fn edit(
    extract::State(app): State,
    admin: Admin,
    Names(letter): Names<LetterName>,
    Json(body): Json<Correction>,
) -> Result<Answer<DecisionAnswer>, Refusal> {
    let act = DeadLetterAct::Edit(new_id(&app), Value::Object(body.operation).to_string());
    decide(&app, &admin, letter, act, body.reason).await
}

/// Give a rejected operation up; it stays in the records.
#[utoipa::path(
    post,
    path = "/v1/admin/merchants/{merchant}/dead-letters/{id}/discard",
    tag = "admin",
    operation_id = "discard_dead_letter",
    params(("merchant" = String, Path), ("id" = String, Path)),
    request_body = Reason,
    responses(
        (status = 200, body = DecisionAnswer),
        (status = 409, description = "`already_decided`: somebody was first", body = Problem, content_type = "application/problem+json"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(("admin" = [])),
)]
pub(crate) async fn discard(
    extract::State(app): State,
    admin: Admin,
    Names(letter): Names<LetterName>,
    Json(body): Json<Reason>,
) -> Result<Answer<DecisionAnswer>, Refusal> {
    decide(&app, &admin, letter, DeadLetterAct::Discard, body.reason).await
}

fn new_id(app: &App) -> OperationId {
    OperationId::from_parts((app.config.clock)(), rand::random())
}

async fn decide(
    app: &App,
    admin: &Admin,
    (merchant, id): LetterName,
    act: DeadLetterAct,
    reason: String,
) -> Result<Answer<DecisionAnswer>, Refusal> {
    if reason.len() > TEXT_BYTES_MAX {
        return Err(Refusal::malformed(format!("reason: at most {TEXT_BYTES_MAX} bytes")));
    }
    let Decided { decision, key, verdict } = app.store.decide(Decide { merchant, id, act, reason, by: admin.by() }).await?;
    let by = decision.replaced_by.map(tracing::field::display);
    tracing::warn!(branch = %key, id = %decision.id, decision = decision.decision.as_str(), by, "an operator decided about a rejected operation");
    Ok(Answer(DecisionAnswer { decision, branch: key.branch, verdict }))
}
