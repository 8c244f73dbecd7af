//! Admin tokens and the audit log over HTTP: made, used, rotated, ended; who did what, from where.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use mstore_broker::Proxies;
use mstore_protocol::{Code, Timestamp};
use mstore_server::{AdminToken, system_clock};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    mqtt::Mqtt,
    shop::{Answer, DEADLINE, Shop, sale},
};

const DAY_MS: i64 = 86_400_000;

/// A shop whose server's clock can be put forward.
async fn shop_with_clock() -> (Shop, Arc<AtomicI64>) {
    let ahead_ms = Arc::new(AtomicI64::new(0));
    let (ahead, system) = (ahead_ms.clone(), system_clock());
    let clock = Arc::new(move || system().plus_ms(ahead.load(Ordering::SeqCst)));
    let shop = Shop::with(|config| {
        config.clock = clock;
        config.device_token_max_age = Some(Duration::from_secs(30 * 86_400));
        config.timing.upkeep_interval = Duration::from_millis(50);
    })
    .await;
    (shop, ahead_ms)
}

async fn merchants(shop: &Shop, token: &str) -> Answer {
    shop.call(Method::GET, "/v1/admin/merchants", token, None).await
}

#[tokio::test]
async fn a_token_is_shown_once_and_listed_without_its_text() {
    let shop = Shop::open().await;
    let made = shop.admin(Method::POST, "/tokens", json!({"name": "desk", "role": "merchant", "merchant": "m1"})).await.ok();
    let text = made["token"].as_str().unwrap();
    assert!(text.starts_with("msa_") && text.len() == 4 + 43);
    merchants(&shop, text).await.ok();
    let listed = shop.admin(Method::GET, "/tokens", Value::Null).await;
    let names: Vec<_> = listed.ok()["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["bootstrap", "desk"]);
    let file = std::fs::read(shop.dir.path().join("mstore.db")).unwrap();
    let log = std::fs::read(shop.dir.path().join("mstore.db-wal")).unwrap();
    for secret in [text, shop.admin_token()] {
        assert!(!String::from_utf8_lossy(&listed.body).contains(secret));
        let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!holds(&file) && !holds(&log), "the database has hashes only");
    }
    for wrong in [
        json!({"name": "a b", "role": "platform"}),
        json!({"name": "x", "role": "merchant"}),
        json!({"name": "x", "role": "platform", "merchant": "m1"}),
        json!({"name": "x", "role": "root"}),
        json!({"name": "x", "role": "platform", "expires_in_s": 0}),
    ] {
        shop.admin(Method::POST, "/tokens", wrong).await.problem(Code::MalformedRequest);
    }
}

#[tokio::test]
async fn a_rotated_token_has_an_overlap() {
    let (shop, ahead) = shop_with_clock().await;
    let old = shop.token("desk", "merchant", Some("m1")).await;
    let by_itself = shop.call(Method::POST, "/v1/admin/token/rotate", &old, Some(json!({}))).await.ok();
    let new = by_itself["token"].as_str().unwrap();
    assert_eq!((&by_itself["name"], &by_itself["own"]), (&json!("desk"), &json!(true)));
    merchants(&shop, &old).await.ok();
    merchants(&shop, new).await.ok();
    merchants(&shop, &old).await.problem(Code::CredentialsRefused);

    let rotated = shop.admin(Method::POST, "/tokens/desk/rotate", json!({"overlap_s": 3_600})).await.ok();
    let newest = rotated["token"].as_str().unwrap();
    assert_eq!(rotated["own"], false);
    merchants(&shop, newest).await.ok();
    merchants(&shop, new).await.ok();
    ahead.store(3_600_000, Ordering::SeqCst);
    merchants(&shop, new).await.problem(Code::CredentialsRefused);
    merchants(&shop, newest).await.ok();
}

#[tokio::test]
async fn a_token_ends_when_it_expires_or_is_revoked() {
    let (shop, ahead) = shop_with_clock().await;
    let body = json!({"name": "guest", "role": "read_only", "expires_in_s": 86_400});
    let guest = shop.admin(Method::POST, "/tokens", body).await.ok()["token"].as_str().unwrap().to_owned();
    let desk = shop.token("desk", "platform", None).await;
    merchants(&shop, &guest).await.ok();
    ahead.store(DAY_MS, Ordering::SeqCst);
    let expired = merchants(&shop, &guest).await;
    assert_eq!(expired.status, StatusCode::UNAUTHORIZED);
    expired.problem(Code::TokenExpired);
    shop.call(Method::POST, "/v1/admin/tokens/bootstrap/revoke", &desk, None).await.ok();
    merchants(&shop, shop.admin_token()).await.problem(Code::CredentialsRefused);
    let last = shop.call(Method::POST, "/v1/admin/tokens/desk/revoke", &desk, None).await;
    last.problem(Code::Conflict);
}

