//! `serve --broker mqtt://…` with a real Mosquitto: what devices are told, and what becomes of changes made while the broker is dead.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use mstore_rig::{Mosquitto, Program, have};
use support::{Server, http, subscriber::Subscriber};

const UPDATES: &str = "dev/m1/b1/product/updates";
const HEAD: &str = "dev/m1/b1/sync/head";
const DEADLINE: Duration = Duration::from_secs(30);

/// A figure of `/metrics`.
fn figure(server: &Server, name: &str) -> u64 {
    let text = http(server.http(), "GET", "/metrics", None, "").body;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Asks again and again: every question is a request, so nobody spins.
fn until(server: &Server, name: &str, value: u64) {
    let deadline = Instant::now() + DEADLINE;
    while figure(server, name) != value {
        assert!(Instant::now() < deadline, "{name} is {} and not {value}", figure(server, name));
    }
}

#[test]
fn changes_made_while_the_broker_is_dead_are_published_when_it_is_back() {
    if !have(&[Program::Mosquitto]) {
        return;
    }
    let mut mosquitto = Mosquitto::start("");
    let server = Server::start_with(&["--broker", &mosquitto.url()]);
    server.admin(&["trigger", "shop", "m1/b1"]);
    let body = serde_json::json!({ "code": server.claim("m1/b1", "watcher"), "nonce": "watcher" }).to_string();
    let enrolment: serde_json::Value = serde_json::from_str(&http(server.http(), "POST", "/v1/devices/enrol", None, &body).body).unwrap();
    assert_eq!((&enrolment["mqtt_url"], &enrolment["ws_url"]), (&mosquitto.url().into(), &"".into()), "devices go to that broker");
    until(&server, "mstore_broker_up", 1);
    until(&server, "mstore_outbox_entries", 0);
    let before = figure(&server, "mstore_publish_acknowledged_total{branch=\"m1/b1\"}");

    mosquitto.kill();
    until(&server, "mstore_broker_up", 0);
    let ready = http(server.http(), "GET", "/readyz", None, "");
    assert!(ready.status == 503 && ready.body.contains(&mosquitto.url()), "{}", ready.body);
    for _ in 0..5 {
        server.admin(&["trigger", "stock", "m1/b1", "SKU-00003", "-1"]);
    }
    assert_eq!(figure(&server, "mstore_outbox_entries"), 5, "the backlog is kept");

    mosquitto.restart();
    let (mut watcher, _granted) = Subscriber::start(&server, "watcher", "any", &[UPDATES, HEAD]);
    until(&server, "mstore_outbox_entries", 0);
    assert_eq!(figure(&server, "mstore_publish_acknowledged_total{branch=\"m1/b1\"}"), before + 5, "each once it was acknowledged");
    assert!(figure(&server, "mstore_broker_starts") >= 2);
    server.admin(&["trigger", "stock", "m1/b1", "SKU-00003", "-1"]);
    // Those of the backlog came before it, if the watcher was there in time.
    while watcher.next(UPDATES)["changes"][0]["row"]["stock"] != "94" {}
    let head = watcher.next(HEAD);
    assert!(head["seq"].as_u64().is_some(), "a new broker is given the heads again: {head}");
}

#[test]
fn a_long_backlog_becomes_one_head() {
    if !have(&[Program::Mosquitto]) {
        return;
    }
    let mut mosquitto = Mosquitto::start("");
    let server = Server::start_with(&["--broker", &mosquitto.url(), "--outbox-per-branch-max", "3"]);
    server.admin(&["trigger", "shop", "m1/b1"]);
    until(&server, "mstore_broker_up", 1);
    until(&server, "mstore_outbox_entries", 0);
    let collapsed = figure(&server, "mstore_publish_head_only_total{branch=\"m1/b1\"}");
    mosquitto.kill();
    until(&server, "mstore_broker_up", 0);
    let before = figure(&server, "mstore_publish_attempted_total{branch=\"m1/b1\"}");
    for _ in 0..8 {
        server.admin(&["trigger", "stock", "m1/b1", "SKU-00003", "-1"]);
    }
    assert!(figure(&server, "mstore_outbox_entries") <= 3, "the backlog is bounded");

    mosquitto.restart();
    until(&server, "mstore_outbox_entries", 0);
    assert!(figure(&server, "mstore_publish_head_only_total{branch=\"m1/b1\"}") > collapsed, "devices are told to pull");
    assert!(figure(&server, "mstore_publish_attempted_total{branch=\"m1/b1\"}") < before + 8, "not one frame for each");
    let newest = http(server.http(), "GET", "/v1/m1/b1/head", Some(&server.admin_token()), "").body;
    let newest: serde_json::Value = serde_json::from_str(&newest).unwrap();
    let (mut watcher, _granted) = Subscriber::start(&server, "watcher", "any", &[HEAD]);
    assert_eq!(watcher.next(HEAD)["tag"], newest["tag"], "the head that the broker keeps is the newest");
}

#[test]
fn a_broker_that_is_not_there_does_not_keep_the_server_from_starting() {
    if !have(&[Program::Mosquitto]) {
        return;
    }
    let mut mosquitto = Mosquitto::start("");
    mosquitto.kill();
    let server = Server::start_with(&["--broker", &mosquitto.url(), "--public-mqtt-url", "mqtts://tills.example:8883"]);
    server.admin(&["trigger", "shop", "m1/b1"]);
    let answer: serde_json::Value = serde_json::from_str(&server.admin(&["device", "add", "m1/b1", "--id", "till-1", "--json"])).unwrap();
    assert_eq!(answer["mqtt_url"], "mqtts://tills.example:8883", "devices are told what the operator says");
    mosquitto.restart();
    until(&server, "mstore_broker_up", 1);
    until(&server, "mstore_outbox_entries", 0);
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    // Nobody listens there: the keeper of the connection and the publisher have something to say all the time.
    let server = Server::launch(&["--broker", "mqtt://127.0.0.1:9"], full.into());
    server.admin(&["trigger", "shop", "m1/b1"]);
    let refused = http(server.http(), "POST", "/v1/devices/enrol", None, r#"{"code":"AAAA-BBBB-CCCC","nonce":"n"}"#);
    assert_eq!(refused.status, 401, "{}", refused.body);
    let ready = http(server.http(), "GET", "/readyz", None, "");
    assert!(ready.body.contains("no broker at mqtt://127.0.0.1:9"), "no task failed: {}", ready.body);
}
