//! RabbitMQ, which asks the server about everything: what it asks, how its names map to MQTT's, and the sessions that must be ended by hand.
//!
//! It asks when somebody logs in, subscribes or publishes for the first time, and never again: a device that was revoked goes on receiving until
//! its connection is closed, and a moved one until its queue is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use async_trait::async_trait;
use mstore_protocol::DeviceId;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    broker::Kicked,
    external::Login,
    policy::{Action, Decision, Principal, decide},
    registrar::{Account, AccountBook, Registrar, RegistrarError, Settled},
};

/// The exchange that the MQTT plugin publishes to.
const EXCHANGE: &str = "amq.topic";
/// How the plugin names a client's queues: this, the client id, `qos0` or `qos1`.
const QUEUE: &str = "mqtt-subscription-";
/// For one call of the management API; it answers in milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Something that RabbitMQ asks about a user that it has let in (`rabbitmq_auth_backend_http`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RabbitMqAsk<'a> {
    /// `vhost`: enter this one.
    Vhost(&'a str),
    /// `resource`: configure, read or write a queue or an exchange.
    Resource {
        /// `queue` or `exchange`.
        resource: &'a str,
        /// Its name.
        name: &'a str,
        /// `configure`, `read` or `write`.
        permission: &'a str,
    },
    /// `topic`: read or write this key of an exchange.
    Topic {
        /// The exchange.
        name: &'a str,
        /// `read` or `write`.
        permission: &'a str,
        /// The MQTT topic or filter, as the plugin translates it.
        routing_key: &'a str,
    },
}

/// What the policy says to a question of RabbitMQ's.
pub fn decide_rabbitmq(username: &str, principal: &Principal, vhost: &str, ask: RabbitMqAsk<'_>) -> bool {
    let publishes = matches!(principal, Principal::Backend { .. });
    match ask {
        RabbitMqAsk::Vhost(name) => name == vhost,
        // The topic decides; this only opens the way to it.
        RabbitMqAsk::Resource { resource: "exchange", name: EXCHANGE, permission } => {
            permission == if publishes { "write" } else { "read" }
        }
        RabbitMqAsk::Resource { resource: "queue", name, .. } => !publishes && queues(username).iter().any(|own| own == name),
        RabbitMqAsk::Resource { .. } => false,
        RabbitMqAsk::Topic { name: EXCHANGE, permission, routing_key } => {
            let topic = topic_of(routing_key);
            let action = match permission {
                "read" => Action::Subscribe(&topic),
                "write" => Action::Publish { topic: &topic },
                _other => return false,
            };
            decide(principal, &action) == Decision::Allow
        }
        RabbitMqAsk::Topic { .. } => false,
    }
}

fn queues(client_id: &str) -> [String; 2] {
    ["qos0", "qos1"].map(|qos| format!("{QUEUE}{client_id}{qos}"))
}

/// The plugin turns `/` into `.`, `.` into `/`, and `+` into `*`; this is the way back.
fn topic_of(routing_key: &str) -> String {
    let back = |c| match c {
        '.' => '/',
        '/' => '.',
        '*' => '+',
        same => same,
    };
    routing_key.chars().map(back).collect()
}

/// The way to RabbitMQ's management API.
#[derive(Clone)]
pub struct RabbitMqApi {
    /// `http://host:15672`.
    pub url: String,
    /// An account that may see and close connections, and delete the queues of devices.
    pub login: Login,
    /// Where MQTT lives, `/` by default.
    pub vhost: String,
    /// Accounts that are not devices', whose queues are left alone.
    pub own: Vec<String>,
}

impl fmt::Debug for RabbitMqApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RabbitMqApi({}, {:?}, vhost {:?})", self.url, self.login, self.vhost)
    }
}

/// Ends sessions at a RabbitMQ. Its accounts need no keeping: it asks.
pub struct RabbitMq {
    http: Client,
    api: RabbitMqApi,
    reached: watch::Sender<u64>,
}

impl RabbitMq {
    /// Calls nobody yet.
    pub fn new(api: RabbitMqApi) -> Result<Self, RegistrarError> {
        let http = Client::builder().timeout(ANSWER_WITHIN).redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|error| RegistrarError::Away(error.to_string()))?;
        // It remembers nothing that could be forgotten, so it counts as reached from the beginning.
        Ok(Self { http, api, reached: watch::Sender::new(1) })
    }

    async fn call(&self, method: Method, path: &str) -> Result<Option<Value>, RegistrarError> {
        let away = |error: reqwest::Error| RegistrarError::Away(error.without_url().to_string());
        let password = String::from_utf8_lossy(&self.api.login.password).into_owned();
        let request =
            self.http.request(method, format!("{}/api/{path}", self.api.url)).basic_auth(&self.api.login.username, Some(password));
        let answer = request.send().await.map_err(away)?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let body = answer.bytes().await.map_err(away)?;
                Ok(Some(serde_json::from_slice(&body).unwrap_or(Value::Null)))
            }
            status if status.is_server_error() => Err(RegistrarError::Away(format!("the management API answers {status}"))),
            status => Err(RegistrarError::Refused(format!("the management API answers {status} to {path}"))),
        }
    }

    fn vhost(&self) -> String {
        encode(&self.api.vhost)
    }
}

#[async_trait]
impl Registrar for RabbitMq {
    fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    async fn settle(&self, _device: &DeviceId, _wanted: Option<&Account>) -> Result<Settled, RegistrarError> {
        Ok(Settled::Unchanged)
    }

