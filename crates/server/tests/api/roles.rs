//! Every route that takes an admin token, with the token of another merchant, of another role, and with one that ended.

use mstore_protocol::Code;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    mqtt::Mqtt,
    routes::{Route, routes},
    shop::{Answer, Shop, Till},
    strangers::{SECRET, Town, assert_refused},
};

/// What only a platform token opens.
const PLATFORM_ONLY: &[&str] = &[
    "PUT /v1/admin/merchants/{merchant}",
    "POST /v1/admin/verify",
    "POST /v1/admin/tokens",
    "POST /v1/admin/tokens/{name}/rotate",
    "POST /v1/admin/tokens/{name}/revoke",
];

fn for_admins() -> Vec<Route> {
    routes().into_iter().filter(|route| route.roles.iter().any(|role| role == "admin")).collect()
}

/// Nothing of the merchant m1.
#[track_caller]
fn assert_nothing_of_m1(answer: &Answer, what: &str) {
    let body = String::from_utf8_lossy(&answer.body);
    for own in [SECRET, "Name of tea", "\"m1\"", "m1/b", "till-1\"", "till-2\""] {
        assert!(!body.contains(own), "{what}: {own} in {body}");
    }
}

#[tokio::test]
async fn the_token_of_another_merchant_opens_nothing_of_this_one() {
    let town = Town::open().await;
    let desk = town.shop.token("desk", "merchant", Some("m2")).await;
    let reader = town.shop.token("reader", "read_only", Some("m2")).await;
    let mut walked = 0;
    for route in for_admins().iter().filter(|route| route.path != "/v1/admin/tail") {
        let names_m1 = route.path.contains("{merchant}");
        for (who, token) in [("desk", &desk), ("reader", &reader)] {
            let what = format!("{} by {who} of m2", route.name());
            let answer = town.call(route, token).await;
            walked += 1;
            let is_refused_by_role = who == "reader" && route.method != Method::GET || PLATFORM_ONLY.contains(&&*route.name());
            if names_m1 || is_refused_by_role {
                assert_refused(&answer, StatusCode::FORBIDDEN, &what);
            } else if route.path.contains("{device}") {
                // As if it did not exist; what the request itself says comes back.
                assert_refused(&answer, StatusCode::NOT_FOUND, &what);
            } else {
                assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
                assert_nothing_of_m1(&answer, &what);
            }
        }
    }
    assert!(walked >= 100, "{walked}");
}

#[tokio::test]
async fn a_token_that_only_reads_changes_nothing() {
    let town = Town::open().await;
    let everywhere = town.shop.token("auditor", "read_only", None).await;
    let of_m1 = town.shop.token("m1-auditor", "read_only", Some("m1")).await;
    let before = town.shop.admin(Method::GET, "/audit?limit=1000", Value::Null).await.ok();
    for route in for_admins().iter().filter(|route| route.path != "/v1/admin/tail") {
        for token in [&everywhere, &of_m1] {
            let answer = town.call(route, token).await;
            if route.method == Method::GET {
                assert!(![401, 403].contains(&answer.status.as_u16()), "{}: {}", route.name(), answer.status);
            } else {
                assert_refused(&answer, StatusCode::FORBIDDEN, &route.name());
            }
        }
    }
    assert_eq!(town.shop.admin(Method::GET, "/audit?limit=1000", Value::Null).await.ok(), before, "nothing was done");
}

#[tokio::test]
async fn a_merchants_token_opens_its_own_merchant_and_no_more() {
    let town = Town::open().await;
    let desk = town.shop.token("desk", "merchant", Some("m1")).await;
    for route in for_admins().iter().filter(|route| route.path != "/v1/admin/tail") {
        if PLATFORM_ONLY.contains(&&*route.name()) {
            assert_refused(&town.call(route, &desk).await, StatusCode::FORBIDDEN, &route.name());
        } else if route.method == Method::GET {
            let answer = town.call(route, &desk).await;
            assert!(![401, 403].contains(&answer.status.as_u16()), "{}: {}", route.name(), answer.status);
            let body = String::from_utf8_lossy(&answer.body);
            assert!(!body.contains("\"m2\"") && !body.contains("\"M1\"") && !body.contains("till-3"), "{}: {body}", route.name());
        }
    }
    let shop = &town.shop;
    let add = |merchant: &str| json!({"device_id": "till-9", "merchant": merchant, "branch": "b1"});
    let refused = shop.call(Method::POST, "/v1/admin/devices", &desk, Some(add("m2"))).await;
    refused.problem(Code::Forbidden);
    shop.call(Method::POST, "/v1/admin/devices", &desk, Some(add("m1"))).await.ok();
    for query in ["devices?merchant=m2&branch=b1", "fleet?merchant=m2&branch=b1", "audit?merchant=m2", "tail?merchant=m2"] {
        shop.call(Method::GET, &format!("/v1/admin/{query}"), &desk, None).await.problem(Code::Forbidden);
    }
    shop.call(Method::POST, "/v1/admin/devices/till-1/revoke", &desk, None).await.ok();
    shop.call(Method::POST, "/v1/admin/devices/till-3/revoke", &desk, None).await.problem(Code::NotFound);
    assert_eq!(shop.get(&town.stranger, "/v1/m2/b1/head").await.status, StatusCode::OK);
}

