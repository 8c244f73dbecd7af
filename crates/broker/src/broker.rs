//! What the server needs of a broker, embedded or external: take messages, close a device's connection, say how it goes.

use async_trait::async_trait;
use bytes::Bytes;
use mstore_protocol::DeviceId;

use crate::receipt::Receipt;

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
    /// There is no broker: it was shut down, or there is no connection to it.
    #[error("the broker is away; publish again when it is back")]
    Stopped,
    /// The connection ended before the broker acknowledged it. It may have been taken: devices drop what they get twice. Order is kept
    /// only if everything from this message on is handed over again.
    #[error("the connection to the broker ended before it acknowledged; publish again when it is back")]
    Lost,
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
    /// Connections turned away because too many were open.
    pub turned_away: u64,
}

/// A running broker.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Hands one message over; resolves when there is room for it, which is the back-pressure. The receipt tells when the broker has it.
    /// Messages handed over one after the other stay in order.
    async fn send(&self, message: Message) -> Result<Receipt, PublishError>;

    /// Hands one message over and waits until the broker has it.
    async fn publish(&self, message: Message) -> Result<(), PublishError> {
        self.send(message).await?.await
    }

    /// Hands several messages over, in order, before it waits for the first. One answer per message.
    async fn publish_batch(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let mut receipts = Vec::with_capacity(messages.len());
        for message in messages {
            receipts.push(self.send(message).await);
        }
        let mut answers = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            answers.push(match receipt {
                Ok(receipt) => receipt.await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Closes a device's connection and purges its session, within a second. Call it *after* the registry has changed:
    /// a login that began before is checked again. An external broker's sessions are not ours to close: it answers [`Kicked::Absent`].
    async fn kick(&self, device: &DeviceId) -> Kicked;

    /// Open connections of devices, where the broker tells.
    fn connected(&self) -> usize;

    /// How it is doing.
    fn stats(&self) -> BrokerStats;

    /// Closes every connection and frees the ports; resolves when that is done. Later calls resolve at once.
    async fn shutdown(&self);
}
