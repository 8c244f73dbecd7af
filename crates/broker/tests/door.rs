//! The door before the embedded broker: without a login nobody stays, one address does not take every place, and a till that logged in is left alone.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{
    World,
    client::{Answer, Client, Login},
    loopback, soon, until,
};
use mstore_broker::{Broker, BrokerLimits, EmbeddedConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const UPDATES: &str = "prod/m1/b1/product/updates";

/// A broker whose plain loopback listeners have a door: it believes to stand behind a proxy.
async fn world(limits: BrokerLimits) -> World {
    let proxies = mstore_broker::Proxies::parse("127.0.0.9").unwrap();
    World::with(EmbeddedConfig { proxies, limits, ws: Some(loopback()), ..EmbeddedConfig::tcp(loopback()) }).await
}

async fn ends(mut stream: TcpStream) {
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ = soon("the connection ends", stream.read_to_end(&mut said)).await;
}

#[tokio::test]
async fn who_does_not_log_in_is_shown_out_and_who_did_stays() {
    let limits = BrokerLimits { handshake_timeout: Duration::from_millis(500), ..BrokerLimits::default() };
    let world = world(limits).await;
    let addrs = world.broker.addrs();
    let socket = TcpStream::connect(addrs.tcp.unwrap()).await.unwrap();
    let mut till = Client::login_over(socket, &Login::of("devA")).await.unwrap();
    assert_eq!(till.subscribe(UPDATES).await, Answer::Granted);
    let silent = TcpStream::connect(addrs.tcp.unwrap()).await.unwrap();
    let mut half = TcpStream::connect(addrs.tcp.unwrap()).await.unwrap();
    half.write_all(&[0x10]).await.unwrap();
    let mut upgraded = TcpStream::connect(addrs.ws.unwrap()).await.unwrap();
    let upgrade = "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    upgraded.write_all(upgrade.as_bytes()).await.unwrap();
    tokio::join!(ends(silent), ends(half), ends(upgraded));
    world.publish(UPDATES, "still here").await;
    assert_eq!(till.next().await.unwrap().text(), "still here");
}

#[tokio::test]
async fn one_address_does_not_take_every_place() {
    let world = world(BrokerLimits { connections_per_address_max: 2, ..BrokerLimits::default() }).await;
    let addr = world.broker.addrs().tcp.unwrap();
    let held = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
    ends(TcpStream::connect(addr).await.unwrap()).await;
    assert_eq!(world.broker.stats().turned_away, 1);
    drop(held);
    // The door hears of their end a moment later.
    soon("a place is free", async {
        loop {
            let socket = TcpStream::connect(addr).await.unwrap();
            if Client::login_over(socket, &Login::of("devA")).await.is_ok() {
                return;
            }
        }
    })
    .await;
    until("the device is counted", || world.broker.connected() > 0).await;
}
