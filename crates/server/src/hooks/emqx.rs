//! EMQX 5's two questions: who logs in, answered together with what they may do; and, where it asks again, whether they may
//! (<https://docs.emqx.com/en/emqx/latest/access-control/authn/http.html>). JSON in, JSON out.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use mstore_broker::{Action, Decision, Principal, decide, emqx_rules};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Hooks;

/// As the template of `broker setup emqx` makes it.
#[derive(Deserialize)]
pub(super) struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    clientid: String,
}

/// The same for what somebody wants to do.
#[derive(Deserialize)]
pub(super) struct Wish {
    #[serde(default)]
    username: String,
    #[serde(default)]
    topic: String,
    /// `publish` or `subscribe`.
    #[serde(default)]
    action: String,
}

fn is_known(hooks: &Hooks, headers: &HeaderMap) -> bool {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    shown.is_some_and(|secret| hooks.knows(secret))
}

/// A stranger is told `deny` with status 200: EMQX takes any other status for "ask the next one".
fn refused() -> (StatusCode, Json<Value>) {
    (StatusCode::OK, Json(json!({"result": "deny"})))
}

/// Lets somebody in, with the list of what they may do; the list ends with a refusal of everything else.
pub(super) async fn authenticate(
    State(hooks): State<Arc<Hooks>>,
    headers: HeaderMap,
    Json(login): Json<Login>,
) -> (StatusCode, Json<Value>) {
    if !is_known(&hooks, &headers) {
        return refused();
    }
    let Some(principal) = hooks.connect(&login.username, &login.password, &login.clientid).await else { return refused() };
    let attributes = match &principal {
        Principal::Device { scope, .. } => json!({"branch": scope.to_string()}),
        Principal::Backend { .. } | Principal::Canary { .. } => json!({}),
    };
    let answer = json!({"result": "allow", "is_superuser": false, "client_attrs": attributes, "acl": emqx_rules(&principal)});
    (StatusCode::OK, Json(answer))
}

/// Says whether somebody may do something now.
pub(super) async fn authorize(State(hooks): State<Arc<Hooks>>, headers: HeaderMap, Json(wish): Json<Wish>) -> (StatusCode, Json<Value>) {
    if !is_known(&hooks, &headers) {
        return refused();
    }
    let Some(principal) = hooks.principal(&wish.username).await else { return refused() };
    let action = match wish.action.as_str() {
        "subscribe" => Action::Subscribe(&wish.topic),
        "publish" => Action::Publish { topic: &wish.topic },
        _unknown => return refused(),
    };
    match decide(&principal, &action) {
        Decision::Allow => (StatusCode::OK, Json(json!({"result": "allow"}))),
        Decision::Deny(why) => {
            tracing::info!(username = wish.username, topic = wish.topic, %why, "emqx asked, refused");
            refused()
        }
    }
}
