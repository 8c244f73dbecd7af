//! Every case of the access matrix against the embedded broker over real sockets. What counts is the effect: a message that arrived, or did
//! not; an answer to a SUBSCRIBE alone proves nothing.
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    World,
    client::{Answer, Client, Login},
    device, scope, soon,
};
use mstore_broker::{ACL_MATRIX, Broker, Kicked};
use mstore_protocol::DeviceId;

/// Cases that this broker answers otherwise, and why. A case that starts to pass must leave the list.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// Topics that some refused filter of the matrix would reach.
const PROBED: &[&str] = &[
    "prod/m1/b1/product/updates",
    "prod/m1/b1/product/updates/deep",
    "prod/m1/b1/sync/head",
    "prod/m1/b2/product/updates",
    "prod/m1/b2/sync/head",
    "prod/m1/b10/product/updates",
    "prod/m1/*/product/updates",
    "prod/m1/>",
    "prod/m2/b1/product/updates",
    "prod.m1.b2.product.updates",
    "dev/m1/b1/product/updates",
    "/prod/m1/b1/product/updates",
    "free/topic",
    "$SYS/broker/uptime",
    "$CONTROL/dynamic-security/v1",
];

#[derive(Debug, serde::Deserialize)]
struct Case {
    case: String,
    actor: String,
    action: String,
    topic: String,
    expected: String,
}

