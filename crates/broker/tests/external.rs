//! The way to an external broker, against a real Mosquitto that these tests start, kill and mislead.
#![allow(clippy::unwrap_used)]

mod common;
mod tls_directory;

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use mstore_broker::{Broker as _, CanaryState, ExternalBroker, ExternalConfig, Login, Message, PublishError, Receipt, TlsFiles};
use mstore_protocol::Env;
use mstore_rig::{Mosquitto, Program, have};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use self::{
    common::{
        client::{Answer, Client, Login as Device},
        soon,
    },
    tls_directory::TlsDirectory,
};

const TOPIC: &str = "prod/m1/b1/product/updates";

fn config(port: u16) -> ExternalConfig {
    let mut config = ExternalConfig::new(format!("mqtt://127.0.0.1:{port}").parse().unwrap(), Env::parse("prod").unwrap());
    config.timing.retry_max = Duration::from_millis(100);
    config.timing.refused_wait = Duration::from_millis(100);
    config.timing.canary_within = Duration::from_secs(1);
    config
}

fn login(name: &str) -> Option<Login> {
    Some(Login { username: name.to_owned(), password: Bytes::from(format!("pw-{name}")) })
}

fn message(payload: String) -> Message {
    Message { topic: TOPIC.to_owned(), payload: payload.into(), retain: false }
}

async fn up(broker: &ExternalBroker) -> u64 {
    let mut connections = broker.connections();
    soon("a connection", connections.wait_for(|number| *number > 0)).await.map(|number| *number).unwrap()
}

async fn subscriber(mosquitto: &Mosquitto, name: &str) -> Client {
    let mut client = Client::login(mosquitto.addr(), &Device::of(name)).await.expect("login accepted");
    assert_eq!(client.subscribe(TOPIC).await, Answer::Granted);
    client
}

#[tokio::test]
async fn messages_are_pipelined_and_arrive_in_order() {
    let Some(mosquitto) = have(&[Program::Mosquitto]).then(|| Mosquitto::start("")) else { return };
    let broker = ExternalBroker::start(config(mosquitto.port()));
    up(&broker).await;
    let mut till = subscriber(&mosquitto, "till").await;
    let answers = soon("acknowledgements", broker.publish_batch((0..500).map(|n| message(n.to_string())).collect())).await;
    assert_eq!(answers, vec![Ok(()); 500]);
    for n in 0..500 {
        assert_eq!(till.next().await.unwrap().payload, n.to_string());
    }
    assert_eq!((broker.stats().published, broker.in_flight()), (500, 0));
    assert_eq!(broker.state().borrow().canary, CanaryState::Unchecked);
    let retained = Message { retain: true, ..message("head".into()) };
    broker.publish(retained).await.unwrap();
    let head = subscriber(&mosquitto, "late").await.next().await.unwrap();
    assert!(head.retain && head.payload == "head");
    broker.shutdown().await;
    assert_eq!(broker.send(message(String::new())).await.unwrap_err(), PublishError::Stopped);
}

/// Numbers without end, handed over as the server does it: what was not acknowledged goes again, from the oldest on. How far it came, and how
/// often a connection broke.
async fn count_until(broker: &ExternalBroker, done: &AtomicBool) -> (usize, usize) {
    let mut connections = broker.connections();
    let (mut next, mut breaks) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let number = *connections.borrow_and_update();
        let mut window: VecDeque<(usize, Receipt)> = VecDeque::new();
        for n in next..next + 2_000 {
            match soon("room", broker.send_on(number, message(n.to_string()))).await {
                Ok(receipt) => window.push_back((n, receipt)),
                Err(error) => {
                    assert!(matches!(error, PublishError::Lost | PublishError::Stopped), "{error}");
                    break;
                }
            }
        }
        let mut lost = window.len() < 2_000;
        while let Some((n, receipt)) = window.pop_front() {
            if soon("a word about each", receipt).await.is_err() {
                lost = true;
                break;
            }
            next = n + 1;
        }
        if lost {
            breaks += 1;
            soon("another connection", connections.wait_for(|now| *now > number)).await.unwrap();
        }
    }
    (next, breaks)
}

