//! A foreign MQTT client (mosquitto_sub, mosquitto_pub) with a device's credentials: sees its own branch's topics and nothing else, publishes nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::{Server, subscriber::Subscriber};

const OWN: [&str; 4] = ["dev/m1/b1/product/updates", "dev/m1/b1/inventory/updates", "dev/m1/b1/transaction/updates", "dev/m1/b1/sync/head"];

#[test]
fn sees_the_topics_of_its_own_branch() {
    if !support::have("mosquitto_sub", "sees_the_topics_of_its_own_branch") {
        return;
    }
    let server = Server::start();
    server.admin(&["trigger", "shop", "m1/b1"]);
    let token = server.token("m1/b1", "watcher");
    let (mut watcher, answer) = Subscriber::start(&server, "watcher", &token, &OWN);
    assert!(answer.trim_end().ends_with("1, 1, 1, 1"), "{answer}");
    let head = watcher.next(OWN[3]);
    assert!(head["digests"]["product"].is_string(), "the head comes by itself: {head}");

    server.admin(&["trigger", "stock", "m1/b1", "SKU-00003", "-5"]);
    let frame = watcher.next(OWN[0]);
    assert_eq!(
        (frame["type"].as_str(), frame["changes"][0]["row"]["stock"].as_str()),
        (Some("product.stock_updated"), Some("95")),
        "{frame}"
    );

    let till = server.claim("m1/b1", "till-1");
    server.till(&server.dir.path().join("till.db"), Some(&till), "sell SKU-00004 2\ndrain\nquit\n");
    // The frames of one commit come by collection: product before transaction.
    let (stock, sale) = (watcher.next(OWN[0]), watcher.next(OWN[2]));
    assert_eq!(stock["changes"][0]["row"]["stock"], "98");
    assert_eq!((sale["type"].as_str(), &sale["seq"]), (Some("transaction.created"), &stock["seq"]));
}

#[test]
fn is_refused_everything_else() {
    if !support::have("mosquitto_pub", "is_refused_everything_else") {
        return;
    }
    let server = Server::start();
    server.admin(&["trigger", "shop", "m1/b1"]);
    server.admin(&["trigger", "shop", "m1/b2"]);
    let (one, two) = (server.token("m1/b1", "one"), server.token("m1/b2", "two"));
    for topic in [
        "dev/m1/b2/product/updates",
        "dev/m1/b2/sync/head",
        "dev/m1/b1/#",
        "#",
        "$SYS/#",
        "dev/m1/+/product/updates",
        "$share/g/dev/m1/b1/product/updates",
    ] {
        let (_watcher, answer) = Subscriber::start(&server, "one", &one, &[topic]);
        assert!(answer.contains("128") || answer.contains("denied") || answer.contains("not authorised"), "{topic}: {answer}");
    }
    // Another client id with good credentials, a wrong token, no credentials.
    let (host, port) = server.mqtt();
    for (id, user, token) in [("two", "one", one.as_str()), ("one", "one", "mst_wrong"), ("one", "nobody", one.as_str())] {
        let args = ["-h", &host, "-p", &port, "-i", id, "-u", user, "-P", token, "-t", OWN[0], "-C", "1", "-W", "5"];
        let output = Command::new("mosquitto_sub").args(args).output().unwrap();
        assert!(!output.status.success(), "{id} as {user} was let in");
    }
    // What a device publishes, its will included, reaches nobody.
    let (mut watcher, _) = Subscriber::start(&server, "two", &two, &["dev/m1/b2/product/updates"]);
    let forged = r#"{"v":1,"type":"product.stock_updated","forged":true}"#;
    for topic in ["dev/m1/b2/product/updates", "dev/m1/b1/product/updates", "free/topic"] {
        let args = ["-h", &host, "-p", &port, "-i", "one", "-u", "one", "-P", &one, "-q", "1", "-r", "-t", topic, "-m", forged];
        let _ = Command::new("mosquitto_pub").args(args).output().unwrap();
    }
    let will = [
        "-h",
        &host,
        "-p",
        &port,
        "-i",
        "one",
        "-u",
        "one",
        "-P",
        &one,
        "-t",
        "x",
        "-m",
        "x",
        "--will-topic",
        OWN[0],
        "--will-payload",
        forged,
    ];
    assert!(!Command::new("mosquitto_pub").args(will).output().unwrap().status.success(), "a will was accepted");
    server.admin(&["trigger", "stock", "m1/b2", "SKU-00001", "1"]);
    let next = watcher.next("dev/m1/b2/product/updates");
    assert!(next.get("forged").is_none(), "{next}");
}
