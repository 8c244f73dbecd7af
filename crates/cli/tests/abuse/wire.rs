//! What an attacker says on a socket: bytes that no library would send.
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// Nothing in a healthy test comes near it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Where attackers live.
pub(crate) const ATTACKER: [u8; 4] = [127, 0, 0, 2];
/// Where honest tills live.
pub(crate) const HONEST: [u8; 4] = [127, 0, 0, 1];

/// A connection from one of the addresses of this machine.
pub(crate) async fn connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    timeout(DEADLINE, socket.connect(to)).await.expect("the system answers")
}

/// Waits until the other end closes, whatever it says before; how many bytes it said.
pub(crate) async fn closed(stream: &mut TcpStream) -> usize {
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut said)).await.expect("the server closes the connection");
    said.len()
}

/// One HTTP request with any bytes as its body; the status, or nothing when the connection was cut.
pub(crate) async fn http(from: [u8; 4], to: SocketAddr, head: &str, body: &[u8]) -> Option<(u16, String)> {
    let mut stream = connect(from, to).await.ok()?;
    let length = body.len();
    let head = format!("{head}\r\nHost: shop\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let (mut read, mut write) = stream.split();
    let sent = async {
        let _ = write.write_all(head.as_bytes()).await;
        let _ = write.write_all(body).await;
    };
    let mut answer = Vec::new();
    let (_, got) = tokio::join!(sent, timeout(DEADLINE, read.read_to_end(&mut answer)));
    let _ = got.expect("the server answers or closes");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text))
}

fn text(field: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(field.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(field);
    bytes
}

/// An MQTT packet: first byte, length, rest (MQTT 3.1.1 §2.2).
pub(crate) fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let (mut bytes, mut length) = (vec![first], rest.len());
    loop {
        let low = u8::try_from(length % 128).unwrap();
        length /= 128;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// The next packet: its first byte, and what comes after its length (MQTT 3.1.1 §2.2).
pub(crate) async fn next(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = usize::from(stream.read_u8().await?);
        length |= (byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    Ok((first, rest))
}

/// CONNECT with a clean session and a keep-alive of 600 s.
pub(crate) fn login(client_id: &[u8], username: &[u8], password: &[u8]) -> Vec<u8> {
    let mut rest = text(b"MQTT");
    rest.extend_from_slice(&[4, 0xc2, 2, 88]);
    for field in [client_id, username, password] {
        rest.extend(text(field));
    }
    packet(0x10, &rest)
}

/// SUBSCRIBE at QoS 0.
pub(crate) fn subscribe(filter: &[u8]) -> Vec<u8> {
    let mut rest = vec![0, 1];
    rest.extend(text(filter));
    rest.push(0);
    packet(0x82, &rest)
}
