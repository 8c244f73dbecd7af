//! A till whose token changes while it works: nothing is missed, nothing is sent twice, and the old token ends.
#![allow(clippy::unwrap_used)]

mod support;

use mstore_client::{ClaimLink, Client, DeviceState, Options};
use mstore_protocol::Code;
use serde_json::json;
use support::{DEADLINE, Shop};

/// Waits until the till shows this commit.
async fn shows(till: &Client, seq: u64) {
    let mut status = till.watch_status();
    let reached = status.wait_for(|status| status.cursor.is_some_and(|cursor| cursor.seq >= seq));
    tokio::time::timeout(DEADLINE, reached).await.expect("the till shows it in time").unwrap();
}

async fn until_live(till: &Client) {
    let mut status = till.watch_status();
    tokio::time::timeout(DEADLINE, status.wait_for(|status| status.state == DeviceState::Live)).await.expect("live in time").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_changes_and_no_delta_is_missed() {
    let shop = Shop::open().await;
    let url = shop.running.http_url();
    let till = shop.till("till-1", &url, Options::default()).await;
    until_live(&till).await;
    let first = till.enrolment().token;
    let mut last = 0;
    for round in 0..5 {
        last = shop.deliver("tea", "1").await;
        let before = till.enrolment().token;
        // Deltas go on while the token changes.
        let (rotated, delivered) = tokio::join!(till.rotate(), async {
            let mut last = 0;
            for _ in 0..20 {
                last = shop.deliver("tea", "1").await;
            }
            last
        });
        rotated.unwrap();
        last = last.max(delivered);
        assert_ne!(till.enrolment().token, before, "round {round}");
        shows(&till, last).await;
    }
    until_live(&till).await;
    last = last.max(shop.deliver("tea", "1").await);
    shows(&till, last).await;
    assert_eq!(till.product("tea").unwrap().unwrap().stock.to_string(), (5 * 21 + 1).to_string());
    let http = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
    let old = http.get(format!("{url}/v1/m1/b1/head")).bearer_auth(format!("till-1:{first}")).send().await.unwrap();
    assert_eq!(old.status().as_u16(), 401, "the first token ended long ago");
    // What is on disk is what works.
    let path = till.path().to_owned();
    till.close().await;
    let again = Client::open(&path, Options::default()).await.unwrap();
    until_live(&again).await;
    again.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_rotates_by_itself_when_the_server_says_so() {
    let shop = Shop::with_max_age(std::time::Duration::from_secs(3_600)).await;
    let till = shop.till("till-1", &shop.running.http_url(), Options { report_interval: Some(DEADLINE), ..Options::default() }).await;
    until_live(&till).await;
    let first = till.enrolment().token;
    shop.ahead_ms.store(2_500_000, std::sync::atomic::Ordering::SeqCst);
    till.report_now().await;
    let another = async {
        while till.enrolment().token == first {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, another).await.expect("another token in time");
    let seq = shop.deliver("tea", "1").await;
    shows(&till, seq).await;
    till.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_of_a_qr_code_names_server_and_code() {
    let shop = Shop::open().await;
    let claim = shop.post("/devices", &json!({"device_id": "till-1", "merchant": "m1", "branch": "b1"})).await;
    let link = ClaimLink { server: shop.running.http_url(), code: claim["code"].as_str().unwrap().to_owned() };
    let db = shop.dir.path().join("till.db");
    let till = Client::enrol(&db, "http://127.0.0.1:9", &link.to_string(), Options::default()).await.unwrap();
    until_live(&till).await;
    till.close().await;
    let insecure = ClaimLink { server: "http://192.0.2.1:8080".into(), ..link };
    let refused = Client::enrol(shop.dir.path().join("other.db"), "http://127.0.0.1:9", &insecure.to_string(), Options::default()).await;
    assert_eq!(refused.unwrap_err().code(), Some(Code::InsecureUrl), "a picture does not decide where a token may travel");
}
