//! Enrolment, rotation, revocation, moves, reports, the fleet.

use mstore_protocol::Code;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    mqtt::Mqtt,
    shop::{Shop, Till},
};

#[tokio::test]
async fn a_lost_enrolment_answer_burns_nothing() {
    let shop = Shop::open().await;
    let code = shop.claim("till-1", "b1").await;
    let first = shop.redeem(&code, "nonce-12345").await.ok();
    assert_eq!(shop.redeem(&code.to_lowercase().replace('-', ""), "nonce-12345").await.ok(), first, "the same nonce, the same answer");
    shop.redeem(&code, "another-nonce").await.problem(Code::ClaimRefused);
    assert_eq!((&first["env"], &first["merchant"], &first["branch"]), (&json!("test"), &json!("m1"), &json!("b1")));
    assert_eq!(first["mqtt_url"], format!("mqtt://{}", shop.running.mqtt_addr().unwrap()));
    assert_eq!(first["ws_url"], format!("ws://{}/mqtt", shop.running.ws_addr().unwrap()));
    assert_eq!(first["collections"], json!(["inventory", "product", "transaction"]));
    assert!(first["token"].as_str().unwrap().starts_with("mst_"));
}

#[tokio::test]
async fn guessing_claim_codes_is_slowed_down() {
    let shop = Shop::open().await;
    let code = shop.claim("till-1", "b1").await;
    for _ in 0..5 {
        shop.redeem("0000-0000-0000", "nonce-12345").await.problem(Code::ClaimRefused);
    }
    let limited = shop.redeem(&code, "nonce-12345").await;
    limited.problem(Code::RateLimited);
    assert!(limited.header("retry-after").parse::<u32>().unwrap() >= 1);
}

#[tokio::test]
async fn the_old_token_ends_at_the_first_use_of_the_new() {
    let shop = Shop::open().await;
    let old = shop.enrol("till-1", "b1").await;
    let rotate = || shop.call(Method::POST, "/v1/devices/self/rotate", "", None);
    rotate().await.problem(Code::CredentialsRefused);
    let rotated = shop.call(Method::POST, "/v1/devices/self/rotate", &old.bearer(), None).await.ok();
    let again = shop.call(Method::POST, "/v1/devices/self/rotate", &old.bearer(), None).await.ok();
    assert_eq!(rotated, again, "a lost answer is given again");
    let mut new = old.clone();
    new.enrolment.token = rotated["token"].as_str().unwrap().to_owned();
    assert_ne!(new.enrolment.token, old.enrolment.token);
    assert_eq!(shop.get(&old, "/v1/m1/b1/head").await.status, StatusCode::OK, "not used yet");
    assert_eq!(shop.get(&new, "/v1/m1/b1/head").await.status, StatusCode::OK);
    shop.get(&old, "/v1/m1/b1/head").await.problem(Code::CredentialsRefused);
    assert!(Mqtt::connect(&shop, &old).await.is_err());
    assert!(Mqtt::connect(&shop, &new).await.is_ok());
}

#[tokio::test]
async fn a_new_token_used_on_mqtt_first_ends_the_old_one_too() {
    let shop = Shop::open().await;
    let old = shop.enrol("till-1", "b1").await;
    let rotated = shop.admin(Method::POST, "/devices/till-1/rotate", Value::Null).await.ok();
    let mut new = old.clone();
    new.enrolment.token = rotated["token"].as_str().unwrap().to_owned();
    assert!(Mqtt::connect(&shop, &old).await.is_ok());
    assert!(Mqtt::connect(&shop, &new).await.is_ok());
    shop.get(&old, "/v1/m1/b1/head").await.problem(Code::CredentialsRefused);
}

#[tokio::test]
async fn a_revoked_device_is_out_everywhere_at_once() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let mut mqtt = Mqtt::connect(&shop, &till).await.ok().unwrap();
    assert!(mqtt.subscribe("test/m1/b1/product/updates").await);
    let revoked = shop.admin(Method::POST, "/devices/till-1/revoke", Value::Null).await.ok();
    assert_eq!(revoked["status"], "revoked");
    assert!(mqtt.next().await.is_none(), "the connection was closed");
    let refused = shop.get(&till, "/v1/m1/b1/changes").await;
    refused.problem(Code::DeviceRevoked);
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    assert!(Mqtt::connect(&shop, &till).await.is_err());
    let mut guess = till.clone();
    guess.enrolment.token = "mst_wrong".into();
    shop.get(&guess, "/v1/m1/b1/changes").await.problem(Code::CredentialsRefused);

    // Enrolled again it has another token, and the old one stays dead.
    let again = shop.enrol_again("till-1", "b1").await;
    assert_eq!(shop.get(&again, "/v1/m1/b1/head").await.status, StatusCode::OK);
    shop.get(&till, "/v1/m1/b1/head").await.problem(Code::CredentialsRefused);
}

impl Shop {
    async fn enrol_again(&self, device: &str, branch: &str) -> Till {
        let code = self.claim(device, branch).await;
        let answer = self.redeem(&code, "another-nonce").await;
        Till { enrolment: serde_json::from_value(answer.ok()).unwrap() }
    }
}

