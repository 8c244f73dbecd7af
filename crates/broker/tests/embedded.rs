//! The embedded broker as the server and its operators see it: order, heads, kicks, stuck clients, restarts, and its three listeners.
#![allow(clippy::unwrap_used)]

mod common;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use common::{
    Registry, World,
    client::{Answer, Client, Login},
    device, loopback, scope, soon, until,
};
use futures_util::{SinkExt, StreamExt};
use mstore_broker::{
    Broker, BrokerLimits, Certificate, DeviceAuth, EmbeddedBroker, EmbeddedConfig, Kicked, ListenAddrs, Message, Principal, PublishError,
    StartError, TlsListen,
};
use mstore_protocol::DeviceId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

const UPDATES: &str = "prod/m1/b1/product/updates";
const HEAD: &str = "prod/m1/b1/sync/head";

fn id(device: &str) -> DeviceId {
    DeviceId::parse(device).unwrap()
}

async fn follows(client: &mut Client, filter: &str) {
    assert_eq!(client.subscribe(filter).await, Answer::Granted);
}

#[tokio::test]
async fn messages_arrive_once_and_in_the_order_they_were_published() {
    let world = World::start().await;
    let mut till = world.connect("devA").await;
    follows(&mut till, "prod/m1/b1/+/updates").await;
    for number in 0..2_000 {
        world.publish(UPDATES, number.to_string()).await;
    }
    for number in 0..2_000 {
        assert_eq!(till.next().await.unwrap().text(), number.to_string());
    }
    assert_eq!(world.broker.stats().dropped, 0);
}

#[tokio::test]
async fn a_batch_keeps_its_order() {
    let world = World::start().await;
    let mut till = world.connect("devA").await;
    follows(&mut till, UPDATES).await;
    let message = |number: u32| Message { topic: UPDATES.to_owned(), payload: number.to_string().into(), retain: false };
    let answers = world.broker.publish_batch((0..100).map(message).collect()).await;
    assert_eq!(answers, vec![Ok(()); 100]);
    for number in 0..100 {
        assert_eq!(till.next().await.unwrap().text(), number.to_string());
    }
}

#[tokio::test]
async fn a_late_subscriber_gets_the_last_head_and_then_the_next() {
    let world = World::start().await;
    world.retain(HEAD, "head 1").await;
    world.retain(HEAD, "head 2").await;
    world.publish(UPDATES, "before").await;
    assert_eq!(world.broker.stats().retained, 1);
    let mut till = world.connect("devA").await;
    follows(&mut till, HEAD).await;
    let head = till.next().await.unwrap();
    assert_eq!((head.text(), head.retain), ("head 2", true));
    world.retain(HEAD, "head 3").await;
    let head = till.next().await.unwrap();
    assert_eq!((head.text(), head.retain), ("head 3", false));
    world.retain(HEAD, "").await;
    assert_eq!(world.broker.stats().retained, 0, "an empty payload erases the head");
}

#[tokio::test]
async fn a_kicked_device_is_gone_within_a_second() {
    let world = World::start().await;
    let mut till = world.connect("devA").await;
    follows(&mut till, UPDATES).await;
    assert_eq!(world.broker.kick(&id("devB")).await, Kicked::Absent);
    world.registry.revoke("devA");
    let kicked = tokio::time::timeout(Duration::from_secs(1), async {
        let kicked = world.broker.kick(&id("devA")).await;
        till.closed().await;
        kicked
    });
    assert_eq!(kicked.await.expect("within a second"), Kicked::Closed);
    until("nobody connected", || world.broker.connected() == 0).await;
    assert_eq!(Client::login(world.addr(), &Login::of("devA")).await.err(), Some(4), "bad user name or password");
    assert_eq!(world.broker.stats().sessions, 0);
}

/// A registry that answers each login only when told to, with what it read before.
struct SlowRegistry {
    registry: Registry,
    asked: Semaphore,
    answers: Semaphore,
}

#[async_trait]
impl DeviceAuth for SlowRegistry {
    async fn authenticate(&self, username: &str, password: &[u8]) -> Option<Principal> {
        let read = self.registry.authenticate(username, password).await;
        self.asked.add_permits(1);
        self.answers.acquire().await.unwrap().forget();
        read
    }