impl Case {
    /// The matrix describes two topics instead of spelling them out.
    fn topic(&self) -> String {
        match self.topic.as_str() {
            r#"prod/ + 300 levels of "a/""# => format!("prod/{}", "a/".repeat(300)),
            r#"65535 x "x""# => "x".repeat(65_535),
            topic => topic.to_owned(),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Allow,
    Deny,
}

#[tokio::test]
async fn every_case_has_its_expected_effect() {
    let mut wrong = Vec::new();
    let mut reader = csv::Reader::from_reader(ACL_MATRIX.as_bytes());
    let mut cases = 0;
    for case in reader.deserialize() {
        let case: Case = case.unwrap();
        let world = World::start().await;
        let outcome = soon(&case.case, play(&world, &case)).await;
        let expected = if case.expected == "allow" { Outcome::Allow } else { Outcome::Deny };
        let excepted = EXCEPTIONS.iter().any(|(name, _)| *name == case.case);
        if (outcome == expected) == excepted {
            wrong.push(format!("{case:?}: {outcome:?}, excepted: {excepted}"));
        }
        world.broker.shutdown().await;
        cases += 1;
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(cases, 65, "the matrix has lost or won cases");
}

async fn play(world: &World, case: &Case) -> Outcome {
    match (&case.case[..1], case.actor.as_str()) {
        ("C", _) => connect(world, case).await,
        ("S", _) => subscribe(world, case).await,
        ("P", _) if case.action.starts_with("will") => will(world, case).await,
        ("P", _) => publish(world, &case.actor, case).await,
        ("K", _) if case.action == "subscribe" => backend_subscribe(world, case).await,
        ("K", _) => publish(world, "backend", case).await,
        ("D", _) => delivery(world, case).await,
        ("L", _) => lifecycle(world, case).await,
        _ => panic!("no player for {case:?}"),
    }
}

async fn connect(world: &World, case: &Case) -> Outcome {
    let login = match case.case.as_str() {
        "C01" => Login::of("devA"),
        "C02" => Login::with_password("devA", "wrong"),
        "C03" => Login { username: None, password: None, ..Login::of("devA") },
        "C04" => Login::of("stranger"),
        "C05" => Login { client_id: "devA".to_owned(), ..Login::of("devB") },
        "C06" => Login::with_password("devA", ""),
        other => panic!("no connect case {other}"),
    };
    if case.case != "C05" {
        return accepted(world, &login).await;
    }
    let mut owner = world.connect("devA").await;
    let outcome = accepted(world, &login).await;
    assert_eq!(owner.subscribe("prod/m1/b1/product/updates").await, Answer::Granted);
    world.publish("prod/m1/b1/product/updates", "still here").await;
    assert_eq!(owner.next().await.unwrap().text(), "still here", "the owner lost its session to a stranger");
    outcome
}

/// Accepted means able to work: a subscription brings a message.
async fn accepted(world: &World, login: &Login) -> Outcome {
    let Ok(mut client) = Client::login(world.addr(), login).await else { return Outcome::Deny };
    assert_eq!(client.subscribe("prod/m1/b1/product/updates").await, Answer::Granted);
    world.publish("prod/m1/b1/product/updates", "hello").await;
    assert_eq!(client.next().await.unwrap().text(), "hello");
    Outcome::Allow
}

async fn subscribe(world: &World, case: &Case) -> Outcome {
    let filter = case.topic();
    let mut client = world.connect(&case.actor).await;
    let answer = client.subscribe(&filter).await;
    if answer == Answer::Granted {
        let topic = filter.replace('+', "product");
        world.publish(&topic, "probe").await;
        let arrived = client.next().await.unwrap();
        assert_eq!((arrived.topic.as_str(), arrived.text()), (topic.as_str(), "probe"));
        return Outcome::Allow;
    }
    if answer == Answer::Closed {
        client = world.connect(&case.actor).await;
    }
    let leaked = probe(world, &mut client).await;
    assert_eq!(leaked, [], "{filter} was refused and yet delivers");
    Outcome::Deny
}

/// Sends to every topic there is, then something the client surely gets: what it got before that leaked.
async fn probe(world: &World, client: &mut Client) -> Vec<common::client::Arrived> {
    assert_eq!(client.subscribe("prod/m1/b1/transaction/updates").await, Answer::Granted);
    for topic in PROBED {
        world.publish(topic, "probe").await;
    }
    world.publish("prod/m1/b1/transaction/updates", "last").await;
    client.before("last").await
}

/// Everyone who could see a forbidden publication, each with a topic that closes the observation.
async fn witnesses(world: &World) -> Vec<(Client, &'static str)> {
    let mut witnesses = Vec::new();
    for (name, branch) in [("devA2", "prod/m1/b1"), ("devB", "prod/m1/b2"), ("devD", "dev/m1/b1"), ("devX", "prod/m2/b7")] {
        let mut witness = world.connect(name).await;
        assert_eq!(witness.subscribe(&format!("{branch}/+/updates")).await, Answer::Granted);
        assert_eq!(witness.subscribe(&format!("{branch}/sync/head")).await, Answer::Granted);
        witnesses.push((witness, branch));
    }
    witnesses
}

async fn seen(world: &World, witnesses: Vec<(Client, &'static str)>) -> Vec<common::client::Arrived> {
    let mut seen = Vec::new();
    for (mut witness, branch) in witnesses {
        world.publish(&format!("{branch}/product/updates"), "last").await;
        seen.extend(witness.before("last").await);
    }
    seen
}

async fn publish(world: &World, actor: &str, case: &Case) -> Outcome {
    let topic = case.topic();
    let retain = case.action.contains("retained");
    let erases = case.action.contains("empty");
    let payload: &[u8] = if erases { b"" } else { b"forged" };
    if erases {
        world.retain(&topic, "head").await;
    }
    let retained = world.broker.stats().retained;
    let witnesses = witnesses(world).await;
    let mut client = world.connect(actor).await;
    let qos = if case.action.contains("qos0") { 0 } else { 1 };
    let answer = client.publish(&topic, payload, qos, retain).await;
    let seen = seen(world, witnesses).await;
    let stored = world.broker.stats().retained != retained;
    if answer == Answer::Closed {
        let what = (seen.iter().filter(|seen| seen.text() != "head").count(), stored);
        assert_eq!(what, (0, false), "{topic}: refused and yet forwarded or stored");
        return Outcome::Deny;
    }
    assert_eq!(stored, retain, "retained or not as asked");
    assert!(seen.iter().any(|seen| seen.topic == topic && seen.text() == "forged"), "{topic}: acknowledged and not forwarded");
    Outcome::Allow
}

async fn will(world: &World, case: &Case) -> Outcome {
    let witnesses = witnesses(world).await;
    let login = Login { will: Some((case.topic(), case.action.contains("retained"))), ..Login::of(&case.actor) };
    let Ok(client) = Client::login(world.addr(), &login).await else {
        assert_eq!(seen(world, witnesses).await, [], "the will of a refused connection was published");
        assert_eq!(world.broker.stats().retained, 0);
        return Outcome::Deny;
    };
    drop(client);
    Outcome::Allow
}

async fn backend_subscribe(world: &World, case: &Case) -> Outcome {
    let mut backend = world.connect("backend").await;
    let answer = backend.subscribe(&case.topic()).await;
    let witnesses = witnesses(world).await;
    world.publish("prod/m1/b1/product/updates", "probe").await;
    assert_eq!(seen(world, witnesses).await.len(), 1, "routed to the one who may have it");
    // Routing to all is over, so a leaked message would stand before these answers or right behind.
    for _ in 0..3 {
        assert_eq!(backend.ping().await, Answer::Granted);
    }
    world.broker.shutdown().await;
    assert_eq!(backend.next().await, None, "{} delivers", case.topic);
    if answer == Answer::Granted { Outcome::Allow } else { Outcome::Deny }
}

async fn delivery(world: &World, case: &Case) -> Outcome {
    let topic = case.topic();
    if case.case == "D03" {
        let mut client = Client::login(world.addr(), &Login::persistent(&case.actor)).await.unwrap();
        assert_eq!(client.subscribe(&topic).await, Answer::Granted);
        client.disconnect().await;
        world.publish(&topic, "while offline").await;
        let mut client = Client::login(world.addr(), &Login::persistent(&case.actor)).await.unwrap();
        if !client.session_present {
            return Outcome::Deny;
        }
        assert_eq!(client.next().await.unwrap().text(), "while offline");
        return Outcome::Allow;
    }
    world.retain(&topic, "head").await;
    let mut client = world.connect(&case.actor).await;
    let answer = client.subscribe(&topic).await;
    if answer == Answer::Granted {
        let head = client.next().await.unwrap();
        assert_eq!((head.text(), head.retain), ("head", true));
        return Outcome::Allow;
    }
    assert_eq!(client.subscribe("prod/m1/b2/inventory/updates").await, Answer::Granted);
    world.publish("prod/m1/b2/inventory/updates", "last").await;
    assert_eq!(client.before("last").await, [], "a head of another branch");
    Outcome::Deny
}

async fn lifecycle(world: &World, case: &Case) -> Outcome {
    match case.case.as_str() {
        "L01" | "L02" => {
            let mut client = world.connect("devR").await;
            world.registry.revoke("devR");
            assert_eq!(world.broker.kick(&DeviceId::parse("devR").unwrap()).await, Kicked::Closed);
            client.closed().await;
            if case.case == "L01" { Outcome::Deny } else { accepted(world, &Login::of("devR")).await }
        }
        "L03" => {
            world.registry.add("devR", "new", device("devR", scope("prod", "m1", "b1")));
            assert_eq!(accepted(world, &Login::with_password("devR", "new")).await, Outcome::Allow);
            accepted(world, &Login::of("devR")).await
        }
        "L04" => {
            world.registry.add("devN", "pw-devN", device("devN", scope("prod", "m1", "b1")));
            accepted(world, &Login::of("devN")).await
        }
        "L05" => moved(world, true).await,
        other => panic!("no lifecycle case {other}"),
    }
}

/// A device with a kept session moves to another branch, and the server kicks it, or fails to.
async fn moved(world: &World, kicked: bool) -> Outcome {
    let mut client = Client::login(world.addr(), &Login::persistent("devM")).await.unwrap();
    assert_eq!(client.subscribe("prod/m1/b1/product/updates").await, Answer::Granted);
    client.disconnect().await;
    world.registry.add("devM", "pw-devM", device("devM", scope("prod", "m1", "b2")));
    if kicked {
        assert_eq!(world.broker.kick(&DeviceId::parse("devM").unwrap()).await, Kicked::Closed);
    }
    world.publish("prod/m1/b1/product/updates", "of the old branch").await;
    let mut client = Client::login(world.addr(), &Login::persistent("devM")).await.unwrap();
    world.publish("prod/m1/b1/product/updates", "of the old branch").await;
    assert_eq!(client.subscribe("prod/m1/b2/product/updates").await, Answer::Granted);
    world.publish("prod/m1/b2/product/updates", "last").await;
    if client.before("last").await.is_empty() { Outcome::Deny } else { Outcome::Allow }
}

#[tokio::test]
async fn a_moved_device_loses_its_old_session_even_without_a_kick() {
    let world = World::start().await;
    assert_eq!(moved(&world, false).await, Outcome::Deny);
}