#[tokio::test]
async fn a_revoked_token_stops_watching_too() {
    let shop = Shop::open().await;
    let watcher = shop.token("watcher", "read_only", None).await;
    let mut tail = shop.http.get(shop.url("/v1/admin/tail")).bearer_auth(&watcher).send().await.unwrap();
    assert!(tail.chunk().await.unwrap().is_some());
    shop.admin(Method::POST, "/tokens/watcher/revoke", Value::Null).await.ok();
    let to_its_end = async { while tail.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(DEADLINE, to_its_end).await.expect("the watching ends");
}

#[tokio::test]
async fn an_old_file_brings_no_token_back() {
    let shop = Shop::open().await;
    let old = shop.admin_token().to_owned();
    let new = shop.admin(Method::POST, "/token/rotate", json!({})).await.ok()["token"].as_str().unwrap().to_owned();
    merchants(&shop, &new).await.ok();
    let shop = shop.reopen().await;
    merchants(&shop, &old).await.problem(Code::CredentialsRefused);
    merchants(&shop, &new).await.ok();
    // Whoever can write the server's file has the server: that is the way back in.
    let fresh = AdminToken::generate();
    let shop = shop.reopen_with(|secrets| secrets.admin_token = fresh.clone()).await;
    merchants(&shop, fresh.reveal()).await.ok();
    merchants(&shop, &new).await.problem(Code::CredentialsRefused);
}

async fn acts(shop: &Shop, query: &str) -> Vec<Value> {
    shop.admin(Method::GET, &format!("/audit?{query}"), Value::Null).await.ok()["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_from_where() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let desk = shop.token("desk", "merchant", Some("m1")).await;
    shop.call(Method::POST, "/v1/devices/self/rotate", &till.bearer(), None).await.ok();
    shop.call(Method::POST, "/v1/admin/devices/till-1/move", &desk, Some(json!({"branch": "b2"}))).await.ok();
    shop.call(Method::POST, "/v1/admin/devices/till-1/revoke", &desk, None).await.ok();
    let about = acts(&shop, "device=till-1").await;
    let told: Vec<_> = about.iter().rev().map(|act| (act["action"].as_str().unwrap(), act["actor"].as_str().unwrap())).collect();
    let expected = [
        ("device.claimed", "bootstrap"),
        ("device.enrolled", "till-1"),
        ("device.rotated", "till-1"),
        ("device.moved", "desk"),
        ("device.revoked", "desk"),
    ];
    assert_eq!(told, expected);
    assert!(about.iter().all(|act| act["address"] == "127.0.0.1" && act["merchant"] == "m1"), "{about:?}");
    assert_eq!(acts(&shop, "actor=desk&action=device.moved").await.len(), 1);
    let now = (system_clock())();
    assert!(acts(&shop, &format!("since={}", now.plus_ms(60_000))).await.is_empty());
    let all = serde_json::to_string(&acts(&shop, "limit=1000").await).unwrap();
    for secret in [&*till.enrolment.token, &*desk, shop.admin_token()] {
        assert!(!all.contains(secret));
    }
    let seen = shop.call(Method::GET, "/v1/admin/audit", &desk, None).await.ok();
    let seen = seen["items"].as_array().unwrap();
    assert!(seen.iter().all(|act| act["merchant"] == "m1") && seen.len() == about.len() + 1, "{seen:?}");
}

#[tokio::test]
async fn only_a_named_proxy_says_where_somebody_calls_from() {
    let claims = async |trusted: &str| {
        let shop = Shop::with(|config| config.proxies = Proxies::parse(trusted).unwrap()).await;
        let body = json!({"device_id": "till-1", "merchant": "m1", "branch": "b1"});
        let request = shop.http.post(shop.url("/v1/admin/devices")).bearer_auth(shop.admin_token()).json(&body);
        Answer::of(request.header("x-forwarded-for", "203.0.113.9").send().await.unwrap()).await.ok();
        acts(&shop, "action=device.claimed").await[0]["address"].clone()
    };
    assert_eq!(claims("").await, "127.0.0.1");
    assert_eq!(claims("127.0.0.0/8").await, "203.0.113.9");
}

#[tokio::test]
async fn a_lost_till_is_shut_out_and_its_unsent_sales_come_in_by_an_operator() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    shop.sell(&till, "b1", &[sale(1, "tea", "1")]).await.ok();
    let report = json!({
        "state": "offline", "cursor": null, "queue_depth": 2, "oldest_pending_s": 70, "device_time": "2026-11-22T06:41:00.123Z"
    });
    let reported = shop.call(Method::POST, "/v1/devices/self/report", &till.bearer(), Some(report)).await;
    assert_eq!(reported.status, StatusCode::NO_CONTENT);
    let mut mqtt = Mqtt::connect(&shop, &till).await.ok().unwrap();
    let lost = shop.admin(Method::POST, "/devices/till-1/lost", Value::Null).await.ok();
    let begun = std::time::Instant::now();
    assert!(mqtt.next().await.is_none(), "the connection was closed");
    assert!(begun.elapsed().as_secs_f64() < 1.0, "{:?}", begun.elapsed());
    assert_eq!((&lost["status"], &lost["unsent"], &lost["oldest_unsent_s"]), (&json!("revoked"), &json!(2), &json!(70)));
    assert_eq!((&lost["journals"][0]["journal_id"], &lost["journals"][0]["device_seq"]), (&json!("j1"), &json!(1)));
    assert!(lost["lost_at"].is_string() && lost["next"].as_str().unwrap().contains("hand-in"));

    // It turned up: what it has not sent is handed in for it, while it can neither read nor send.
    shop.get(&till, "/v1/m1/b1/changes").await.problem(Code::DeviceRevoked);
    let own_upload = json!({"journal_id": "j1", "clock_offset_ms": 0, "operations": [sale(2, "tea", "1")]});
    shop.call(Method::POST, "/v1/m1/b1/operations", &till.bearer(), Some(own_upload)).await.problem(Code::DeviceRevoked);
    let file = json!({
        "format": "mstore-journal-1", "device_id": "till-1", "merchant": "m1", "branch": "b1", "exported_at": (system_clock())(),
        "journal_id": "j1", "clock_offset_ms": 0, "operations": [sale(2, "tea", "1"), sale(3, "cake", "2")]
    });
    let verdicts = shop.admin(Method::POST, "/devices/till-1/journal", file).await.ok();
    assert!(verdicts["verdicts"].as_array().unwrap().iter().all(|verdict| verdict["status"] == "accepted"), "{verdicts}");
    shop.get(&till, "/v1/m1/b1/changes").await.problem(Code::DeviceRevoked);
    let told: Vec<_> = acts(&shop, "device=till-1").await.iter().map(|act| act["action"].clone()).collect();
    assert_eq!(told[..2], [json!("journal.handed_in"), json!("device.lost")]);
}

#[tokio::test]
async fn an_old_device_token_is_rotated_in_time_or_refused() {
    let (shop, ahead) = shop_with_clock().await;
    let till = shop.enrol("till-1", "b1").await;
    let report = async |bearer: &str| {
        let report =
            json!({"state": "live", "cursor": null, "queue_depth": 0, "oldest_pending_s": 0, "device_time": Timestamp::from_ms(0)});
        shop.call(Method::POST, "/v1/devices/self/report", bearer, Some(report)).await
    };
    assert_eq!(report(&till.bearer()).await.header("mstore-rotate"), "");
    ahead.store(21 * DAY_MS, Ordering::SeqCst);
    assert_eq!(report(&till.bearer()).await.header("mstore-rotate"), "now");
    let mut new = till.clone();
    let rotated = shop.call(Method::POST, "/v1/devices/self/rotate", &till.bearer(), None).await.ok();
    new.enrolment.token = rotated["token"].as_str().unwrap().to_owned();
    assert_eq!(report(&new.bearer()).await.header("mstore-rotate"), "");
    ahead.store(50 * DAY_MS, Ordering::SeqCst);
    assert_eq!(shop.get(&new, "/v1/m1/b1/head").await.status, StatusCode::OK);
    let mut connected = Mqtt::connect(&shop, &new).await.ok().unwrap();
    ahead.store(51 * DAY_MS, Ordering::SeqCst);
    assert!(connected.next().await.is_none(), "a connection that was opened with it is closed");
    shop.get(&new, "/v1/m1/b1/head").await.problem(Code::TokenExpired);
    assert!(Mqtt::connect(&shop, &new).await.is_err());
    shop.get(&till, "/v1/m1/b1/head").await.problem(Code::CredentialsRefused);
}
