//! RabbitMQ's four questions (`rabbitmq_auth_backend_http`): a form in, `allow` or `deny` out. Any other answer, or none, is a refusal there.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Form,
    extract::{Path, State},
    http::StatusCode,
};
use mstore_broker::{RabbitMqAsk, decide_rabbitmq};

use super::Hooks;

const ALLOW: &str = "allow";
const DENY: &str = "deny";

/// Answers one question. The secret is in the path: RabbitMQ can send no header of ours.
pub(super) async fn answer(
    State(hooks): State<Arc<Hooks>>,
    Path((secret, question)): Path<(String, String)>,
    Form(fields): Form<HashMap<String, String>>,
) -> (StatusCode, &'static str) {
    if !hooks.knows(&secret) {
        return (StatusCode::FORBIDDEN, DENY);
    }
    let is_allowed = hooks.is_allowed(&question, &fields).await;
    tracing::debug!(question, user = fields.get("username"), key = fields.get("routing_key"), is_allowed, "rabbitmq asked");
    (StatusCode::OK, if is_allowed { ALLOW } else { DENY })
}

impl Hooks {
    async fn is_allowed(&self, question: &str, fields: &HashMap<String, String>) -> bool {
        let field = |name: &str| fields.get(name).map_or("", String::as_str);
        let username = field("username");
        let ask = match question {
            // Without a client id it is another protocol than MQTT, or a login of the broker's own without a password: neither is a device's.
            "user" => return self.connect(username, field("password"), field("client_id")).await.is_some(),
            "vhost" => RabbitMqAsk::Vhost(field("vhost")),
            "resource" => RabbitMqAsk::Resource { resource: field("resource"), name: field("name"), permission: field("permission") },
            "topic" => RabbitMqAsk::Topic { name: field("name"), permission: field("permission"), routing_key: field("routing_key") },
            _unknown => return false,
        };
        match self.principal(username).await {
            Some(principal) => decide_rabbitmq(username, &principal, &self.vhost, ask),
            None => false,
        }
    }
}
