//! One MQTT connection, from the login to its end. It never connects again: whoever wants that opens another one, so that nothing of the old
//! one is sent late or out of order.

use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet, Publish,
    TlsConfiguration, Transport,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinHandle},
    time::{Instant, timeout, timeout_at},
};

use super::{
    config::{ExternalConfig, Login},
    url::BrokerNode,
};
use crate::embedded::PACKET_BYTES_MAX;

/// Requests between a sender and the connection; beyond them senders wait.
const REQUESTS_MAX: usize = 64;
/// Messages that came and were not read yet; only the canary's own are subscribed to.
const ARRIVED_MAX: usize = 16;
/// Requests written together.
const REQUESTS_PER_WRITE: usize = 64;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Down {
    /// The account, its password or its client id were refused.
    #[error("the broker refuses the login: {0}")]
    Login(String),
    /// What is published is acknowledged and thrown away.
    #[error("{0}")]
    Canary(String),
    /// The network, TLS or the broker.
    #[error("{0}")]
    Network(String),
}

/// An open connection; dropping it closes it.
pub(crate) struct Connection {
    pub(crate) client: AsyncClient,
    pub(crate) arrived: mpsc::Receiver<Publish>,
    driver: JoinHandle<Down>,
    abort: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Connection {
    /// Connects to one node and logs in.
    pub(crate) async fn open(config: &ExternalConfig, node: &BrokerNode, client_id: &str, login: Option<&Login>) -> Result<Self, Down> {
        let (client, mut events) = AsyncClient::builder(options(config, node, client_id, login)).capacity(REQUESTS_MAX).build();
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(config.timing.connect_within.as_secs().max(1));
        events.set_network_options(network);
        let (sender, arrived) = mpsc::channel(ARRIVED_MAX);
        let (ready, connected) = oneshot::channel();
        // Even an idle connection says something once per keep-alive; one that is stuck in a write does not.
        let silence_max = config.timing.keep_alive.max(Duration::from_secs(1)) * 2 + config.timing.connect_within;
        let waiting = Waiting::new(config.timing.acknowledged_within);
        let mut driver = tokio::spawn(drive(events, silence_max, waiting, ready, sender));
        let abort = driver.abort_handle();
        match timeout(config.timing.connect_within, connected).await {
            Ok(Ok(())) => Ok(Self { client, arrived, driver, abort }),
            Ok(Err(_ended)) => Err(ended(&mut driver).await),
            Err(_late) => {
                abort.abort();
                Err(Down::Network(format!("{node} did not answer within {:?}", config.timing.connect_within)))
            }
        }
    }

    /// Resolves when the connection is over.
    pub(crate) async fn ended(&mut self) -> Down {
        ended(&mut self.driver).await
    }

    /// Says goodbye, so that the broker does not wait for the keep-alive; gives up after `within`.
    pub(crate) async fn close(mut self, within: Duration) {
        if self.client.try_disconnect().is_ok() {
            let _gone_anyway = timeout(within, self.ended()).await;
        }
    }
}

async fn ended(driver: &mut JoinHandle<Down>) -> Down {
    driver.await.unwrap_or_else(|_aborted| Down::Network("the connection was given up".into()))
}

fn options(config: &ExternalConfig, node: &BrokerNode, client_id: &str, login: Option<&Login>) -> MqttOptions {
    let packet_bytes_max = usize::try_from(PACKET_BYTES_MAX).unwrap_or(usize::MAX);
    let mut options = MqttOptions::new(client_id, (node.host.clone(), node.port));
    options
        .set_keep_alive(u16::try_from(config.timing.keep_alive.as_secs().max(1)).unwrap_or(u16::MAX))
        .set_clean_session(true)
        .set_inflight(config.timing.in_flight_max.max(1))
        .set_max_packet_size(packet_bytes_max, packet_bytes_max)
        .set_max_request_batch(REQUESTS_PER_WRITE);
    if let Some(login) = login {
        options.set_credentials(login.username.clone(), login.password.clone());
    }
    if config.url.tls {
        options.set_transport(match config.tls.authorities.clone() {
            Some(ca) => Transport::tls_with_config(TlsConfiguration::Simple { ca, alpn: None, client_auth: config.tls.identity.clone() }),
            None => Transport::tls_with_default_config(),
        });
    }
    options
}

/// What was published and is not acknowledged: how much, and since when nothing has been.
struct Waiting {
    within: Duration,
    count: u32,
    since: Instant,
}

impl Waiting {
    fn new(within: Duration) -> Self {
        Self { within, count: 0, since: Instant::now() }
    }

    fn published(&mut self) {
        if self.count == 0 {
            self.since = Instant::now();
        }
        self.count += 1;
    }

    fn acknowledged(&mut self) {
        self.count = self.count.saturating_sub(1);
        self.since = Instant::now();
    }

    fn until(&self) -> Option<Instant> {
        (self.count > 0).then(|| self.since + self.within)
    }
}

/// Reads and writes until the connection ends.
async fn drive(
    mut events: EventLoop,
    silence_max: Duration,
    mut waiting: Waiting,
    ready: oneshot::Sender<()>,
    arrived: mpsc::Sender<Publish>,
) -> Down {
    let mut ready = Some(ready);
    loop {
        let silent = Instant::now() + silence_max;
        let overdue = waiting.until().filter(|overdue| *overdue < silent);
        // Whichever comes first ends the connection, so it does no harm that the poll is given up half done.
        let event = match timeout_at(overdue.unwrap_or(silent), events.poll()).await {
            Ok(Ok(event)) => event,
            Ok(Err(error)) => return down(&error),
            Err(_late) if overdue.is_some() => return Down::Network(format!("nothing was acknowledged for {:?}", waiting.within)),
            Err(_late) => return Down::Network(format!("nothing went through for {silence_max:?}")),
        };
        match event {
            // QoS 0 has no number.
            Event::Outgoing(Outgoing::Publish(1..)) => waiting.published(),
            Event::Incoming(Packet::PubAck(_)) => waiting.acknowledged(),
            Event::Incoming(Packet::ConnAck(_)) => {
                // Nobody waits any more: the connection is about to be dropped.
                let _gone = ready.take().map(|ready| ready.send(()));
            }
            // Nobody reads: not a canary's connection, or one that has what it waited for.
            Event::Incoming(Packet::Publish(publish)) => drop(arrived.try_send(publish)),
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of the library's many errors only the refused login is told apart")]
fn down(error: &ConnectionError) -> Down {
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadClientId => {
                Down::Login(format!("{code:?}"))
            }
            _ => Down::Network(error.to_string()),
        },
        _ => Down::Network(error.to_string()),
    }
}
