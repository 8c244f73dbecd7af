//! The broker inside the server: rmqtt as a library, with our policy in front of it.
//!
//! It keeps nothing on disk: retained heads live in memory and come again from the server, sessions end with their connections.

mod config;
mod door;
mod engine;
mod fitter;
mod gate;
mod kick;
mod live;
mod lobby;
mod retain;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use mstore_protocol::DeviceId;
use rmqtt::{
    codec::types::QoS,
    context::ServerContext,
    session::SessionState,
    types::{CodecPublish, From as Sender, Id, Publish},
};
use tokio::sync::{RwLock, oneshot, watch};

pub(crate) use self::config::PACKET_BYTES_MAX;
pub use self::config::{BrokerLimits, EmbeddedConfig, ListenAddrs, StartError, TlsListen};
use self::gate::Gate;
use crate::{
    auth::DeviceAuth,
    broker::{Broker, BrokerStats, Kicked, Message, PublishError},
    receipt::Receipt,
    visitors::Visitors,
};

/// A broker on threads of its own. Dropping it stops it as [`Broker::shutdown`] does, without waiting.
pub struct EmbeddedBroker {
    /// Taken by the shutdown, which waits for the calls under way.
    running: RwLock<Option<Running>>,
    gate: Arc<Gate>,
    visitors: Arc<Visitors>,
    addrs: ListenAddrs,
    retained: Arc<AtomicUsize>,
    published: AtomicU64,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    stopped: watch::Receiver<bool>,
}

struct Running {
    context: ServerContext,
    sender: Sender,
}

impl EmbeddedBroker {
    /// Listens, and lets in whom `auth` knows. Resolves when clients can connect.
    pub async fn start(config: EmbeddedConfig, auth: Arc<dyn DeviceAuth>) -> Result<Self, StartError> {
        let gate = Gate::new(auth, config.limits.wrong_logins);
        let engine = engine::start(config, gate.clone()).await?;
        let addrs = engine.addrs;
        tracing::info!(tcp = ?addrs.tcp, ws = ?addrs.ws, tls = ?addrs.tls, wss = ?addrs.wss, "mqtt broker listening");
        let sender = Sender::from_admin(Id::from(engine.context.node.id(), "backend".into()));
        Ok(Self {
            running: RwLock::new(Some(Running { context: engine.context, sender })),
            gate,
            visitors: engine.visitors,
            addrs,
            retained: engine.retained,
            published: AtomicU64::new(0),
            stop: Mutex::new(Some(engine.stop)),
            stopped: engine.stopped,
        })
    }

    /// The addresses really bound, which tell what port 0 became.
    pub fn addrs(&self) -> ListenAddrs {
        self.addrs
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn send(&self, message: Message) -> Result<Receipt, PublishError> {
        let running = self.running.read().await;
        let Some(Running { context, sender }) = running.as_ref() else { return Err(PublishError::Stopped) };
        let topic = message.topic.clone();
        SessionState::forwards(context, sender.clone(), packet(message), false, None)
            .await
            .map_err(|error| PublishError::Refused { topic, reason: format!("{error:#}") })?;
        self.published.fetch_add(1, Ordering::Relaxed);
        Ok(Receipt::taken())
    }

    async fn kick(&self, device: &DeviceId) -> Kicked {
        self.gate.live.kick(device.as_str());
        let running = self.running.read().await;
        let Some(Running { context, .. }) = running.as_ref() else { return Kicked::Absent };
        let kicked = kick::kick(context, device.as_str()).await;
        tracing::info!(device = device.as_str(), result = ?kicked, "mqtt device kicked");
        kicked
    }

    fn connected(&self) -> usize {
        self.stats().connected
    }

    fn stats(&self) -> BrokerStats {
        let published = self.published.load(Ordering::Relaxed);
        let (dropped, refused) = (self.gate.dropped.load(Ordering::Relaxed), self.gate.refused.load(Ordering::Relaxed));
        let turned_away = self.visitors.refused();
        let totals = BrokerStats { published, dropped, refused, turned_away, ..BrokerStats::default() };
        // Only a shutdown holds it for writing.
        let Ok(running) = self.running.try_read() else { return totals };
        let Some(Running { context, .. }) = running.as_ref() else { return totals };
        let count = |count: isize| usize::try_from(count).unwrap_or(0);
        BrokerStats {
            connected: count(context.connections.count()),
            sessions: count(context.sessions.count()),
            queued: count(context.stats.message_queues.count()),
            retained: self.retained.load(Ordering::Relaxed),
            ..totals
        }
    }

    async fn shutdown(&self) {
        drop(self.running.write().await.take());
        let told = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take().is_some();
        // An error means that the thread is gone, which is what is waited for.
        let _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
        if told {
            tracing::info!(addrs = ?self.addrs, "mqtt broker stopped");
        }
    }
}

fn packet(message: Message) -> Publish {
    let Message { topic, payload, retain } = message;
    let packet =
        CodecPublish { dup: false, retain, qos: QoS::AtLeastOnce, topic: topic.into(), packet_id: None, payload, properties: None };
    packet.into()
}