    async fn principal(&self, username: &str) -> Option<Principal> {
        self.registry.principal(username).await
    }
}

#[tokio::test]
async fn a_login_under_way_does_not_outrun_a_revocation() {
    let (asked, answers) = (Semaphore::new(0), Semaphore::new(0));
    let slow = Arc::new(SlowRegistry { registry: Registry::default(), asked, answers });
    slow.registry.add("devA", "pw-devA", device("devA", scope("prod", "m1", "b1")));
    let broker = EmbeddedBroker::start(EmbeddedConfig::tcp(loopback()), slow.clone()).await.unwrap();
    let addr = broker.addrs().tcp.unwrap();
    let login = tokio::spawn(async move { Client::login(addr, &Login::of("devA")).await.err() });
    soon("the registry asked", slow.asked.acquire()).await.unwrap().forget();
    slow.registry.revoke("devA");
    assert_eq!(broker.kick(&id("devA")).await, Kicked::Absent, "nothing to close yet");
    slow.answers.add_permits(2);
    assert_eq!(login.await.unwrap(), Some(4), "the stale answer was believed");
    assert_eq!(slow.asked.available_permits(), 1, "asked again");
}

#[tokio::test]
async fn the_same_device_takes_its_connection_over() {
    let world = World::start().await;
    let mut old = world.connect("devA").await;
    follows(&mut old, UPDATES).await;
    let mut new = world.connect("devA").await;
    old.closed().await;
    follows(&mut new, UPDATES).await;
    world.publish(UPDATES, "once").await;
    world.publish(UPDATES, "last").await;
    assert_eq!(new.before("last").await.len(), 1, "the old connection's route is gone");
    follows(&mut new, HEAD).await;
}

#[tokio::test]
async fn a_clean_session_leaves_nothing_behind() {
    let world = World::start().await;
    let mut till = world.connect("devA").await;
    follows(&mut till, UPDATES).await;
    drop(till);
    until("the session is gone", || world.broker.stats().sessions == 0).await;
    world.publish(UPDATES, "missed").await;
    let mut till = world.connect("devA").await;
    assert!(!till.session_present);
    follows(&mut till, UPDATES).await;
    world.publish(UPDATES, "last").await;
    assert_eq!(till.before("last").await, []);
}

#[tokio::test]
async fn a_kept_session_ends_after_its_time() {
    let limits = BrokerLimits { offline_session: Duration::from_millis(50), ..BrokerLimits::default() };
    let world = World::limited(limits).await;
    let mut till = Client::login(world.addr(), &Login::persistent("devA")).await.unwrap();
    follows(&mut till, UPDATES).await;
    drop(till);
    until("the session is gone", || world.broker.stats().sessions == 0).await;
    let till = Client::login(world.addr(), &Login::persistent("devA")).await.unwrap();
    assert!(!till.session_present);
}

#[tokio::test]
async fn a_stuck_reader_delays_nobody_and_is_disconnected() {
    // A window wide enough that the socket is what blocks, not missing acknowledgements.
    let limits = BrokerLimits { send_timeout: Duration::from_secs(2), inflight_max: 2_000, ..BrokerLimits::default() };
    let world = World::limited(limits).await;
    let mut stuck = world.connect("devA").await;
    follows(&mut stuck, UPDATES).await;
    let mut healthy = world.connect("devA2").await;
    follows(&mut healthy, UPDATES).await;
    let frame = Bytes::from(vec![b'x'; 60_000]);
    // More than the sockets of the stuck one can hold.
    for number in 0..400 {
        world.publish(UPDATES, frame.clone()).await;
        world.publish(UPDATES, number.to_string()).await;
        let last = number.to_string();
        let next = tokio::time::timeout(Duration::from_millis(1_500), healthy.before(&last));
        assert_eq!(next.await.expect("before the stuck one times out").len(), 1);
    }
    until("the stuck one disconnected", || world.broker.connected() == 1).await;
    world.publish(UPDATES, "still served").await;
    assert_eq!(healthy.next().await.unwrap().text(), "still served");
}

