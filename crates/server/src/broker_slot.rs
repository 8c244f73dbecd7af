//! The broker as the server holds it: there may be none for a moment, and a new one in the same place.

use std::sync::Arc;

use mstore_broker::{
    Broker, BrokerStats, DeviceAuth, EmbeddedBroker, EmbeddedConfig, Kicked, ListenAddrs, Message, PublishError, StartError,
};
use mstore_protocol::DeviceId;
use tokio::sync::{RwLock, watch};

/// The embedded broker, or the gap between two of them.
pub(crate) struct BrokerSlot {
    config: EmbeddedConfig,
    auth: Arc<dyn DeviceAuth>,
    addrs: ListenAddrs,
    current: RwLock<Option<Arc<EmbeddedBroker>>>,
    /// Counts the brokers started: retained heads are gone after each.
    started: watch::Sender<u64>,
}

impl BrokerSlot {
    pub(crate) async fn start(mut config: EmbeddedConfig, auth: Arc<dyn DeviceAuth>) -> Result<Self, StartError> {
        let broker = EmbeddedBroker::start(config.clone(), auth.clone()).await?;
        let addrs = broker.addrs();
        config.tcp = addrs.tcp;
        config.ws = addrs.ws;
        if let (Some(tls), Some(addr)) = (config.tls.as_mut(), addrs.tls) {
            tls.addr = addr;
        }
        let current = RwLock::new(Some(Arc::new(broker)));
        Ok(Self { config, auth, addrs, current, started: watch::Sender::new(1) })
    }

    /// The addresses bound, the same after a restart.
    pub(crate) fn addrs(&self) -> ListenAddrs {
        self.addrs
    }

    /// Wakes when another broker was started.
    pub(crate) fn starts(&self) -> watch::Receiver<u64> {
        self.started.subscribe()
    }

    pub(crate) async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let Some(broker) = self.current.read().await.clone() else { return Err(PublishError::Stopped) };
        broker.publish(message).await
    }

    pub(crate) async fn kick(&self, device: &DeviceId) -> Kicked {
        let Some(broker) = self.current.read().await.clone() else { return Kicked::Absent };
        broker.kick(device).await
    }

    /// How it is doing; `None` while there is none.
    pub(crate) async fn stats(&self) -> Option<BrokerStats> {
        Some(self.current.read().await.clone()?.stats())
    }

    pub(crate) async fn stop(&self) {
        let taken = self.current.write().await.take();
        if let Some(broker) = taken {
            broker.shutdown().await;
        }
    }

    /// Stops the broker and starts another on the same addresses.
    pub(crate) async fn restart(&self) -> Result<(), StartError> {
        self.stop().await;
        let broker = EmbeddedBroker::start(self.config.clone(), self.auth.clone()).await?;
        *self.current.write().await = Some(Arc::new(broker));
        self.started.send_modify(|count| *count += 1);
        Ok(())
    }
}
