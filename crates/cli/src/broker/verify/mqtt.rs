//! MQTT 3.1.1 by hand (OASIS standard, 29 October 2014): says what a library would refuse to say, and shows what a broker really answers.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use mstore_broker::BrokerUrl;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Nothing on a healthy broker comes near it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// No broker of ours sends more.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Where a broker is and whom to trust there.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) url: BrokerUrl,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
}

/// A CONNECT packet.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) client_id: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<Bytes>,
    pub(super) clean: bool,
    /// Topic, and whether it is retained.
    pub(super) will: Option<(String, bool)>,
}

impl Login {
    /// Client id and user name are the same, the session is clean, and there is no will.
    pub(super) fn new(name: &str, password: impl Into<Bytes>) -> Self {
        let (client_id, username, password) = (name.to_owned(), Some(name.to_owned()), Some(password.into()));
        Self { client_id, username, password, clean: true, will: None }
    }

    fn packet(&self) -> Bytes {
        let mut body = BytesMut::new();
        put_string(&mut body, b"MQTT");
        body.put_u8(4);
        let will_bits = self.will.as_ref().map_or(0, |(_, retain)| 0b0000_1100 | u8::from(*retain) << 5);
        let credential_bits = u8::from(self.username.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        body.put_u8(credential_bits | will_bits | u8::from(self.clean) << 1);
        body.put_u16(60);
        put_string(&mut body, self.client_id.as_bytes());
        if let Some((topic, _)) = &self.will {
            put_string(&mut body, topic.as_bytes());
            put_string(&mut body, WILL);
        }
        if let Some(username) = &self.username {
            put_string(&mut body, username.as_bytes());
        }
        if let Some(password) = &self.password {
            put_string(&mut body, password);
        }
        packet(0x10, &body)
    }
}

/// What every will says.
pub(super) const WILL: &[u8] = b"will";

/// A PUBLISH that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) topic: String,
    pub(super) payload: Bytes,
}

