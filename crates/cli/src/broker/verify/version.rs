//! Which version of a broker was tried: another one may answer otherwise.

use std::time::Duration;

use serde_json::Value;

use super::mqtt::{Client, Login, Place};
use crate::{
    args::{BrokerKind, VerifyBrokerArgs},
    failure::Failure,
};

/// Retained, so it comes at once or never.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
const MOSQUITTO_TELLS: &str = "$SYS/broker/version";

/// What the broker says of itself: Mosquitto to an observer, the others on their HTTP side if that was named.
pub(super) async fn version(args: &VerifyBrokerArgs, place: &Place, observer: Option<&Login>) -> Result<Option<String>, Failure> {
    let (path, field) = match args.kind {
        BrokerKind::Mosquitto => return Ok(told(place, observer).await),
        BrokerKind::Rabbitmq => ("/api/overview", "/rabbitmq_version"),
        BrokerKind::Emqx => ("/api/v5/nodes", "/0/version"),
        BrokerKind::Nats => ("/varz", "/version"),
    };
    let Some(url) = &args.broker_admin_url else { return Ok(None) };
    let password = args.broker_admin_password_file.as_deref().map(super::secret).transpose()?;
    asked(&format!("{}{path}", url.trim_end_matches('/')), args.broker_admin_username.as_deref(), password, field).await.map(Some)
}

async fn told(place: &Place, observer: Option<&Login>) -> Option<String> {
    let mut client = Client::connect(place, observer?).await.ok()?;
    client.subscribe(MOSQUITTO_TELLS).await;
    let said = client.next_within(TOLD_WITHIN).await?;
    Some(String::from_utf8_lossy(&said.payload).trim_start_matches("mosquitto version ").to_owned())
}

async fn asked(url: &str, username: Option<&str>, password: Option<Vec<u8>>, field: &str) -> Result<String, Failure> {
    let away = |error: &dyn std::fmt::Display| Failure::unavailable(format!("--broker-admin-url: {url}: {error}"));
    let http = reqwest::Client::builder().timeout(ANSWERED_WITHIN).build().map_err(|error| away(&error))?;
    let mut request = http.get(url);
    if let Some(username) = username {
        request = request.basic_auth(username, password.map(|password| String::from_utf8_lossy(&password).into_owned()));
    }
    let answer = request.send().await.and_then(reqwest::Response::error_for_status).map_err(|error| away(&error))?;
    let answer: Value = answer.json().await.map_err(|error| away(&error))?;
    answer.pointer(field).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| away(&format!("it names no version at {field}")))
}