#[tokio::test]
async fn no_spelling_of_a_merchant_opens_another_one() {
    let town = Town::open().await;
    let desk = town.shop.token("desk", "merchant", Some("m2")).await;
    let spellings =
        ["M1", "%6d1", "m%31", "m1%20", "m1%00", "m1%2f", "m2/../m1", "m2%2f..%2fm1", "%2e%2e%2fm1", "m1;m2", "m1,m2", "m１", "*", "%2a"];
    for spelling in spellings {
        for rest in ["", "/branches", "/products", "/branches/b1/inventory", "/dead-letters", "/oversells"] {
            let path = format!("/v1/admin/merchants/{spelling}{rest}");
            let answer = town.shop.call(Method::GET, &path, &desk, None).await;
            assert!([400, 403, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
            assert!(!String::from_utf8_lossy(&answer.body).contains(SECRET), "{path}");
        }
    }
    for device in ["till-1", "TILL-1", "%74ill-1", "till-1%00", "till-3%2f..%2ftill-1", "till-1%20"] {
        let path = format!("/v1/admin/devices/{device}");
        let answer = town.shop.call(Method::GET, &path, &desk, None).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
        let body = String::from_utf8_lossy(&answer.body);
        assert!(!body.contains("\"m1\"") && !body.contains("\"b1\""), "{path}: {body}");
    }
    let own = town.shop.call(Method::GET, "/v1/admin/merchants/%6d2", &desk, None).await;
    assert_eq!(own.status, StatusCode::OK, "the same name, written otherwise");
}

#[tokio::test]
async fn a_token_that_ended_opens_nothing() {
    let town = Town::open().await;
    let revoked = town.shop.token("revoked", "platform", None).await;
    town.shop.admin(Method::POST, "/tokens/revoked/revoke", Value::Null).await.ok();
    for route in &for_admins() {
        let answer = town.call(route, &revoked).await;
        assert_refused(&answer, StatusCode::UNAUTHORIZED, &route.name());
        answer.problem(Code::CredentialsRefused);
    }
}

async fn subscribes(shop: &Shop, till: &Till, filter: &str) -> bool {
    Mqtt::connect(shop, till).await.ok().unwrap().subscribe(filter).await
}

#[tokio::test]
async fn no_spelling_of_a_topic_or_a_name_opens_another_branch_over_mqtt() {
    let town = Town::open().await;
    let filters = [
        "test/m1/b1/product/updates",
        "test/m1/b1/inventory/updates",
        "test/m1/b1/sync/head",
        "test/m1/b1/+/updates",
        "test/m1/B1/product/updates",
        "test/M1/b1/product/updates",
        "TEST/m1/b1/product/updates",
        "test/%6d1/b1/product/updates",
        "test/m1/b%31/product/updates",
        "test/m1/b1%00/product/updates",
        "test/m1/../m1/b1/product/updates",
        "/test/m1/b1/product/updates",
        "test/m1/b1/product/updates/",
        "test//m1/b1/product/updates",
        "test/m１/b1/product/updates",
        "test/+/b1/product/updates",
        "test/m1/+/product/updates",
        "+/m1/b1/product/updates",
        "test/m1/#",
        "#",
        "$share/g/test/m1/b1/product/updates",
        "test.m1.b1.product.updates",
        "test/*/b1/product/updates",
    ];
    for filter in filters {
        for till in [&town.neighbour, &town.stranger] {
            assert!(!subscribes(&town.shop, till, filter).await, "{filter} by {}", till.enrolment.device_id);
        }
    }
    assert!(subscribes(&town.shop, &town.own, filters[0]).await);
    let token = &town.own.enrolment.token;
    for device in ["TILL-1", "till-1 ", " till-1", "%74ill-1", "till-2", "till-3", "m1/till-1", "+", "#", ""] {
        assert!(Mqtt::connect_as(&town.shop, device, token).await.is_err(), "{device:?}");
    }
    for token in [town.shop.admin_token(), "bootstrap", ""] {
        assert!(Mqtt::connect_as(&town.shop, "till-1", token).await.is_err());
    }
}
