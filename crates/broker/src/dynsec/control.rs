//! The conversation with Mosquitto's dynamic-security plugin: one request at a time, each waits for its answer
//! (<https://mosquitto.org/documentation/dynamic-security/>).

use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use rumqttc::{PublishOptions, QoS, SubscribeFilter, SubscribeReasonCode};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use crate::{
    external::{
        ExternalConfig,
        connection::{Connection, Down},
    },
    registrar::RegistrarError,
};

pub(super) const COMMANDS: &str = "$CONTROL/dynamic-security/v1";
pub(super) const ANSWERS: &str = "$CONTROL/dynamic-security/v1/response";
/// The plugin writes its whole file at every change: with many accounts that takes a while.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Requests that wait for their turn; beyond them callers wait.
const REQUESTS_MAX: usize = 64;

/// One command's outcome: its data, or the plugin's own words.
pub(super) type Outcome = Result<Value, String>;

struct Request {
    commands: Vec<Value>,
    answer: oneshot::Sender<Result<Vec<Outcome>, RegistrarError>>,
}

/// A way to the plugin that is kept open; dropping it closes it.
pub(super) struct Control {
    requests: mpsc::Sender<Request>,
    reached: watch::Receiver<u64>,
}

impl Control {
    /// Begins to connect.
    pub(super) fn start(config: ExternalConfig) -> Self {
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (count, reached) = watch::channel(0);
        tokio::spawn(keep(config, asked, count));
        Self { requests, reached }
    }

    pub(super) fn reached(&self) -> watch::Receiver<u64> {
        self.reached.clone()
    }

    /// Has commands carried out, in order; there is no transaction: one that fails stops none of the others.
    pub(super) async fn ask(&self, commands: Vec<Value>) -> Result<Vec<Outcome>, RegistrarError> {
        let (answer, answered) = oneshot::channel();
        let gone = || RegistrarError::Away("the connection was given up".into());
        self.requests.send(Request { commands, answer }).await.map_err(|_gone| gone())?;
        answered.await.map_err(|_gone| gone())?
    }
}

async fn keep(config: ExternalConfig, mut asked: mpsc::Receiver<Request>, reached: watch::Sender<u64>) {
    // Two connections with one client id end each other.
    let client_id = format!("{}-{:08x}", config.client_id, rand::random::<u32>());
    let mut failures = 0_u32;
    loop {
        let down = match open(&config, &client_id).await {
            Ok(connection) => {
                failures = 0;
                reached.send_modify(|count| *count += 1);
                tracing::info!(broker = %config.url, "the broker's accounts are within reach");
                match talk(connection, &mut asked).await {
                    Some(down) => down,
                    None => return,
                }
            }
            Err(down) => down,
        };
        failures += 1;
        let longest = config.timing.retry_min.saturating_mul(1 << failures.min(16)).min(config.timing.retry_max);
        let wait = longest.mul_f64(rand::rng().random_range(0.1..1.0));
        tracing::warn!(broker = %config.url, reason = %down, wait_ms = wait.as_millis(), "the broker's accounts are out of reach");
        if refuse_for(wait, &down, &mut asked).await.is_none() {
            return;
        }
    }
}

/// Whoever asks meanwhile is told why not; `None` when nobody can ask any more.
async fn refuse_for(wait: Duration, down: &Down, asked: &mut mpsc::Receiver<Request>) -> Option<()> {
    let mut waited = std::pin::pin!(sleep(wait));
    loop {
        tokio::select! {
            () = &mut waited => return Some(()),
            request = asked.recv() => {
                let _nobody_waits = request?.answer.send(Err(RegistrarError::Away(down.to_string())));
            }
        }
    }
}

async fn open(config: &ExternalConfig, client_id: &str) -> Result<Connection, Down> {
    // Mosquitto knows no cluster.
    let connection = Connection::open(config, config.url.node(0), client_id, config.login.as_ref()).await?;
    let filter = SubscribeFilter::new(ANSWERS.to_owned(), QoS::AtLeastOnce);
    let network = |error: &dyn std::fmt::Display| Down::Network(error.to_string());
    let asked = connection.client.subscribe_many_tracked(vec![filter]).await.map_err(|error| network(&error))?;
    let answer = asked.wait_async().await.map_err(|error| network(&error))?;
    if answer.return_codes.iter().any(|code| matches!(code, SubscribeReasonCode::Failure)) {
        return Err(Down::Login(format!("the account that keeps accounts may not read {ANSWERS}")));
    }
    Ok(connection)
}

/// Asks and answers until the connection ends; `None` when nobody can ask any more.
async fn talk(mut connection: Connection, asked: &mut mpsc::Receiver<Request>) -> Option<Down> {
    let mut number = 0_u64;
    loop {
        let request = tokio::select! {
            request = asked.recv() => request?,
            down = connection.ended() => return Some(down),
        };
        number += 1;
        let answer = match timeout(ANSWER_WITHIN, exchange(&mut connection, number, request.commands)).await {
            Ok(answer) => answer,
            Err(_late) => Err(Down::Network(format!(
                "no answer within {ANSWER_WITHIN:?}; is the dynamic-security plugin loaded, and may this account publish to {COMMANDS}?"
            ))),
        };
        let failed = answer.as_ref().err().cloned();
        let _nobody_waits = request.answer.send(answer.map_err(|down| RegistrarError::Away(down.to_string())));
        if failed.is_some() {
            return failed;
        }
    }
}

async fn exchange(connection: &mut Connection, number: u64, mut commands: Vec<Value>) -> Result<Vec<Outcome>, Down> {
    let mark = number.to_string();
    for command in &mut commands {
        command["correlationData"] = json!(mark);
    }
    let payload = Bytes::from(json!({ "commands": commands }).to_string());
    let sent = connection.client.publish(COMMANDS, payload, PublishOptions::new(QoS::AtLeastOnce)).await;
    sent.map_err(|error| Down::Network(error.to_string()))?;
    loop {
        let Some(arrived) = connection.arrived.recv().await else { return Err(connection.ended().await) };
        if let Some(outcomes) = outcomes(&arrived.payload, &mark) {
            return Ok(outcomes);
        }
    }
}

/// What was said to the request with this mark; `None` for another one.
fn outcomes(payload: &[u8], mark: &str) -> Option<Vec<Outcome>> {
    let mut said: Value = serde_json::from_slice(payload).ok()?;
    let responses = said["responses"].as_array_mut()?;
    let is_it = !responses.is_empty() && responses.iter().all(|response| response["correlationData"] == mark);
    is_it.then(|| {
        let outcome = |response: &mut Value| match response["error"].as_str() {
            Some(why) => Err(why.to_owned()),
            None => Ok(response["data"].take()),
        };
        responses.iter_mut().map(outcome).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_belongs_to_its_request() {
        let answer =
            br#"{"responses":[{"command":"getClient","error":"Client not found","correlationData":"7"},{"command":"x","data":{"a":1},"correlationData":"7"}]}"#;
        assert_eq!(outcomes(answer, "7"), Some(vec![Err("Client not found".to_owned()), Ok(json!({"a": 1}))]));
        assert_eq!(outcomes(answer, "8"), None);
        assert_eq!(outcomes(b"noise", "7"), None);
        assert_eq!(outcomes(br#"{"responses":[]}"#, "7"), None);
    }
}
