//! What the broker's tests share: a registry in memory, a broker on free ports, and a raw MQTT 3.1.1 client that can say things no library would.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used)]

pub(crate) mod client;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use mstore_broker::{Broker, BrokerLimits, DeviceAuth, EmbeddedBroker, EmbeddedConfig, Message, Principal};
use mstore_protocol::{BranchKey, Collection, DeviceId, Env, Scope};

use self::client::{Client, Login};

/// Nothing in a healthy test comes near it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Waits for `future`, loudly.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} within {DEADLINE:?}"))
}

/// Waits until `done` holds, looking again at every turn of the clock.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    soon(what, async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !done() {
            ticks.tick().await;
        }
    })
    .await;
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn scope(env: &str, merchant: &str, branch: &str) -> Scope {
    Scope::new(Env::parse(env).unwrap(), BranchKey::parse(merchant, branch).unwrap())
}

pub(crate) fn device(name: &str, scope: Scope) -> Principal {
    Principal::Device { device: DeviceId::parse(name).unwrap(), scope, collections: Collection::built_in().to_vec() }
}

/// Devices and their passwords, changed while the broker runs.
#[derive(Default)]
pub(crate) struct Registry(Mutex<HashMap<String, (String, Principal)>>);

impl Registry {
    pub(crate) fn add(&self, username: &str, password: &str, principal: Principal) {
        self.0.lock().unwrap().insert(username.to_owned(), (password.to_owned(), principal));
    }

    pub(crate) fn revoke(&self, username: &str) {
        self.0.lock().unwrap().remove(username);
    }
}

#[async_trait]
impl DeviceAuth for Registry {
    async fn authenticate(&self, username: &str, password: &[u8]) -> Option<Principal> {
        let known = self.0.lock().unwrap();
        let (secret, principal) = known.get(username)?;
        (secret.as_bytes() == password).then(|| principal.clone())
    }

    async fn principal(&self, username: &str) -> Option<Principal> {
        self.0.lock().unwrap().get(username).map(|(_, principal)| principal.clone())
    }
}

/// A broker with the devices that the tests speak of; the password of `x` is `pw-x`.
pub(crate) struct World {
    pub(crate) registry: Arc<Registry>,
    pub(crate) broker: EmbeddedBroker,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(EmbeddedConfig::tcp(loopback())).await
    }

    pub(crate) async fn limited(limits: BrokerLimits) -> Self {
        Self::with(EmbeddedConfig { limits, ..EmbeddedConfig::tcp(loopback()) }).await
    }

    pub(crate) async fn with(config: EmbeddedConfig) -> Self {
        let registry = Arc::new(Registry::default());
        for (name, env, merchant, branch) in [
            ("devA", "prod", "m1", "b1"),
            ("devA2", "prod", "m1", "b1"),
            ("devB", "prod", "m1", "b2"),
            ("devD", "dev", "m1", "b1"),
            ("devM", "prod", "m1", "b1"),
            ("devR", "prod", "m1", "b1"),
            ("devX", "prod", "m2", "b7"),
        ] {
            registry.add(name, &format!("pw-{name}"), device(name, scope(env, merchant, branch)));
        }
        registry.add("backend", "pw-backend", Principal::Backend { env: Env::parse("prod").unwrap() });
        let broker = EmbeddedBroker::start(config, registry.clone()).await.unwrap();
        Self { registry, broker }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.broker.addrs().tcp.unwrap()
    }

    /// Logs a known user in, or panics.
    pub(crate) async fn connect(&self, name: &str) -> Client {
        Client::login(self.addr(), &Login::of(name)).await.expect("login accepted")
    }

    pub(crate) async fn publish(&self, topic: &str, payload: impl Into<Bytes>) {
        self.send(topic, payload, false).await;
    }

    pub(crate) async fn retain(&self, topic: &str, payload: impl Into<Bytes>) {
        self.send(topic, payload, true).await;
    }

    async fn send(&self, topic: &str, payload: impl Into<Bytes>, retain: bool) {
        let message = Message { topic: topic.to_owned(), payload: payload.into(), retain };
        self.broker.publish(message).await.unwrap();
    }
}