    async fn end_session(&self, device: &DeviceId) -> Result<Kicked, RegistrarError> {
        let closed = self.call(Method::DELETE, &format!("connections/username/{device}")).await?;
        // After its connection: an open one would make the queue anew.
        for queue in queues(device.as_str()) {
            self.call(Method::DELETE, &format!("queues/{}/{queue}", self.vhost())).await?;
        }
        Ok(if closed.is_some() { Kicked::Closed } else { Kicked::Absent })
    }

    /// Devices with a queue that gets what its device may not have.
    async fn survey(&self, book: &dyn AccountBook) -> Result<Vec<DeviceId>, RegistrarError> {
        let bindings = self.call(Method::GET, &format!("exchanges/{}/{EXCHANGE}/bindings/source", self.vhost())).await?;
        let mut filters: BTreeMap<DeviceId, BTreeSet<String>> = BTreeMap::new();
        for binding in bindings.as_ref().and_then(Value::as_array).into_iter().flatten() {
            let (Some(queue), Some(key)) = (binding["destination"].as_str(), binding["routing_key"].as_str()) else { continue };
            if let Some(device) = device_of(queue).filter(|device| !self.api.own.iter().any(|own| own == device.as_str())) {
                filters.entry(device).or_default().insert(topic_of(key));
            }
        }
        let mut differing = Vec::new();
        for (device, filters) in filters {
            let own = book.account(&device).await?.map(|account| account.filters()).unwrap_or_default();
            if filters.iter().any(|filter| !own.contains(filter)) {
                differing.push(device);
            }
        }
        Ok(differing)
    }
}

/// Whose queue it is.
fn device_of(queue: &str) -> Option<DeviceId> {
    let client_id = queue.strip_prefix(QUEUE)?;
    let client_id = client_id.strip_suffix("qos0").or_else(|| client_id.strip_suffix("qos1"))?;
    DeviceId::parse(client_id).ok()
}

fn encode(vhost: &str) -> String {
    vhost.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mstore_protocol::{BranchKey, Collection, Env, Scope};

    use super::*;

    fn device() -> Principal {
        let scope = Scope::new(Env::parse("prod").unwrap(), BranchKey::parse("m1", "b1").unwrap());
        Principal::Device { device: DeviceId::parse("till-1").unwrap(), scope, collections: Collection::built_in().to_vec() }
    }

    fn backend() -> Principal {
        Principal::Backend { env: Env::parse("prod").unwrap() }
    }

    fn topic<'a>(permission: &'a str, routing_key: &'a str) -> RabbitMqAsk<'a> {
        RabbitMqAsk::Topic { name: EXCHANGE, permission, routing_key }
    }

    fn resource<'a>(resource: &'a str, name: &'a str, permission: &'a str) -> RabbitMqAsk<'a> {
        RabbitMqAsk::Resource { resource, name, permission }
    }

    #[test]
    fn a_device_reads_its_own_keys() {
        let may = |ask| decide_rabbitmq("till-1", &device(), "/", ask);
        for key in ["prod.m1.b1.product.updates", "prod.m1.b1.*.updates", "prod.m1.b1.sync.head"] {
            assert!(may(topic("read", key)) && !may(topic("write", key)), "{key}");
        }
        for key in
            ["prod.m1.b2.product.updates", "prod.m1.b1.#", "#", "prod/m1/b1/product/updates", "$share.g.prod.m1.b1.product.updates", ""]
        {
            assert!(!may(topic("read", key)), "{key}");
        }
        assert!(may(RabbitMqAsk::Vhost("/")) && !may(RabbitMqAsk::Vhost("other")));
        assert!(!may(RabbitMqAsk::Topic { name: "amq.direct", permission: "read", routing_key: "prod.m1.b1.product.updates" }));
        assert!(!may(topic("configure", "prod.m1.b1.product.updates")));
    }

    #[test]
    fn a_device_has_its_own_queues_and_no_exchange() {
        let may = |ask| decide_rabbitmq("till-1", &device(), "/", ask);
        for permission in ["configure", "read", "write"] {
            assert!(may(resource("queue", "mqtt-subscription-till-1qos1", permission)));
            assert!(!may(resource("queue", "mqtt-subscription-till-1qos1qos1", permission)), "of the device till-1qos1");
            assert!(!may(resource("queue", "mqtt-subscription-till-2qos1", permission)));
        }
        assert!(may(resource("exchange", EXCHANGE, "read")) && !may(resource("exchange", EXCHANGE, "write")));
        assert!(!may(resource("exchange", "amq.direct", "read")) && !may(resource("exchange", EXCHANGE, "configure")));
    }

    #[test]
    fn the_backend_writes_and_reads_nothing() {
        let may = |ask| decide_rabbitmq("backend", &backend(), "/", ask);
        assert!(may(resource("exchange", EXCHANGE, "write")) && may(topic("write", "prod.m7.b9.product.updates")));
        assert!(!may(topic("write", "dev.m1.b1.product.updates")) && !may(topic("write", "free.topic")));
        assert!(!may(topic("read", "#")) && !may(resource("exchange", EXCHANGE, "read")));
        assert!(!may(resource("queue", "mqtt-subscription-backendqos1", "configure")));
    }

    #[test]
    fn names_and_paths() {
        assert_eq!(device_of("mqtt-subscription-till-1qos1").unwrap().as_str(), "till-1");
        assert_eq!(device_of("mqtt-subscription-till-1"), None);
        assert_eq!(device_of("orders"), None);
        assert_eq!(encode("/"), "%2F");
    }
}
