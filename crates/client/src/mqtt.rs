//! The MQTT connection: subscribes to the exact topics of the device's branch with a clean session, and never publishes.

use std::time::Duration;

use mstore_protocol::{Code, Collection, Enrolment, Frame, Head, Scope, Topic, limits::FRAME_BYTES_MAX};
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS,
    mqttbytes::v4::{ConnectReturnCode, SubscribeFilter, SubscribeReasonCode},
};
use tokio::{sync::mpsc, task::AbortHandle};

use crate::{
    chance::Chance,
    error::OpenError,
    trust::{Trust, certificate_fault},
};

const KEEP_ALIVE_S: u16 = 30;
const CONNECT_TIMEOUT_S: u64 = 5;
/// Messages between the connection and the driver; when they are full the connection stops reading.
const EVENTS_MAX: usize = 256;

/// Where a broker is: one address, or the nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerAddress {
    /// Host and port, at least one.
    nodes: Vec<(String, u16)>,
    tls: bool,
}

impl BrokerAddress {
    /// Parses `mqtt://host:port` or `mqtts://host:port`; nodes of a cluster have commas between them.
    pub(crate) fn parse(url: &str) -> Result<Self, OpenError> {
        let wrong = |detail: &str| OpenError::Url { url: url.to_owned(), detail: detail.to_owned() };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it needs mqtt:// or mqtts://"))?;
        let (tls, default_port) = match scheme {
            "mqtt" | "tcp" => (false, 1883),
            "mqtts" | "ssl" => (true, 8883),
            _ => return Err(wrong("it needs mqtt:// or mqtts://")),
        };
        let node = |node: &str| {
            let (host, port) = match node.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong("the port is not a number"))?),
                Some(_) | None => (node, default_port),
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            if host.is_empty() { Err(wrong("the host is missing")) } else { Ok((host.to_owned(), port)) }
        };
        let nodes = rest.trim_end_matches('/').split(',').map(node).collect::<Result<_, _>>()?;
        Ok(Self { nodes, tls })
    }

    /// The node whose turn it is. Devices that begin anywhere spread over a cluster, and one that tries again tries the next.
    fn node(&self, turn: u64) -> (String, u16) {
        let count = u64::try_from(self.nodes.len()).unwrap_or(1);
        self.nodes[usize::try_from(turn % count).unwrap_or(0)].clone()
    }
}

/// Where a broker is, and whom to believe there.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) address: BrokerAddress,
    pub(crate) trust: Trust,
}

/// What the connection tells.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// All topics are subscribed.
    Subscribed,
    /// Login or a subscription was refused.
    Refused(Code),
    /// It is over; nothing follows.
    Closed(String),
    /// A frame, with the bytes it took.
    Frame(Collection, Box<Frame>, usize),
    /// A head, with the bytes it took.
    Head(Box<Head>, usize),
    /// Something that is neither.
    Malformed(String),
}

/// A connection; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Link {
    client: AsyncClient,
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    task: AbortHandle,
    scope: Scope,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Starts to connect to the node whose turn it is.
    pub(crate) fn open(enrolment: &Enrolment, broker: &Way, turn: u64, collections: &[Collection], chance: Chance) -> Self {
        let mut options = MqttOptions::new(enrolment.device_id.as_str(), broker.address.node(turn));
        options
            .set_keep_alive(KEEP_ALIVE_S)
            .set_clean_session(true)
            .set_credentials(enrolment.device_id.as_str(), enrolment.token.clone().into_bytes())
            .set_max_packet_size(2 * FRAME_BYTES_MAX, 16 * 1024);
        if broker.address.tls {
            options.set_transport(broker.trust.transport());
        }
        let (client, mut connection) = AsyncClient::builder(options).capacity(16).build();
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_TIMEOUT_S);
        connection.set_network_options(network);
        let scope = Scope { env: enrolment.env.clone(), merchant: enrolment.merchant.clone(), branch: enrolment.branch.clone() };
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let reader = LinkReader {
            client: client.clone(),
            scope: scope.clone(),
            collections: collections.to_vec(),
            subscribed: false,
            sender,
            chance,
        };
        let task = tokio::spawn(reader.run(connection)).abort_handle();
        Self { client, events, task, scope }
    }

    /// Subscribes to one more collection; a refusal of it leaves the others alone.
    pub(crate) fn subscribe(&self, collection: &Collection) {
        let topic = Topic::updates(&self.scope, collection).to_string();
        if let Err(error) = self.client.try_subscribe_many([SubscribeFilter::new(topic, QoS::AtMostOnce)]) {
            tracing::warn!(%collection, %error, "could not subscribe to a new collection; catch-ups bring its changes");
        }
    }
}

struct LinkReader {
    client: AsyncClient,
    scope: Scope,
    collections: Vec<Collection>,
    subscribed: bool,
    sender: mpsc::Sender<LinkEvent>,
    chance: Chance,
}

