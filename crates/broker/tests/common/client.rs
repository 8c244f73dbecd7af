//! MQTT 3.1.1 by hand (OASIS standard, 29 October 2014): packets in, packets out, nothing checked before it is sent.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::soon;

/// A CONNECT packet.
pub(crate) struct Login {
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) clean: bool,
    pub(crate) keep_alive_s: u16,
    /// Topic, and whether it is retained.
    pub(crate) will: Option<(String, bool)>,
}

impl Login {
    /// Client id and user name `name`, password `pw-name`, clean session, no will.
    pub(crate) fn of(name: &str) -> Self {
        Self {
            client_id: name.to_owned(),
            username: Some(name.to_owned()),
            password: Some(format!("pw-{name}").into_bytes()),
            clean: true,
            keep_alive_s: 60,
            will: None,
        }
    }

    pub(crate) fn persistent(name: &str) -> Self {
        Self { clean: false, ..Self::of(name) }
    }

    pub(crate) fn with_password(name: &str, password: &str) -> Self {
        Self { password: Some(password.into()), ..Self::of(name) }
    }

    fn packet(&self) -> Bytes {
        let mut body = BytesMut::new();
        put_string(&mut body, b"MQTT");
        body.put_u8(4);
        let will_bits = self.will.as_ref().map_or(0, |(_, retain)| 0b0000_1100 | u8::from(*retain) << 5);
        let credential_bits = u8::from(self.username.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        body.put_u8(credential_bits | will_bits | u8::from(self.clean) << 1);
        body.put_u16(self.keep_alive_s);
        put_string(&mut body, self.client_id.as_bytes());
        if let Some((topic, _)) = &self.will {
            put_string(&mut body, topic.as_bytes());
            put_string(&mut body, b"will");
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

/// A PUBLISH that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
}

impl Arrived {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// What the broker said to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Granted,
    Refused,
    Closed,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection.
pub(crate) struct Client {
    io: Box<dyn Io>,
    read: BytesMut,
    /// Messages that came while something else was waited for.
    arrived: std::collections::VecDeque<Arrived>,
    pub(crate) session_present: bool,
    packet_id: u16,
}

impl Client {
    /// Connects over TCP; an error is the CONNACK's return code, 255 for a connection closed without one.
    pub(crate) async fn login(addr: SocketAddr, login: &Login) -> Result<Self, u8> {
        let socket = TcpStream::connect(addr).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self::login_over(socket, login).await
    }

    pub(crate) async fn login_over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, login: &Login) -> Result<Self, u8> {
        let (read, arrived) = (BytesMut::new(), std::collections::VecDeque::new());
        let mut client = Self { io: Box::new(io), read, arrived, session_present: false, packet_id: 0 };
        client.send(&login.packet()).await;
        match client.packet().await {
            Some((0x20, body)) if body[1] == 0 => {
                client.session_present = body[0] & 1 == 1;
                Ok(client)
            }
            Some((0x20, body)) => Err(body[1]),
            Some((kind, _)) => panic!("packet {kind:#x} instead of a CONNACK"),
            None => Err(255),
        }
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) -> Answer {
        let id = self.next_id();
        let mut body = BytesMut::new();
        body.put_u16(id);
        put_string(&mut body, filter.as_bytes());
        body.put_u8(1);
        self.send(&packet(0x82, &body)).await;
        match self.reply(0x90).await {
            Some(body) if body[2] < 0x80 => Answer::Granted,
            Some(_) => Answer::Refused,
            None => Answer::Closed,
        }
    }

    /// Publishes and waits for the PUBACK; with QoS 0, for the answer to a ping.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Answer {
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

    pub(crate) async fn ping(&mut self) -> Answer {
        self.send(&packet(0xC0, &[])).await;
        self.reply(0xD0).await.map_or(Answer::Closed, |_| Answer::Granted)
    }

    /// The next message, acknowledged; `None` when the connection is closed.
    pub(crate) async fn next(&mut self) -> Option<Arrived> {
        if let Some(arrived) = self.arrived.pop_front() {
            return Some(arrived);
        }
        loop {
            let (kind, body) = self.packet().await?;
            if kind & 0xF0 == 0x30 {
                return Some(self.take(kind, body).await);
            }
        }
    }

    /// All messages before the one whose payload is `last`.
    pub(crate) async fn before(&mut self, last: &str) -> Vec<Arrived> {
        let mut before = Vec::new();
        loop {
            let arrived = self.next().await.expect("open until the last message");
            if arrived.payload == last.as_bytes() {
                return before;
            }
            before.push(arrived);
        }
    }

    /// Waits until the broker closes the connection.
    pub(crate) async fn closed(&mut self) {
        soon("the connection closed", async { while self.packet().await.is_some() {} }).await;
    }

    /// Says goodbye and waits until the broker has closed the connection.
    pub(crate) async fn disconnect(mut self) {
        self.send(&packet(0xE0, &[])).await;
        let _closed_already = self.io.shutdown().await;
        self.closed().await;
    }

    async fn reply(&mut self, wanted: u8) -> Option<Bytes> {
        loop {
            let (kind, body) = self.packet().await?;
            if kind == wanted {
                return Some(body);
            }
            if kind & 0xF0 == 0x30 {
                let arrived = self.take(kind, body).await;
                self.arrived.push_back(arrived);
            }
        }
    }

    async fn take(&mut self, kind: u8, mut body: Bytes) -> Arrived {
        let topic_bytes = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..2 + topic_bytes].to_vec()).unwrap();
        let mut rest = body.split_off(2 + topic_bytes);
        if kind & 0b0110 != 0 {
            let id = rest.split_to(2);
            self.send(&packet(0x40, &id)).await;
        }
        Arrived { topic, payload: rest, retain: kind & 1 == 1, dup: kind & 8 == 8 }
    }

    async fn packet(&mut self) -> Option<(u8, Bytes)> {
        soon("a packet or the end", async {
            loop {
                if let Some(packet) = split_packet(&mut self.read) {
                    return Some(packet);
                }
                match self.io.read_buf(&mut self.read).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// A broken pipe shows when reading.
    async fn send(&mut self, packet: &[u8]) {
        let _broken = self.io.write_all(packet).await;
        let _broken = self.io.flush().await;
    }

    fn next_id(&mut self) -> u16 {
        self.packet_id += 1;
        self.packet_id
    }
}

fn put_string(to: &mut BytesMut, value: &[u8]) {
    to.put_u16(u16::try_from(value.len()).unwrap());
    to.put_slice(value);
}

fn packet(kind: u8, body: &[u8]) -> Bytes {
    let mut whole = BytesMut::new();
    whole.put_u8(kind);
    let mut left = body.len();
    loop {
        let digit = u8::try_from(left % 128).unwrap();
        left /= 128;
        whole.put_u8(if left > 0 { digit | 128 } else { digit });
        if left == 0 {
            break;
        }
    }
    whole.put_slice(body);
    whole.freeze()
}

fn split_packet(read: &mut BytesMut) -> Option<(u8, Bytes)> {
    let (mut length, mut at) = (0, 1);
    loop {
        let digit = *read.get(at)?;
        length |= usize::from(digit & 127) << (7 * (at - 1));
        at += 1;
        if digit & 128 == 0 {
            break;
        }
    }
    if read.len() < at + length {
        return None;
    }
    let kind = read[0];
    let mut whole = read.split_to(at + length).freeze();
    Some((kind, whole.split_off(at)))
}