#[tokio::test]
async fn a_client_that_never_acknowledges_holds_a_bounded_queue() {
    let limits = BrokerLimits { queue_messages_max: 10, inflight_max: 4, ..BrokerLimits::default() };
    let world = World::limited(limits).await;
    let mut silent = world.connect("devA").await;
    follows(&mut silent, UPDATES).await;
    for number in 0..100 {
        world.publish(UPDATES, number.to_string()).await;
    }
    until("everything sent, queued or dropped", || world.broker.stats().dropped == 86).await;
    assert_eq!(world.broker.stats().queued, 10);
    // It comes back to life: the four sent first, then the newest ten.
    let expected = (0..4).chain(90..100).map(|number| number.to_string());
    for number in expected {
        assert_eq!(silent.next().await.unwrap().text(), number);
    }
}

#[tokio::test]
async fn a_stuck_device_is_kicked_within_a_second_and_gets_nothing_more() {
    let world = World::limited(BrokerLimits { inflight_max: 2_000, ..BrokerLimits::default() }).await;
    let mut stuck = world.connect("devA").await;
    follows(&mut stuck, UPDATES).await;
    let frame = Bytes::from(vec![b'x'; 60_000]);
    for _ in 0..400 {
        world.publish(UPDATES, frame.clone()).await;
    }
    let kicked = tokio::time::timeout(Duration::from_secs(1), world.broker.kick(&id("devA"))).await;
    assert_eq!(kicked.expect("within a second"), Kicked::Closing);
    let again = tokio::time::timeout(Duration::from_secs(2), world.connect("devA")).await;
    let mut again = again.expect("its next login does not wait for the stuck socket");
    follows(&mut again, HEAD).await;
    world.publish(UPDATES, "after the kick").await;
    let mut after = Vec::new();
    while let Some(arrived) = soon("the end", stuck.next()).await {
        after.push(arrived);
    }
    assert!(after.iter().all(|arrived| arrived.payload == frame), "routed to a kicked device");
    world.publish(HEAD, "for the new connection").await;
    assert_eq!(again.next().await.unwrap().text(), "for the new connection");
}