impl LinkReader {
    async fn run(mut self, mut connection: EventLoop) {
        let mut topics: Vec<(String, Option<Collection>)> = vec![(Topic::head(&self.scope).to_string(), None)];
        for collection in &self.collections {
            topics.push((Topic::updates(&self.scope, collection).to_string(), Some(collection.clone())));
        }
        loop {
            let event = match connection.poll().await {
                Ok(Event::Incoming(packet)) => self.packet(packet, &topics).await,
                Ok(Event::Outgoing(_)) => None,
                Err(error) => Some(closed(&error)),
            };
            let Some(event) = event else { continue };
            let is_over = matches!(event, LinkEvent::Closed(_) | LinkEvent::Refused(_));
            if self.sender.send(event).await.is_err() || is_over {
                return;
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other packets are the library's own business")]
    async fn packet(&mut self, packet: Packet, topics: &[(String, Option<Collection>)]) -> Option<LinkEvent> {
        match packet {
            Packet::ConnAck(_) => {
                let filters = topics.iter().map(|(topic, _)| SubscribeFilter::new(topic.clone(), QoS::AtMostOnce));
                self.client.try_subscribe_many(filters.collect::<Vec<_>>()).err().map(|error| LinkEvent::Closed(error.to_string()))
            }
            Packet::SubAck(ack) if !self.subscribed => {
                self.subscribed = true;
                let refused = ack.return_codes.iter().any(|code| matches!(code, SubscribeReasonCode::Failure));
                Some(if refused { LinkEvent::Refused(Code::Forbidden) } else { LinkEvent::Subscribed })
            }
            Packet::Publish(publish) => {
                if self.chance.drop_frame() {
                    return None;
                }
                if let Some(delay) = self.chance.delay_frame() {
                    tokio::time::sleep(delay).await;
                }
                Some(self.message(&publish.topic, &publish.payload, topics))
            }
            _ => None,
        }
    }

    fn message(&self, topic: &[u8], payload: &[u8], topics: &[(String, Option<Collection>)]) -> LinkEvent {
        let bytes = topic.len() + payload.len();
        let known = topics.iter().find(|(known, _)| known.as_bytes() == topic).map(|(_, collection)| collection.clone());
        let collection = match known {
            Some(collection) => collection,
            None => match std::str::from_utf8(topic).ok().and_then(|topic| Topic::parse(topic).ok()) {
                Some(Topic { scope, kind: mstore_protocol::TopicKind::Updates(collection) }) if scope == self.scope => Some(collection),
                Some(_) | None => return LinkEvent::Malformed(format!("a topic of somebody else: {}", String::from_utf8_lossy(topic))),
            },
        };
        match collection {
            None => match Head::parse(payload) {
                Ok(head) => LinkEvent::Head(Box::new(head), bytes),
                Err(error) => LinkEvent::Malformed(format!("a head: {error}")),
            },
            Some(collection) => match Frame::parse(payload) {
                Ok(frame) => LinkEvent::Frame(collection, Box::new(frame), bytes),
                Err(error) => LinkEvent::Malformed(format!("a frame of {collection}: {error}")),
            },
        }
    }
}

fn closed(error: &ConnectionError) -> LinkEvent {
    let refused = |code: &ConnectReturnCode| {
        matches!(code, ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadClientId)
    };
    if let ConnectionError::ConnectionRefused(code) = error
        && refused(code)
    {
        return LinkEvent::Refused(Code::CredentialsRefused);
    }
    match certificate_fault(error) {
        Some(code) => LinkEvent::Closed(format!("{code}: {error}")),
        None => LinkEvent::Closed(error.to_string()),
    }
}

/// How long a graceful end may take.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses() {
        let check = |url: &str, host: &str, port: u16, tls: bool| {
            assert_eq!(BrokerAddress::parse(url).unwrap(), BrokerAddress { nodes: vec![(host.into(), port)], tls }, "{url}");
        };
        check("mqtt://127.0.0.1:1883", "127.0.0.1", 1883, false);
        check("mqtts://shop.example", "shop.example", 8883, true);
        check("mqtt://[::1]:4000/", "::1", 4000, false);
        check("mqtt://[::1]", "::1", 1883, false);
        for bad in ["shop.example:1883", "http://x", "mqtt://", "mqtt://x:y", "mqtt://x,"] {
            assert!(BrokerAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_of_a_cluster_take_turns() {
        let cluster = BrokerAddress::parse("mqtts://one,two:2883,[::1]").unwrap();
        let turns: Vec<(String, u16)> = (4..8).map(|turn| cluster.node(turn)).collect();
        assert_eq!(turns, [("two", 2883), ("::1", 8883), ("one", 8883), ("two", 2883)].map(|(host, port)| (host.to_owned(), port)));
    }
}
