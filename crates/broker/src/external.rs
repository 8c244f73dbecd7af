//! The way to a broker that others run: one connection at a time, pipelined QoS 1, every message acknowledged on its own.
//!
//! It keeps no backlog and sends nothing twice on its own account: what was not acknowledged when a connection ended is reported lost, and
//! whoever holds the outbox hands it over again, in order. It does not manage the broker's accounts, and it cannot end a device's session.

pub(crate) mod canary;
mod config;
pub(crate) mod connection;
mod keeper;
mod url;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use mstore_protocol::DeviceId;
use rumqttc::{AsyncClient, ClientError, PublishOptions, QoS};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use self::{
    config::{ExternalConfig, ExternalTiming, Login, TlsFiles, TlsFilesError},
    url::{BrokerNode, BrokerUrl, BrokerUrlError},
};
use crate::{
    broker::{Broker, BrokerStats, Kicked, Message, PublishError},
    receipt::Receipt,
};

/// Whether somebody has checked that the broker forwards what we publish.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CanaryState {
    /// Nobody: there is no canary account.
    #[default]
    Unchecked,
    /// What was published came back.
    Forwards,
    /// It did not, or the canary account cannot listen: nothing is published until it does.
    Discards,
}

/// How the connection is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalState {
    /// Whether messages are taken now.
    pub up: bool,
    /// The last canary.
    pub canary: CanaryState,
    /// Why there is no connection; empty while there is one.
    pub reason: String,
}

/// Publishes to an external broker. Dropping it closes the connection without a goodbye.
pub struct ExternalBroker {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
}

/// What the keeper of the connection and the senders share.
struct Shared {
    /// The connection that takes messages, if there is one, and its number.
    current: watch::Sender<(u64, Option<AsyncClient>)>,
    /// The same number, for those who wait for another one.
    connections: watch::Sender<u64>,
    state: watch::Sender<ExternalState>,
    acknowledged: AtomicU64,
    in_flight: AtomicUsize,
}

impl ExternalBroker {
    /// Begins to connect and goes on for as long as it lives; the broker need not be there yet.
    pub fn start(config: ExternalConfig) -> Self {
        tracing::info!(broker = %config.url, client_id = config.client_id, canary = config.canary.is_some(), "publishing to an external broker");
        if config.login.is_some() && config.url.is_in_the_clear() {
            tracing::warn!(broker = %config.url, "our password crosses the network in the clear; use mqtts://");
        }
        let shared = Arc::new(Shared {
            current: watch::Sender::new((0, None)),
            connections: watch::Sender::new(0),
            state: watch::Sender::new(ExternalState { reason: format!("connecting to {}", config.url), ..ExternalState::default() }),
            acknowledged: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
        });
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(keeper::keep(config, shared.clone(), stop.clone()));
        Self { shared, keeper: Mutex::new(Some(keeper)), stop }
    }

    /// How the connection is doing, and every change of it.
    pub fn state(&self) -> watch::Receiver<ExternalState> {
        self.shared.state.subscribe()
    }

    /// Counts the connections that were up so far. A new one may mean that retained messages are gone, and that what was in flight is lost.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.shared.connections.subscribe()
    }

    /// Hands a message over if the connection is still the `connection`-th: on a new one, what was in flight on the old one goes first.
    pub async fn send_on(&self, connection: u64, message: Message) -> Result<Receipt, PublishError> {
        let (number, client) = self.shared.current.borrow().clone();
        let client = client.filter(|_| number == connection).ok_or(PublishError::Stopped)?;
        self.shared.hand_over(&client, message).await
    }

    /// Messages handed over and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }
}

impl Shared {
    async fn hand_over(self: &Arc<Self>, client: &AsyncClient, message: Message) -> Result<Receipt, PublishError> {
        let Message { topic, payload, retain } = message;
        let options = PublishOptions::new(QoS::AtLeastOnce).retain(retain);
        let notice = client.publish_tracked(topic.clone(), payload, options).await.map_err(|error| {
            // All others mean that the connection is over.
            let is_topic = matches!(error, ClientError::InvalidRequest(_));
            if is_topic { PublishError::Refused { topic, reason: "no topic for MQTT".into() } } else { PublishError::Lost }
        })?;
        let flight = Flight::begin(self.clone());
        Ok(Receipt::awaited(async move {
            let outcome = notice.wait_async().await;
            flight.end(outcome.is_ok());
            outcome.map(|_acknowledged| ()).map_err(|_ended| PublishError::Lost)
        }))
    }
}

/// A message on its way; it ends also when nobody waits for its receipt.
struct Flight(Arc<Shared>);

impl Flight {
    fn begin(shared: Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }

    fn end(self, acknowledged: bool) {
        self.0.acknowledged.fetch_add(u64::from(acknowledged), Ordering::Relaxed);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Broker for ExternalBroker {
    async fn send(&self, message: Message) -> Result<Receipt, PublishError> {
        let connection = self.shared.current.borrow().0;
        self.send_on(connection, message).await
    }

    async fn kick(&self, device: &DeviceId) -> Kicked {
        tracing::debug!(device = device.as_str(), "an external broker's sessions are closed by whoever runs it");
        Kicked::Absent
    }

    fn connected(&self) -> usize {
        0
    }

    fn stats(&self) -> BrokerStats {
        BrokerStats { published: self.shared.acknowledged.load(Ordering::Relaxed), ..BrokerStats::default() }
    }

    async fn shutdown(&self) {
        self.stop.cancel();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper
            && keeper.await.is_err()
        {
            tracing::error!("the keeper of the broker's connection panicked");
        }
    }
}

impl Drop for ExternalBroker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
