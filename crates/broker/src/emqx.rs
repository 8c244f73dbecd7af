//! EMQX 5: the list of rules that goes into its authentication's answer, and the sessions that must be ended by hand.
//!
//! Written after its documentation (5.8); it was never run against a live EMQX.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use mstore_protocol::{DeviceId, Topic};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    broker::Kicked,
    external::{Login, canary},
    policy::{self, Principal},
    registrar::{Account, AccountBook, Registrar, RegistrarError, Settled},
};

/// For one call of the REST API.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a principal may do, as EMQX's rules. `eq` makes a filter a string: no filter is matched against another.
pub fn emqx_rules(principal: &Principal) -> Value {
    let allow = |action: &str, topic: String| json!({"permission": "allow", "action": action, "topic": topic});
    let literal = |topic: String| allow("subscribe", format!("eq {topic}"));
    let mut rules: Vec<Value> = match principal {
        Principal::Device { scope, collections, .. } => {
            let topics = policy::own_topics(scope, collections);
            topics.chain([Topic::updates_filter(scope)]).map(literal).collect()
        }
        Principal::Canary { env, .. } => canary::topics(env).into_iter().map(literal).collect(),
        Principal::Backend { env } => {
            vec![allow("publish", format!("{env}/+/+/+/updates")), allow("publish", format!("{env}/+/+/sync/head"))]
        }
    };
    rules.push(json!({"permission": "deny", "action": "all", "topic": "#"}));
    rules.into()
}

/// The way to EMQX's REST API.
#[derive(Clone)]
pub struct EmqxApi {
    /// `http://host:18083`.
    pub url: String,
    /// An API key and its secret.
    pub login: Login,
}

impl fmt::Debug for EmqxApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmqxApi({}, {:?})", self.url, self.login)
    }
}

/// Ends sessions at an EMQX. Its accounts need no keeping: it asks.
pub struct Emqx {
    http: Client,
    api: EmqxApi,
    reached: watch::Sender<u64>,
}

impl Emqx {
    /// Calls nobody yet.
    pub fn new(api: EmqxApi) -> Result<Self, RegistrarError> {
        let http = Client::builder().timeout(ANSWER_WITHIN).redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|error| RegistrarError::Away(error.to_string()))?;
        Ok(Self { http, api, reached: watch::Sender::new(0) })
    }
}

#[async_trait]
impl Registrar for Emqx {
    fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    async fn settle(&self, _device: &DeviceId, _wanted: Option<&Account>) -> Result<Settled, RegistrarError> {
        Ok(Settled::Unchanged)
    }

    /// `DELETE /api/v5/clients/{clientid}`: closes the connection and throws the session away.
    async fn end_session(&self, device: &DeviceId) -> Result<Kicked, RegistrarError> {
        let away = |error: reqwest::Error| RegistrarError::Away(error.without_url().to_string());
        let secret = String::from_utf8_lossy(&self.api.login.password).into_owned();
        let request =
            self.http.delete(format!("{}/api/v5/clients/{device}", self.api.url)).basic_auth(&self.api.login.username, Some(secret));
        match request.send().await.map_err(away)?.status() {
            StatusCode::NOT_FOUND => Ok(Kicked::Absent),
            status if status.is_success() => Ok(Kicked::Closed),
            status if status.is_server_error() => Err(RegistrarError::Away(format!("the REST API answers {status}"))),
            status => Err(RegistrarError::Refused(format!("the REST API answers {status}"))),
        }
    }

    /// It keeps nothing that could be compared: a session has the rules of its own login.
    async fn survey(&self, _book: &dyn AccountBook) -> Result<Vec<DeviceId>, RegistrarError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mstore_protocol::{BranchKey, Collection, Env, Scope};

    use super::*;

    #[test]
    fn a_device_gets_literal_rules_and_a_refusal_of_the_rest() {
        let scope = Scope::new(Env::parse("prod").unwrap(), BranchKey::parse("m1", "b1").unwrap());
        let collections = vec![Collection::parse("product").unwrap()];
        let rules = emqx_rules(&Principal::Device { device: DeviceId::parse("till-1").unwrap(), scope, collections });
        assert_eq!(
            rules,
            json!([
                {"permission": "allow", "action": "subscribe", "topic": "eq prod/m1/b1/sync/head"},
                {"permission": "allow", "action": "subscribe", "topic": "eq prod/m1/b1/product/updates"},
                {"permission": "allow", "action": "subscribe", "topic": "eq prod/m1/b1/+/updates"},
                {"permission": "deny", "action": "all", "topic": "#"},
            ])
        );
    }

    #[test]
    fn the_servers_accounts_get_theirs() {
        let env = Env::parse("prod").unwrap();
        let backend = emqx_rules(&Principal::Backend { env: env.clone() });
        assert_eq!(backend[0], json!({"permission": "allow", "action": "publish", "topic": "prod/+/+/+/updates"}));
        assert!(!backend.to_string().contains("subscribe"));
        let canary = emqx_rules(&Principal::Canary { name: "c".into(), env });
        assert_eq!(canary[0]["topic"], "eq prod/devices/canary/product/updates");
        assert_eq!(canary.as_array().unwrap().len(), 3);
    }
}