#[tokio::test]
async fn a_killed_broker_loses_nothing_and_order_survives() {
    let Some(mut mosquitto) = have(&[Program::Mosquitto]).then(|| Mosquitto::start("")) else { return };
    let broker = ExternalBroker::start(config(mosquitto.port()));
    up(&broker).await;
    let done = AtomicBool::new(false);
    let mut till = subscriber(&mosquitto, "till").await;
    let ((next, breaks), last) = tokio::join!(count_until(&broker, &done), async {
        let mut last = 0;
        for kill in [true, true, false] {
            let first = number(&till.next().await.unwrap().payload);
            let mut expected = first + 1;
            while expected < first + 3_000 {
                assert_eq!(number(&till.next().await.unwrap().payload), expected, "in order, without a gap");
                expected += 1;
            }
            last = expected - 1;
            if kill {
                mosquitto.kill();
                mosquitto.restart();
                till = subscriber(&mosquitto, "till").await;
            }
        }
        done.store(true, Ordering::Relaxed);
        last
    });
    assert_eq!(breaks, 2, "both kills came in the middle");
    assert!(next > last, "all that the till has is acknowledged: {next} > {last}");
    assert_eq!(broker.in_flight(), 0);
}

fn number(payload: &[u8]) -> usize {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_broker_that_hangs_is_given_up() {
    let Some(mosquitto) = have(&[Program::Mosquitto]).then(|| Mosquitto::start("")) else { return };
    let mut config = config(mosquitto.port());
    config.timing.keep_alive = Duration::from_secs(1);
    config.timing.connect_within = Duration::from_secs(1);
    let broker = ExternalBroker::start(config);
    up(&broker).await;
    mosquitto.pause();
    let mut state = broker.state();
    let lost = soon("an end of the wait", broker.publish(message("1".into()))).await;
    assert_eq!(lost, Err(PublishError::Lost));
    soon("no connection", state.wait_for(|state| !state.up)).await.unwrap();
    mosquitto.resume();
    soon("a connection", state.wait_for(|state| state.up)).await.unwrap();
    broker.publish(message("1".into())).await.unwrap();
}

/// A node that has lost the others of its cluster: it lets in and answers pings, and acknowledges only on its second connection.
async fn half_dead_node(listener: TcpListener) {
    for acknowledges in [false, true] {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut head = [0; 2];
            while socket.read_exact(&mut head).await.is_ok() {
                // Everything here is shorter than 128 bytes.
                let mut body = vec![0; usize::from(head[1])];
                socket.read_exact(&mut body).await.unwrap();
                let answer: &[u8] = match head[0] >> 4 {
                    1 => &[0x20, 2, 0, 0],
                    3 if acknowledges => &[0x40, 2, body[2 + TOPIC.len()], body[3 + TOPIC.len()]],
                    12 => &[0xD0, 0],
                    _other => &[],
                };
                socket.write_all(answer).await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_node_that_answers_and_acknowledges_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(listener.local_addr().unwrap().port());
    config.timing.acknowledged_within = Duration::from_millis(300);
    tokio::spawn(half_dead_node(listener));
    let broker = ExternalBroker::start(config);
    let first = up(&broker).await;
    let lost = soon("a word", broker.send_on(first, message("1".into())).await.unwrap()).await;
    assert_eq!(lost, Err(PublishError::Lost));
    let mut connections = broker.connections();
    let second = *soon("another connection", connections.wait_for(|number| *number > first)).await.unwrap();
    assert_eq!(soon("an acknowledgement", broker.send_on(second, message("1".into())).await.unwrap()).await, Ok(()));
    broker.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_takes_nothing_makes_senders_wait() {
    let Some(mosquitto) = have(&[Program::Mosquitto]).then(|| Mosquitto::start("")) else { return };
    let mut config = config(mosquitto.port());
    config.timing.in_flight_max = 10;
    let broker = ExternalBroker::start(config);
    let number = up(&broker).await;
    mosquitto.pause();
    let mut receipts = Vec::new();
    let handing_over = async {
        for n in 0..1_000 {
            receipts.push(broker.send_on(number, message(n.to_string())).await.unwrap());
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), handing_over).await.is_err(), "1,000 messages for a broker that stands still");
    // What may be in flight, what waits between us and the connection, and what it has just taken from there.
    assert!((10..=10 + 2 * 64 + 1).contains(&receipts.len()) && broker.in_flight() == receipts.len(), "{}", receipts.len());
    mosquitto.resume();
    for receipt in receipts {
        assert_eq!(soon("an acknowledgement", receipt).await, Ok(()));
    }
}

#[tokio::test]
async fn another_node_is_taken_when_one_is_away() {
    let Some(mosquitto) = have(&[Program::Mosquitto]).then(|| Mosquitto::start("")) else { return };
    let mut config = config(mosquitto.port());
    // Nobody listens on the first.
    config.url = format!("mqtt://127.0.0.1:9,127.0.0.1:{}", mosquitto.port()).parse().unwrap();
    let broker = ExternalBroker::start(config);
    let mut till = subscriber(&mosquitto, "till").await;
    up(&broker).await;
    broker.publish(message("1".into())).await.unwrap();
    assert_eq!(till.next().await.unwrap().payload, "1");
}

const ACL: &str = "user backend\ntopic write prod/+/+/+/updates\ntopic write prod/+/+/sync/head\n\
    user narrow\ntopic write prod/m1/+/+/updates\n\
    user canary\ntopic read prod/devices/canary/#\n";

#[tokio::test]
async fn a_broker_that_throws_away_what_it_acknowledges_is_noticed() {
    let Some(mosquitto) = have(&[Program::Mosquitto]).then(|| Mosquitto::with_accounts(&["backend", "narrow", "canary"], ACL)) else {
        return;
    };
    let mut config = config(mosquitto.port());
    config.login = login("narrow");
    config.canary = login("canary");
    let broker = ExternalBroker::start(config);
    let mut state = broker.state();
    let noticed = soon("a lost canary", state.wait_for(|state| state.canary == CanaryState::Discards && !state.up)).await.unwrap().clone();
    assert!(noticed.reason.contains("throws it away") && noticed.reason.contains("prod/+/+/sync/head"), "{noticed:?}");
    assert_eq!(broker.send(message("1".into())).await.unwrap_err(), PublishError::Stopped, "nothing is thrown away");
    mosquitto.set_acl(&ACL.replace("prod/m1/+/+/updates", "prod/#"));
    let mended = soon("a canary that comes back", state.wait_for(|state| state.up)).await.unwrap().clone();
    assert_eq!((mended.canary, mended.reason.as_str()), (CanaryState::Forwards, ""));
    broker.publish(message("1".into())).await.unwrap();
}

#[tokio::test]
async fn a_refused_login_says_so_and_a_wrong_canary_too() {
    let Some(mosquitto) = have(&[Program::Mosquitto]).then(|| Mosquitto::with_accounts(&["backend", "canary"], ACL)) else { return };
    let mut refused = config(mosquitto.port());
    refused.login = Some(Login { username: "backend".into(), password: "wrong".into() });
    let broker = ExternalBroker::start(refused);
    let state = soon("a reason", broker.state().wait_for(|state| state.reason.contains("refuses the login"))).await.unwrap().clone();
    assert!(!state.up && !state.reason.contains("wrong"), "{state:?}");
    let mut blind = config(mosquitto.port());
    blind.login = login("backend");
    blind.canary = Some(Login { username: "canary".into(), password: "wrong".into() });
    let broker = ExternalBroker::start(blind);
    soon("a reason", broker.state().wait_for(|state| state.reason.contains("the canary account canary"))).await.unwrap();
}

#[tokio::test]
async fn tls_with_a_client_certificate() {
    let files = TlsDirectory::make();
    let Some(mosquitto) = have(&[Program::Mosquitto]).then(|| Mosquitto::start(&files.listener())) else { return };
    let mut config = config(mosquitto.port());
    config.url = format!("mqtts://localhost:{}", mosquitto.port()).parse().unwrap();
    config.tls = TlsFiles::read(Some(&files.ca), Some((&files.cert, &files.key))).unwrap();
    let broker = ExternalBroker::start(config.clone());
    up(&broker).await;
    broker.publish(message("1".into())).await.unwrap();
    let stranger = TlsDirectory::make();
    config.tls = TlsFiles::read(Some(&stranger.ca), Some((&files.cert, &files.key))).unwrap();
    config.client_id = "stranger".into();
    let broker = ExternalBroker::start(config);
    soon("a reason", broker.state().wait_for(|state| state.reason.contains("certificate"))).await.unwrap();
}
