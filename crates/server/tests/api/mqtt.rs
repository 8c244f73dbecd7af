//! A plain MQTT 3.1.1 client, as small as can be: connect, subscribe, read what comes.

use mstore_protocol::{Frame, Head};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::shop::{DEADLINE, Shop, Till};

pub(crate) struct Mqtt {
    stream: TcpStream,
}

pub(crate) struct Received {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retained: bool,
}

impl Received {
    pub(crate) fn frame(&self) -> Frame {
        Frame::parse(&self.payload).unwrap()
    }

    pub(crate) fn head(&self) -> Head {
        Head::parse(&self.payload).unwrap()
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length % 128).unwrap();
        length /= 128;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

impl Mqtt {
    /// Connects with a device's credentials; the CONNACK's return code otherwise.
    pub(crate) async fn connect(shop: &Shop, till: &Till) -> Result<Self, u8> {
        Self::connect_as(shop, till.enrolment.device_id.as_str(), &till.enrolment.token).await
    }

    pub(crate) async fn connect_as(shop: &Shop, device: &str, token: &str) -> Result<Self, u8> {
        let mut body = Vec::new();
        text(&mut body, "MQTT");
        body.extend([4, 0b1100_0010, 0, 60]);
        for part in [device, device, token] {
            text(&mut body, part);
        }
        let mut mqtt = Self { stream: TcpStream::connect(shop.running.mqtt_addr().unwrap()).await.unwrap() };
        mqtt.stream.write_all(&packet(0x10, &body)).await.unwrap();
        // Closed without a word: refused, too.
        let Some((kind, body)) = mqtt.read().await else { return Err(u8::MAX) };
        assert_eq!(kind, 0x20);
        if body[1] == 0 { Ok(mqtt) } else { Err(body[1]) }
    }

    /// Subscribes at QoS 1 to one filter; false if it was refused.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> bool {
        let mut body = vec![0, 7];
        text(&mut body, filter);
        body.push(1);
        self.stream.write_all(&packet(0x82, &body)).await.unwrap();
        let Some((kind, body)) = self.read().await else { return false };
        assert_eq!(kind, 0x90);
        body[2] != 0x80
    }

    /// The next message; `None` when the broker closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        loop {
            let (kind, body) = self.read().await?;
            if kind & 0xf0 != 0x30 {
                continue;
            }
            let topic_bytes = usize::from(u16::from_be_bytes([body[0], body[1]]));
            let topic = String::from_utf8(body[2..2 + topic_bytes].to_vec()).unwrap();
            let mut rest = &body[2 + topic_bytes..];
            if kind & 0b110 != 0 {
                self.stream.write_all(&packet(0x40, &rest[..2])).await.unwrap();
                rest = &rest[2..];
            }
            return Some(Received { topic, payload: rest.to_vec(), retained: kind & 1 == 1 });
        }
    }

    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(DEADLINE, self.read_packet()).await.expect("a packet in time")
    }

    async fn read_packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let kind = self.stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((kind, body))
    }
}