/// What the broker said to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Granted,
    /// With its code.
    Refused(u8),
    Closed,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoConnection {
    /// The CONNACK's return code.
    Refused(u8),
    /// Closed without a CONNACK.
    Closed,
    /// Nobody there, or nothing that speaks MQTT.
    Away(String),
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection; dropping it cuts it off.
pub(super) struct Client {
    io: Box<dyn Io>,
    read: BytesMut,
    /// Messages that came while something else was waited for.
    arrived: VecDeque<Arrived>,
    packet_id: u16,
}

impl Client {
    pub(super) async fn connect(place: &Place, login: &Login) -> Result<Self, NoConnection> {
        let away = |error: &dyn std::fmt::Display| NoConnection::Away(error.to_string());
        let node = place.url.node(0);
        let addr = (node.host.as_str(), node.port);
        let socket = timeout(ANSWER_WITHIN, TcpStream::connect(addr)).await.map_err(|late| away(&late))?.map_err(|error| away(&error))?;
        socket.set_nodelay(true).map_err(|error| away(&error))?;
        let io: Box<dyn Io> = match &place.tls {
            None => Box::new(socket),
            Some(config) => {
                let name = ServerName::try_from(node.host.clone()).map_err(|error| away(&error))?;
                let shaken = timeout(ANSWER_WITHIN, TlsConnector::from(config.clone()).connect(name, socket)).await;
                Box::new(shaken.map_err(|late| away(&late))?.map_err(|error| away(&error))?)
            }
        };
        let mut client = Self { io, read: BytesMut::new(), arrived: VecDeque::new(), packet_id: 0 };
        client.send(&login.packet()).await;
        match client.packet().await {
            Some((0x20, body)) if body.get(1) == Some(&0) => Ok(client),
            Some((0x20, body)) => Err(NoConnection::Refused(body.get(1).copied().unwrap_or(u8::MAX))),
            Some((kind, _)) => Err(NoConnection::Away(format!("it answers a CONNECT with packet {kind:#x}"))),
            None => Err(NoConnection::Closed),
        }
    }

    pub(super) async fn subscribe(&mut self, filter: &str) -> Answer {
        let id = self.next_id();
        let mut body = BytesMut::new();
        body.put_u16(id);
        put_string(&mut body, filter.as_bytes());
        body.put_u8(1);
        self.send(&packet(0x82, &body)).await;
        match self.reply(0x90).await {
            Some(body) => match body.get(2) {
                Some(code) if *code < 0x80 => Answer::Granted,
                Some(code) => Answer::Refused(*code),
                None => Answer::Closed,
            },
            None => Answer::Closed,
        }
    }

    /// Publishes and waits for the PUBACK; with QoS 0, for the answer to a ping.
    pub(super) async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Answer {
        let id = self.next_id();
        let mut body = BytesMut::new();
        put_string(&mut body, topic.as_bytes());
        if qos > 0 {
            body.put_u16(id);
        }
        body.put_slice(payload);
        self.send(&packet(0x30 | qos << 1 | u8::from(retain), &body)).await;
        if qos == 0 {
            return self.ping().await;
        }
        self.reply(0x40).await.map_or(Answer::Closed, |_| Answer::Granted)
    }

    pub(super) async fn ping(&mut self) -> Answer {
        self.send(&packet(0xC0, &[])).await;
        self.reply(0xD0).await.map_or(Answer::Closed, |_| Answer::Granted)
    }

    /// The next message within a time, acknowledged; `None` when there is none or the connection is closed.
    pub(super) async fn next_within(&mut self, within: Duration) -> Option<Arrived> {
        if let Some(arrived) = self.arrived.pop_front() {
            return Some(arrived);
        }
        let next = async {
            loop {
                let (kind, body) = self.packet().await?;
                if kind & 0xF0 == 0x30 {
                    return self.take(kind, body).await;
                }
            }
        };
        timeout(within, next).await.ok().flatten()
    }

    /// Whether the broker closes the connection within a time; what arrives meanwhile is kept.
    pub(super) async fn is_closed_within(&mut self, within: Duration) -> bool {
        let closed = async {
            while let Some((kind, body)) = self.packet_ever().await {
                if kind & 0xF0 == 0x30
                    && let Some(arrived) = self.take(kind, body).await
                {
                    self.arrived.push_back(arrived);
                }
            }
        };
        timeout(within, closed).await.is_ok()
    }

    /// Says goodbye and waits until the broker has closed the connection.
    pub(super) async fn disconnect(mut self) {
        self.send(&packet(0xE0, &[])).await;
        let _closed_already = self.io.shutdown().await;
        while self.packet().await.is_some() {}
    }

    async fn reply(&mut self, wanted: u8) -> Option<Bytes> {
        loop {
            let (kind, body) = self.packet().await?;
            if kind == wanted {
                return Some(body);
            }
            if kind & 0xF0 == 0x30 {
                let arrived = self.take(kind, body).await?;
                self.arrived.push_back(arrived);
            }
        }
    }

    async fn take(&mut self, kind: u8, mut body: Bytes) -> Option<Arrived> {
        let topic_end = 2 + usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
        let topic = String::from_utf8_lossy(body.get(2..topic_end)?).into_owned();
        let mut payload = body.split_off(topic_end);
        if kind & 0b0110 != 0 && payload.len() >= 2 {
            let id = payload.split_to(2);
            self.send(&packet(0x40, &id)).await;
        }
        Some(Arrived { topic, payload })
    }

    /// The next packet; a broker that says nothing for long is as good as closed.
    async fn packet(&mut self) -> Option<(u8, Bytes)> {
        timeout(ANSWER_WITHIN, self.packet_ever()).await.ok().flatten()
    }

    async fn packet_ever(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if let Some(packet) = split_packet(&mut self.read)? {
                return Some(packet);
            }
            match self.io.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// A broken pipe shows when reading.
    async fn send(&mut self, packet: &[u8]) {
        let _broken = self.io.write_all(packet).await;
        let _broken = self.io.flush().await;
    }

    fn next_id(&mut self) -> u16 {
        self.packet_id = self.packet_id.wrapping_add(1).max(1);
        self.packet_id
    }
}

/// A string is as long as two bytes can say; the matrix's longest is exactly that long.
fn put_string(to: &mut BytesMut, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    to.put_u16(length);
    to.put_slice(&value[..usize::from(length)]);
}

fn packet(kind: u8, body: &[u8]) -> Bytes {
    let mut whole = BytesMut::new();
    whole.put_u8(kind);
    let mut left = body.len();
    loop {
        let digit = u8::try_from(left % 128).unwrap_or_default();
        left /= 128;
        whole.put_u8(if left > 0 { digit | 128 } else { digit });
        if left == 0 {
            break;
        }
    }
    whole.put_slice(body);
    whole.freeze()
}

/// A whole packet, if there is one; nothing at all when this is no MQTT.
fn split_packet(read: &mut BytesMut) -> Option<Option<(u8, Bytes)>> {
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let Some(digit) = read.get(at) else { return Some(None) };
        length |= usize::from(digit & 127) << (7 * (at - 1));
        at += 1;
        if digit & 128 == 0 {
            break;
        }
        if at > 4 {
            return None;
        }
    }
    if length > PACKET_BYTES_MAX {
        return None;
    }
    if read.len() < at + length {
        return Some(None);
    }
    let kind = read[0];
    let mut whole = read.split_to(at + length).freeze();
    Some(Some((kind, whole.split_off(at))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_split_where_they_end() {
        let long = packet(0x30, &[7; 200]);
        let mut read = BytesMut::from(&[&long[..], &packet(0xD0, &[])].concat()[..]);
        assert_eq!(split_packet(&mut read), Some(Some((0x30, Bytes::from(vec![7; 200])))));
        assert_eq!(split_packet(&mut read), Some(Some((0xD0, Bytes::new()))));
        assert_eq!(split_packet(&mut read), Some(None));
        let mut part = BytesMut::from(&long[..100]);
        assert_eq!(split_packet(&mut part), Some(None));
        let mut noise = BytesMut::from(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF][..]);
        assert_eq!(split_packet(&mut noise), None);
    }
}
