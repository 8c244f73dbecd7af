//! The broker as the server holds it: an embedded one that may be gone for a moment and come again in the same place, or the way to an
//! external one.

use std::sync::Arc;

use mstore_broker::{
    Broker, BrokerStats, BrokerUrl, CanaryState, DeviceAuth, EmbeddedBroker, EmbeddedConfig, ExternalBroker, ExternalConfig, Kicked,
    ListenAddrs, Message, PublishError, Receipt, StartError,
};
use mstore_protocol::DeviceId;
use tokio::sync::{RwLock, watch};

use crate::{BrokerConfig, steward::Steward};

/// The broker that frames go to.
pub(crate) enum BrokerSlot {
    /// In this process.
    Embedded(Box<EmbeddedSlot>),
    /// Somewhere else.
    External {
        /// The way to it.
        broker: ExternalBroker,
        /// What devices connect to unless they are told otherwise.
        url: BrokerUrl,
        /// Tells it who the devices are; none where others do.
        steward: Option<Arc<Steward>>,
    },
}

/// The embedded broker, or the gap between two of them.
pub(crate) struct EmbeddedSlot {
    config: EmbeddedConfig,
    auth: Arc<dyn DeviceAuth>,
    addrs: ListenAddrs,
    current: RwLock<Option<Arc<EmbeddedBroker>>>,
    /// Counts the brokers started: retained heads are gone after each.
    started: watch::Sender<u64>,
}

impl BrokerSlot {
    pub(crate) async fn start(config: BrokerConfig, auth: Arc<dyn DeviceAuth>, steward: Option<Arc<Steward>>) -> Result<Self, StartError> {
        match config {
            BrokerConfig::Embedded(config) => EmbeddedSlot::start(config, auth).await.map(|slot| Self::Embedded(Box::new(slot))),
            BrokerConfig::External(config) => Ok(Self::external(config, steward)),
        }
    }

    fn external(config: ExternalConfig, steward: Option<Arc<Steward>>) -> Self {
        let url = config.url.clone();
        Self::External { broker: ExternalBroker::start(config), url, steward }
    }

    /// Who tells an external broker about devices.
    pub(crate) fn steward(&self) -> Option<&Arc<Steward>> {
        match self {
            Self::Embedded(_) | Self::External { steward: None, .. } => None,
            Self::External { steward: Some(steward), .. } => Some(steward),
        }
    }

    /// The addresses bound, the same after a restart; none of an external broker.
    pub(crate) fn addrs(&self) -> ListenAddrs {
        match self {
            Self::Embedded(slot) => slot.addrs,
            Self::External { .. } => ListenAddrs::default(),
        }
    }

    /// The external broker's URL.
    pub(crate) fn external_url(&self) -> Option<&BrokerUrl> {
        match self {
            Self::Embedded(_) => None,
            Self::External { url, .. } => Some(url),
        }
    }

    /// Counts the brokers started or the connections made; wakes with every new one. After each, retained heads may be gone, and what was in
    /// flight is lost.
    pub(crate) fn starts(&self) -> watch::Receiver<u64> {
        match self {
            Self::Embedded(slot) => slot.started.subscribe(),
            Self::External { broker, .. } => broker.connections(),
        }
    }

    /// Hands a message over if that is still the `start`-th start.
    pub(crate) async fn send(&self, start: u64, message: Message) -> Result<Receipt, PublishError> {
        match self {
            Self::Embedded(slot) => slot.send(start, message).await,
            Self::External { broker, .. } => broker.send_on(start, message).await,
        }
    }

    pub(crate) async fn kick(&self, device: &DeviceId) -> Kicked {
        match self {
            Self::Embedded(slot) => {
                let Some(broker) = slot.current.read().await.clone() else { return Kicked::Absent };
                broker.kick(device).await
            }
            Self::External { steward: Some(steward), .. } => steward.kick(device).await,
            Self::External { broker, steward: None, .. } => broker.kick(device).await,
        }
    }

    /// How it is doing; why not, while it takes no messages.
    pub(crate) async fn stats(&self) -> Result<BrokerStats, String> {
        match self {
            Self::Embedded(slot) => {
                let broker = slot.current.read().await.clone();
                broker.map(|broker| broker.stats()).ok_or_else(|| "the broker is not running".to_owned())
            }
            Self::External { broker, url, .. } => {
                let state = broker.state().borrow().clone();
                if state.up { Ok(broker.stats()) } else { Err(format!("no broker at {url}: {}", state.reason)) }
            }
        }
    }

    /// Whether what is published is known to arrive, and messages in flight: an external broker's alone.
    pub(crate) fn external_gauges(&self) -> Option<(CanaryState, usize)> {
        match self {
            Self::Embedded(_) => None,
            Self::External { broker, .. } => Some((broker.state().borrow().canary, broker.in_flight())),
        }
    }

    pub(crate) async fn stop(&self) {
        match self {
            Self::Embedded(slot) => slot.stop().await,
            Self::External { broker, .. } => broker.shutdown().await,
        }
    }

    /// Stops the embedded broker and starts another on the same addresses; an external one is not ours to start.
    pub(crate) async fn restart(&self) -> Result<(), StartError> {
        match self {
            Self::Embedded(slot) => slot.restart().await,
            Self::External { .. } => Ok(()),
        }
    }
}

impl EmbeddedSlot {
    async fn start(mut config: EmbeddedConfig, auth: Arc<dyn DeviceAuth>) -> Result<Self, StartError> {
        let broker = EmbeddedBroker::start(config.clone(), auth.clone()).await?;
        let addrs = broker.addrs();
        config.tcp = addrs.tcp;
        config.ws = addrs.ws;
        if let Some(tls) = config.tls.as_mut() {
            (tls.mqtt, tls.ws) = (addrs.tls, addrs.wss);
        }
        let current = RwLock::new(Some(Arc::new(broker)));
        Ok(Self { config, auth, addrs, current, started: watch::Sender::new(1) })
    }

    async fn send(&self, start: u64, message: Message) -> Result<Receipt, PublishError> {
        let Some(broker) = self.current.read().await.clone() else { return Err(PublishError::Stopped) };
        if *self.started.borrow() != start {
            return Err(PublishError::Stopped);
        }
        broker.send(message).await
    }

    async fn stop(&self) {
        let taken = self.current.write().await.take();
        if let Some(broker) = taken {
            broker.shutdown().await;
        }
    }

    async fn restart(&self) -> Result<(), StartError> {
        self.stop().await;
        let broker = EmbeddedBroker::start(self.config.clone(), self.auth.clone()).await?;
        *self.current.write().await = Some(Arc::new(broker));
        self.started.send_modify(|count| *count += 1);
        Ok(())
    }
}
