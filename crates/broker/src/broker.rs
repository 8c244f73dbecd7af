//! What the server needs of a broker, embedded or external: take messages, close a device's connection, say how it goes.

use async_trait::async_trait;
use bytes::Bytes;
use mstore_protocol::DeviceId;

/// A message for the devices of a branch, QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// An update or head topic.
    pub topic: String,
    /// A frame or a head.
    pub payload: Bytes,
    /// Whether the broker keeps it for those who subscribe later: heads, never frames. An empty retained payload erases the kept one.
    pub retain: bool,
}

/// Why a message was not taken; it may be handed over again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker has been shut down.
    #[error("the broker is shut down; publish again when it is back")]
    Stopped,
    /// The broker will never take this topic.
    #[error("the broker refused topic {topic:?}: {reason}")]
    Refused {
        /// The topic.
        topic: String,
        /// The broker's own words.
        reason: String,
    },
}

/// What a kick found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kicked {
    /// Nobody: no connection and no session of this device.
    Absent,
    /// The connection is closed and the session gone.
    Closed,
    /// The session is gone and gets nothing more; its socket is stuck in a write and closes when that times out.
    Closing,
}

/// How the broker is doing; counters run from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Open connections.
    pub connected: usize,
    /// Sessions, those of devices that just went offline included.
    pub sessions: usize,
    /// Messages waiting in the sessions' queues.
    pub queued: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages taken from the server.
    pub published: u64,
    /// Messages dropped because a session's queue was full: that device sees a gap and catches up over HTTP.
    pub dropped: u64,
    /// Logins, subscriptions and publishes refused.
    pub refused: u64,
}

/// A running broker.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Hands one message over; resolves when the broker has taken it. Messages awaited one after the other stay in order.
    async fn publish(&self, message: Message) -> Result<(), PublishError>;

    /// Hands several messages over, in order; an external broker pipelines them. One answer per message.
    async fn publish_batch(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let mut answers = Vec::with_capacity(messages.len());
        for message in messages {
            answers.push(self.publish(message).await);
        }
        answers
    }

    /// Closes a device's connection and purges its session, within a second. Call it *after* the registry has changed:
    /// a login that began before is checked again.
    async fn kick(&self, device: &DeviceId) -> Kicked;

    /// Open connections.
    fn connected(&self) -> usize;

    /// How it is doing.
    fn stats(&self) -> BrokerStats;

    /// Closes every connection and frees the ports; resolves when that is done. Later calls resolve at once.
    async fn shutdown(&self);
}
