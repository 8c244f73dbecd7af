//! Admin tokens: made, listed, rotated, revoked. A token's text is in the answer that makes it, and nowhere else.

use axum::{Json as Answer, extract};
use mstore_protocol::{MerchantId, Problem, Timestamp, limits::SEGMENT_BYTES_MAX};
use mstore_store::{AdminRole, NewToken, TokenChange, TokenRecord};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::{App, State, body::Json, caller::Admin, extract::Names, problem::Refusal};
use crate::AdminToken;

/// A year.
const OVERLAP_S_MAX: u64 = 366 * 86_400;
/// Ten years.
const EXPIRES_S_MAX: u64 = 3_660 * 86_400;

/// A new token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenBody {
    /// What people, logs and the audit log call it: letters, digits, `-` and `_`.
    name: String,
    /// `platform`, `merchant` or `read_only`.
    #[schema(value_type = String)]
    role: AdminRole,
    /// The merchant's, for `merchant`; for `read_only` it may be left out: then it reads everywhere.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    merchant: Option<MerchantId>,
    /// It ends after so many seconds; never when left out.
    #[serde(default)]
    expires_in_s: Option<u64>,
}

/// How a token is rotated.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateBody {
    /// The old text works for so many seconds; when left out, until the first use of the new one.
    #[serde(default)]
    overlap_s: Option<u64>,
}

/// A token as operators see it; nothing of it is secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenView {
    name: String,
    /// `platform`, `merchant` or `read_only`.
    #[schema(value_type = String)]
    role: AdminRole,
    /// Its only merchant; null: everywhere.
    #[schema(value_type = Option<String>)]
    merchant: Option<MerchantId>,
    #[schema(value_type = String)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>)]
    rotated_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    revoked_at: Option<Timestamp>,
    /// The text before the last rotation is kept beside the new one.
    rotating: bool,
    /// It works until then, whatever is used.
    #[schema(value_type = Option<String>)]
    old_until: Option<Timestamp>,
}

impl From<TokenRecord> for TokenView {
    fn from(record: TokenRecord) -> Self {
        let TokenRecord { name, role, merchant, created_at, rotated_at, expires_at, revoked_at, rotating, old_until } = record;
        Self { name, role, merchant, created_at, rotated_at, expires_at, revoked_at, rotating, old_until }
    }
}

/// A token's text, once.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenText {
    #[serde(flatten)]
    about: TokenView,
    /// Keep it: the server does not.
    token: String,
    /// It takes the place of the token that this request was made with.
    own: bool,
}

/// All tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokens {
    items: Vec<TokenView>,
}

/// Admin tokens by name, revoked ones too; of a merchant's token, those of its merchant.
#[utoipa::path(
    get,
    path = "/v1/admin/tokens",
    tag = "admin",
    operation_id = "list_tokens",
    responses((status = 200, body = Tokens), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(extract::State(app): State, admin: Admin) -> Result<Answer<Tokens>, Refusal> {
    let items = app.store.tokens(admin.only()).await?.into_iter().map(TokenView::from).collect();
    Ok(Answer(Tokens { items }))
}

/// Make an admin token.
#[utoipa::path(
    post,
    path = "/v1/admin/tokens",
    tag = "admin",
    operation_id = "add_token",
    request_body = TokenBody,
    responses((status = 200, body = TokenText), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn add(extract::State(app): State, admin: Admin, Json(body): Json<TokenBody>) -> Result<Answer<TokenText>, Refusal> {
    let is_plain = body.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if !is_plain || !(1..=SEGMENT_BYTES_MAX).contains(&body.name.len()) {
        return Err(Refusal::malformed("name: 1 to 64 letters, digits, - and _"));
    }
    match (body.role, &body.merchant) {
        (AdminRole::Platform, Some(_)) => return Err(Refusal::malformed("merchant: a platform token is of no merchant")),
        (AdminRole::Merchant, None) => return Err(Refusal::malformed("merchant: whose? a merchant's token names one")),
        (AdminRole::Platform, None) | (AdminRole::Merchant, Some(_)) | (AdminRole::ReadOnly, _) => {}
    }
    let expires_at = body.expires_in_s.map(|seconds| after(&app, "expires_in_s", seconds, EXPIRES_S_MAX)).transpose()?;
    let token = AdminToken::generate();
    let new = NewToken { name: body.name, role: body.role, merchant: body.merchant, hash: token.hash(), expires_at };
    let record = app.store.add_token(new, &admin.by()).await?;
    tracing::warn!(token = record.name, role = record.role.as_str(), by = admin.token().name, "admin token added");
    Ok(Answer(TokenText { about: record.into(), token: token.reveal().to_owned(), own: false }))
}

fn after(app: &App, name: &str, seconds: u64, most: u64) -> Result<Timestamp, Refusal> {
    if !(1..=most).contains(&seconds) {
        return Err(Refusal::malformed(format!("{name}: {seconds} is not within 1 to {most}")));
    }
    Ok((app.config.clock)().plus_ms(i64::try_from(seconds * 1_000).unwrap_or(i64::MAX)))
}

/// Give a token another text; the old one works until the new one is used, or for as long as the request says.
#[utoipa::path(
    post,
    path = "/v1/admin/tokens/{name}/rotate",
    tag = "admin",
    operation_id = "rotate_token",
    params(("name" = String, Path)),
    request_body = RotateBody,
    responses((status = 200, body = TokenText), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn rotate(
    extract::State(app): State,
    admin: Admin,
    Names(name): Names<String>,
    Json(body): Json<RotateBody>,
) -> Result<Answer<TokenText>, Refusal> {
    exchange(&app, &admin, &name, &body).await
}

/// Give the very token that this request is made with another text.
#[utoipa::path(
    post,
    path = "/v1/admin/token/rotate",
    tag = "admin",
    operation_id = "rotate_own_token",
    request_body = RotateBody,
    responses((status = 200, body = TokenText), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn rotate_own(
    extract::State(app): State,
    admin: Admin,
    Json(body): Json<RotateBody>,
) -> Result<Answer<TokenText>, Refusal> {
    exchange(&app, &admin, &admin.token().name, &body).await
}

async fn exchange(app: &App, admin: &Admin, name: &str, body: &RotateBody) -> Result<Answer<TokenText>, Refusal> {
    let old_until = body.overlap_s.map(|seconds| after(app, "overlap_s", seconds, OVERLAP_S_MAX)).transpose()?;
    let token = AdminToken::generate();
    let record = app.store.change_token(name, TokenChange::Rotate { hash: token.hash(), old_until }, &admin.by()).await?;
    tracing::warn!(token = name, by = admin.token().name, "admin token rotated");
    let own = name == admin.token().name;
    Ok(Answer(TokenText { about: record.into(), token: token.reveal().to_owned(), own }))
}

/// End a token for ever, from the next request on.
#[utoipa::path(
    post,
    path = "/v1/admin/tokens/{name}/revoke",
    tag = "admin",
    operation_id = "revoke_token",
    params(("name" = String, Path)),
    responses((status = 200, body = TokenView), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn revoke(extract::State(app): State, admin: Admin, Names(name): Names<String>) -> Result<Answer<TokenView>, Refusal> {
    let record = app.store.change_token(&name, TokenChange::Revoke, &admin.by()).await?;
    tracing::warn!(token = record.name, by = admin.token().name, "admin token revoked");
    Ok(Answer(record.into()))
}