#[tokio::test]
async fn it_restarts_on_the_same_addresses_in_the_same_process() {
    let registry = Arc::new(Registry::default());
    registry.add("devA", "pw-devA", device("devA", scope("prod", "m1", "b1")));
    let mut config = EmbeddedConfig { ws: Some(loopback()), ..EmbeddedConfig::tcp(loopback()) };
    let mut first_addrs: Option<ListenAddrs> = None;
    for _ in 0..5 {
        let broker = EmbeddedBroker::start(config.clone(), registry.clone()).await.unwrap();
        let addrs = broker.addrs();
        assert_eq!(*first_addrs.get_or_insert(addrs), addrs);
        (config.tcp, config.ws) = (addrs.tcp, addrs.ws);
        let mut till = Client::login(addrs.tcp.unwrap(), &Login::of("devA")).await.unwrap();
        let mut silent = TcpStream::connect(addrs.tcp.unwrap()).await.unwrap();
        follows(&mut till, UPDATES).await;
        broker.shutdown().await;
        till.closed().await;
        let _reset_or_end = soon("a connection without a login closed", silent.read(&mut [0])).await;
        let message = Message { topic: UPDATES.to_owned(), payload: Bytes::new(), retain: false };
        assert_eq!(broker.publish(message).await, Err(PublishError::Stopped));
        assert_eq!(broker.kick(&id("devA")).await, Kicked::Absent);
        assert_eq!(broker.connected(), 0);
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_dropped_broker_stops() {
    let world = World::start().await;
    let mut till = world.connect("devA").await;
    drop(world);
    till.closed().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let world = World::start().await;
    let taken = world.addr();
    let again = EmbeddedBroker::start(EmbeddedConfig::tcp(taken), world.registry.clone()).await;
    assert!(matches!(again.err(), Some(StartError::AddressInUse { addr }) if addr == taken));
    let ws = EmbeddedConfig { ws: Some(taken), ..EmbeddedConfig::tcp(loopback()) };
    let again = EmbeddedBroker::start(ws, world.registry.clone()).await;
    assert!(matches!(again.err(), Some(StartError::AddressInUse { addr }) if addr == taken));
}

#[tokio::test]
async fn a_full_house_refuses_the_next_and_lets_it_in_later() {
    let world = World::limited(BrokerLimits { sessions_max: 1, ..BrokerLimits::default() }).await;
    let first = world.connect("devA").await;
    assert_eq!(Client::login(world.addr(), &Login::of("devA2")).await.err(), Some(3), "server unavailable");
    drop(first);
    until("the seat is free", || world.broker.stats().sessions == 0).await;
    world.connect("devA2").await;
}

#[tokio::test]
async fn silence_longer_than_the_keep_alive_ends_a_connection() {
    let limits = BrokerLimits { keep_alive_max: Duration::from_secs(1), ..BrokerLimits::default() };
    let world = World::limited(limits).await;
    let end = async |name, keep_alive_s| {
        let login = Login { keep_alive_s, ..Login::of(name) };
        Client::login(world.addr(), &login).await.unwrap().closed().await;
    };
    tokio::join!(end("devA", 0), end("devA2", 600));
}

#[tokio::test]
async fn a_packet_over_the_limit_closes_the_connection() {
    let world = World::start().await;
    let mut backend = world.connect("backend").await;
    assert_eq!(backend.publish(UPDATES, &vec![b'x'; 64 * 1024], 1, false).await, Answer::Granted, "the largest frame fits");
    assert_eq!(backend.publish(UPDATES, &vec![b'x'; 70 * 1024], 1, false).await, Answer::Closed);
}

#[tokio::test]
async fn garbage_is_hung_up_on() {
    let world = World::start().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x10\xff\xff\xff\xff\xff", b"\x30\x05\x00\x03a/bx", &[0; 64]] {
        let mut socket = TcpStream::connect(world.addr()).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        let _reset_or_end = soon("hung up", socket.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"");
    }
    world.connect("devA").await;
}

#[tokio::test]
async fn websocket_clients_are_served() {
    let world = World::with(EmbeddedConfig { ws: Some(loopback()), ..EmbeddedConfig::tcp(loopback()) }).await;
    let addr = world.broker.addrs().ws.unwrap();
    let mut request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(format!("ws://{addr}/mqtt")).unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
    let socket = TcpStream::connect(addr).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async(request, socket).await.unwrap();
    let mut till = Client::login_over(unframed(socket), &Login::of("devA")).await.unwrap();
    follows(&mut till, UPDATES).await;
    world.publish(UPDATES, "over websocket").await;
    assert_eq!(till.next().await.unwrap().text(), "over websocket");
}

/// The bytes inside a WebSocket's binary messages.
fn unframed(socket: tokio_tungstenite::WebSocketStream<TcpStream>) -> tokio::io::DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut sink, mut stream) = socket.split();
    let (mut read, mut write) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            write.write_all(&message.into_data()).await.unwrap();
        }
    });
    tokio::spawn(async move {
        let mut bytes = vec![0; 4096];
        while let Ok(read @ 1..) = read.read(&mut bytes).await {
            sink.send(bytes[..read].to_vec().into()).await.unwrap();
        }
    });
    near
}

#[tokio::test]
async fn tls_clients_are_served() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let tls = TlsListen { mqtt: Some(loopback()), ws: None, certificate: Certificate::load(cert, key).unwrap() };
    let world = World::with(EmbeddedConfig { tls: Some(tls), ..EmbeddedConfig::tcp(loopback()) }).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(world.broker.addrs().tls.unwrap()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
    let mut till = Client::login_over(socket, &Login::of("devA")).await.unwrap();
    follows(&mut till, UPDATES).await;
    world.publish(UPDATES, "over tls").await;
    assert_eq!(till.next().await.unwrap().text(), "over tls");
}

#[test]
fn a_broken_certificate_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("missing.pem"));
    std::fs::write(&cert, "no certificate").unwrap();
    let error = Certificate::load(&cert, key).err().unwrap();
    assert!(error.cert == cert && error.to_string().contains("missing.pem"), "{error}");
}
