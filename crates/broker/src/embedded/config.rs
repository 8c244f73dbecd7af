//! Settings of the embedded broker, with what each one costs, and why a start can fail.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use mstore_protocol::limits::FRAME_BYTES_MAX;

use crate::{Certificate, Proxies, Rate};

/// Room for the topic and the MQTT header around the largest frame.
const PACKET_OVERHEAD_BYTES: u32 = 1024;
/// The largest packet in either direction.
#[expect(clippy::cast_possible_truncation, reason = "64 KiB fits")]
pub(crate) const PACKET_BYTES_MAX: u32 = FRAME_BYTES_MAX as u32 + PACKET_OVERHEAD_BYTES;

/// Where to listen and within which limits.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Plain MQTT, if wanted; port 0 takes a free one. None where only TLS may be spoken.
    pub tcp: Option<SocketAddr>,
    /// MQTT over WebSocket, if wanted.
    pub ws: Option<SocketAddr>,
    /// MQTT over TLS, if there is a certificate.
    pub tls: Option<TlsListen>,
    /// Addresses of proxies that end TLS in front: with them no listener is reached past the [door](BrokerLimits), not even on loopback, and
    /// what comes from there is not counted per address.
    pub proxies: Proxies,
    /// What one client and all of them together may use.
    pub limits: BrokerLimits,
}

impl EmbeddedConfig {
    /// Plain MQTT only, default limits.
    pub fn tcp(tcp: SocketAddr) -> Self {
        Self { tcp: Some(tcp), ws: None, tls: None, proxies: Proxies::default(), limits: BrokerLimits::default() }
    }
}

/// TLS listeners; a port 0 takes a free one.
#[derive(Debug, Clone)]
pub struct TlsListen {
    /// MQTT.
    pub mqtt: Option<SocketAddr>,
    /// MQTT over WebSocket.
    pub ws: Option<SocketAddr>,
    /// What they show.
    pub certificate: Arc<Certificate>,
}

/// What one client, and all of them together, may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Sessions at one time, default 20,000; one more is answered "server unavailable". About 25 KB each.
    pub sessions_max: u32,
    /// Messages waiting for one client, default 10,000 (some 400 bytes each; payloads are shared). Beyond it the *oldest* is dropped: the
    /// device sees a gap and catches up over HTTP. Too low and a burst turns into HTTP calls.
    pub queue_messages_max: usize,
    /// Messages sent to one client and not yet acknowledged, default 128. Too low and a client far away gets this many per round trip.
    pub inflight_max: u16,
    /// A client whose socket takes nothing for this long is disconnected, default 5 s. What is published meanwhile waits in memory.
    pub send_timeout: Duration,
    /// From a connection's beginning to its login, TLS and WebSocket handshakes included, default 10 s. On a plain loopback listener without
    /// [`EmbeddedConfig::proxies`] only from the CONNECT packet's first bytes to its last.
    pub handshake_timeout: Duration,
    /// Open connections from one address, default 8,000: a whole chain may sit behind one. Not on plain loopback listeners.
    pub connections_per_address_max: usize,
    /// Wrong logins from one address that are logged, default 60 and one more every 2 s; the others are refused without a line.
    pub wrong_logins: Rate,
    /// Longest keep-alive, default 600 s: a client that asks for more, or for none, is held to this. Silence of 1.5 times it ends a connection.
    pub keep_alive_max: Duration,
    /// How long the session of a client without the clean-session flag outlives its connection, default 60 s. Our own client uses clean
    /// sessions, which end with the connection.
    pub offline_session: Duration,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            sessions_max: 20_000,
            queue_messages_max: 10_000,
            inflight_max: 128,
            send_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            connections_per_address_max: 8_000,
            wrong_logins: Rate { burst: 60, refill_ms: 2_000 },
            keep_alive_max: Duration::from_secs(600),
            offline_session: Duration::from_secs(60),
        }
    }
}

/// The addresses really bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListenAddrs {
    /// Plain MQTT.
    pub tcp: Option<SocketAddr>,
    /// MQTT over WebSocket.
    pub ws: Option<SocketAddr>,
    /// MQTT over TLS.
    pub tls: Option<SocketAddr>,
    /// MQTT over WebSocket over TLS.
    pub wss: Option<SocketAddr>,
}

/// Why the broker did not start; nothing is left listening.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process, or another broker, listens there.
    #[error("{addr} is in use; stop what listens there or choose another address")]
    AddressInUse {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The system refused the address.
    #[error("cannot listen on {addr}: {reason}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// The system's own words.
        reason: String,
    },
    /// The system gave no thread for the broker.
    #[error("cannot start the broker's threads")]
    Threads(#[source] io::Error),
}

impl StartError {
    pub(super) fn listen(addr: SocketAddr, error: &rmqtt::Error) -> Self {
        match error.downcast_ref::<io::Error>() {
            Some(io) => Self::io(addr, io),
            None => Self::Listen { addr, reason: format!("{error:#}") },
        }
    }

    pub(super) fn io(addr: SocketAddr, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::AddrInUse {
            return Self::AddressInUse { addr };
        }
        Self::Listen { addr, reason: error.to_string() }
    }
}
