//! A token crosses no network in the clear unless somebody chose so: every address is refused before anything is sent to it.
#![allow(clippy::unwrap_used)]

use mstore_client::{Client, Enrolment, OpenError, Options, Profile};
use mstore_protocol::Code;

/// An address that nobody has (RFC 5737).
const ELSEWHERE: &str = "192.0.2.1";

fn enrolment(mqtt_url: &str) -> Enrolment {
    let json = serde_json::json!({
        "device_id": "till-1", "token": "mst_x", "env": "test", "merchant": "m1", "branch": "b1",
        "mqtt_url": mqtt_url, "ws_url": "", "collections": ["product"]
    });
    serde_json::from_value(json).unwrap()
}

/// Offline: what is accepted is not called either.
fn options(profile: Profile) -> Options {
    Options { profile, online: false, ..Options::default() }
}

#[track_caller]
fn assert_insecure(opened: Result<Client, OpenError>, url: &str) {
    let error = opened.err().unwrap_or_else(|| panic!("{url} was accepted"));
    assert_eq!(error.code(), Some(Code::InsecureUrl), "{error}");
    assert!(error.to_string().contains(url) && error.to_string().contains("https://"), "{error}");
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("till.db");
    for url in [format!("http://{ELSEWHERE}:8080"), format!("http://127.0.0.1@{ELSEWHERE}"), "http://shop.local".to_owned()] {
        assert_insecure(Client::enrol(&path, &url, "0000-0000-0000", Options::default()).await, &url);
        assert_insecure(Client::open_with(&path, &url, enrolment("mqtts://127.0.0.1:1"), Options::default()).await, &url);
    }
    assert!(matches!(Client::open(&path, Options::default()).await, Err(OpenError::NotEnrolled)), "nothing was kept");
}

#[tokio::test]
async fn nor_to_a_broker_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("till.db");
    for url in [format!("mqtt://{ELSEWHERE}:1883"), format!("tcp://{ELSEWHERE}"), format!("ws://{ELSEWHERE}/mqtt")] {
        assert_insecure(Client::open_with(&path, "https://shop.local", enrolment(&url), Options::default()).await, &url);
        let options = Options { mqtt_url: Some(url.clone()), ..Options::default() };
        assert_insecure(Client::open_with(&path, "https://shop.local", enrolment("mqtts://shop.local"), options).await, &url);
    }
}

#[tokio::test]
async fn loopback_tls_and_the_development_profile_are_let_through() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("http://127.0.0.1:9", "mqtt://localhost:9", Profile::Production),
        ("https://192.0.2.1", "mqtts://192.0.2.1", Profile::Production),
        ("http://192.0.2.1", "mqtt://192.0.2.1", Profile::Development),
    ];
    for (n, (server, broker, profile)) in cases.into_iter().enumerate() {
        let path = dir.path().join(format!("{n}.db"));
        let till = Client::open_with(&path, server, enrolment(broker), options(profile)).await.unwrap();
        till.close().await;
    }
    let plain = dir.path().join("2.db");
    assert_insecure(Client::open(&plain, options(Profile::Production)).await, "http://192.0.2.1");
    Client::open(&plain, options(Profile::Development)).await.unwrap().close().await;
}