#[tokio::test]
async fn a_moved_device_gets_nothing_of_its_old_branch() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let mut mqtt = Mqtt::connect(&shop, &till).await.ok().unwrap();
    assert!(mqtt.subscribe("test/m1/b1/product/updates").await);
    shop.admin(Method::POST, "/devices/till-1/move", json!({"branch": "b2"})).await.ok();
    assert!(mqtt.next().await.is_none());
    let mut mqtt = Mqtt::connect(&shop, &till).await.ok().unwrap();
    assert!(!mqtt.subscribe("test/m1/b1/product/updates").await);
    assert!(mqtt.subscribe("test/m1/b2/product/updates").await);
    let device = shop.admin(Method::GET, "/devices/till-1", Value::Null).await.ok();
    assert_eq!(device["branch"], "b2");
    assert_eq!(device["branches"], json!(["b1", "b2"]));
}

#[tokio::test]
async fn an_active_device_is_moved_and_never_just_added_elsewhere() {
    let shop = Shop::open().await;
    shop.enrol("till-1", "b1").await;
    let add = json!({"device_id": "till-1", "merchant": "m1", "branch": "b2"});
    let problem = shop.admin(Method::POST, "/devices", add.clone()).await.problem(Code::DeviceActive);
    assert!(problem.detail.contains("m1/b1") && problem.next.contains("device move"), "{problem}");
    let elsewhere = shop.admin(Method::POST, "/devices/till-1/move", json!({"merchant": "m2", "branch": "b2"})).await;
    let problem = elsewhere.problem(Code::Conflict);
    assert!(problem.detail.contains("belongs to merchant m1"), "{problem}");
    shop.admin(Method::POST, "/devices/till-1/move", json!({"merchant": "m1", "branch": "b2"})).await.ok();
    shop.admin(Method::POST, "/devices", add).await.ok();
}

#[tokio::test]
async fn a_device_that_is_shut_out_is_not_shown_as_it_was() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let report = json!({
        "state": "live", "cursor": shop.cursor(&till).await, "queue_depth": 3, "oldest_pending_s": 7, "device_time": "2026-11-22T06:41:00.123Z"
    });
    shop.call(Method::POST, "/v1/devices/self/report", &till.bearer(), Some(report)).await;
    let shown = async |path: &str| shop.admin(Method::GET, path, Value::Null).await.ok()["items"][0].clone();
    let fleet = shown("/fleet").await;
    assert_eq!((&fleet["state"], &fleet["lag_commits"]), (&json!("live"), &json!(0)));
    shop.admin(Method::POST, "/devices/till-1/revoke", Value::Null).await.ok();
    let (fleet, listed) = (shown("/fleet").await, shown("/devices").await);
    assert_eq!((&fleet["state"], &listed["state"]), (&json!("revoked"), &json!("revoked")));
    assert_eq!((&fleet["lag_commits"], &fleet["seq"]), (&Value::Null, &Value::Null));
    assert_eq!(fleet["report"]["queue_depth"], 3, "its last report: how much unsent work it has");
    shop.enrol_again("till-1", "b1").await;
    assert_eq!(shown("/fleet").await["state"], Value::Null, "a new life: nothing reported yet");
}

#[tokio::test]
async fn the_fleet_shows_how_far_a_device_is_behind() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    shop.enrol("till-2", "b2").await;
    let cursor = shop.cursor(&till).await;
    let report = json!({
        "state": "live", "cursor": cursor, "queue_depth": 3, "oldest_pending_s": 7, "device_time": "2026-11-22T06:41:00.123Z",
        "client_version": "1"
    });
    let reported = shop.call(Method::POST, "/v1/devices/self/report", &till.bearer(), Some(report)).await;
    assert_eq!((reported.status, reported.body.len()), (StatusCode::NO_CONTENT, 0));
    shop.put_product("tea", 1).await;
    shop.put_product("tea", 2).await;
    let fleet = shop.admin(Method::GET, "/fleet?merchant=m1&branch=b1", Value::Null).await.ok();
    let items = fleet["items"].as_array().unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!((&items[0]["device_id"], &items[0]["lag_commits"]), (&json!("till-1"), &json!(2)));
    assert_eq!(items[0]["report"]["queue_depth"], 3);
    let devices = shop.admin(Method::GET, "/devices?limit=1", Value::Null).await.ok();
    assert_eq!((&devices["items"][0]["device_id"], &devices["next"]), (&json!("till-1"), &json!("till-1")));
    let rest = shop.admin(Method::GET, "/devices?limit=1&after=till-1", Value::Null).await.ok();
    assert_eq!(rest["items"][0]["device_id"], "till-2");
}

#[tokio::test]
async fn admin_and_device_credentials_do_not_stand_in_for_each_other() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    shop.get(&till, "/v1/admin/devices").await.problem(Code::Forbidden);
    shop.call(Method::POST, "/v1/devices/self/rotate", shop.admin_token(), None).await.problem(Code::Forbidden);
    shop.call(Method::GET, "/v1/admin/devices", "msa_wrong", None).await.problem(Code::CredentialsRefused);
    let bare = shop.http.get(shop.url("/v1/admin/devices")).send().await.unwrap();
    crate::shop::Answer::of(bare).await.problem(Code::CredentialsMissing);
    let basic = shop.http.get(shop.url("/v1/admin/devices")).basic_auth("a", Some("b")).send().await.unwrap();
    crate::shop::Answer::of(basic).await.problem(Code::CredentialsRefused);
}
