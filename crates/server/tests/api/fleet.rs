//! Whether every till is fresh: what reports come to, by branch and as service levels.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::shop::{DEADLINE, Shop, Till};

async fn report(shop: &Shop, till: &Till, more: Value) {
    let mut report = json!({
        "state": "live", "cursor": shop.cursor(till).await, "queue_depth": 0, "oldest_pending_s": 0,
        "started_at": "2026-11-22T06:00:00.000Z", "device_time": "2026-11-22T06:41:00.123Z"
    });
    report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = shop.call(Method::POST, "/v1/devices/self/report", &till.bearer(), Some(report)).await;
    assert_eq!(answer.status, 204);
}

/// Asks for the overview until it is as it should be.
async fn overview(shop: &Shop, query: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let reached = timeout(DEADLINE, async {
        loop {
            last = shop.admin(Method::GET, &format!("/overview{query}"), Value::Null).await.ok();
            if holds(&last) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(reached.await.is_ok(), "{last}");
    last
}

fn level<'a>(levels: &'a Value, window: &str, name: &str) -> &'a Value {
    let windows = levels["windows"].as_array().unwrap();
    let window = windows.iter().find(|each| each["window"] == window).unwrap();
    window["levels"].as_array().unwrap().iter().find(|level| level["name"] == name).unwrap()
}

#[tokio::test]
async fn the_overview_counts_tills_by_branch_and_shows_the_worst_first() {
    let shop = Shop::open_with(|config| config.timing.fleet_interval = Duration::from_millis(20)).await;
    let (fresh, polling) = (shop.enrol("till-1", "b1").await, shop.enrol("till-2", "b1").await);
    shop.enrol("till-3", "b2").await;
    shop.claim("till-4", "b2").await;
    report(&shop, &fresh, json!({})).await;
    report(&shop, &polling, json!({"state": "polling", "queue_depth": 4, "oldest_pending_s": 60, "dead_letters": 1})).await;
    let seen = overview(&shop, "", |seen| {
        seen["total"]["devices"] == 3 && seen["branches"][0]["fresh"] == 1 && seen["branches"][0]["catching_up"] == 1
    })
    .await;
    assert_eq!((&seen["branches"][0]["branch"], &seen["branches"][0]["queue"]), (&json!("b1"), &json!(4)));
    assert!(seen["branches"][0]["queue_oldest_s"].as_u64().unwrap() >= 60);
    assert_eq!(seen["branches"][1]["stale"], 1, "enrolled, and never heard of: {seen}");
    let worst: Vec<&Value> = seen["worst"].as_array().unwrap().iter().map(|till| &till["device_id"]).collect();
    assert_eq!(worst, ["till-3", "till-2"]);
    let page = shop.admin(Method::GET, "/overview?limit=1", Value::Null).await.ok();
    assert_eq!((page["branches"].as_array().unwrap().len(), &page["next"]), (1, &json!("m1/b1")));
    let rest = shop.admin(Method::GET, "/overview?limit=1&after=m1/b1", Value::Null).await.ok();
    assert_eq!((&rest["branches"][0]["branch"], &rest["worst"]), (&json!("b2"), &json!([])));
    assert_eq!(shop.admin(Method::GET, "/overview?merchant=other", Value::Null).await.ok()["total"]["devices"], 0);
    let metrics = shop.http.get(shop.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        r#"mstore_devices{branch="m1/b1"} 2"#,
        r#"mstore_devices_stale{branch="m1/b2"} 1"#,
        r#"mstore_device_dead_letters{branch="m1/b1"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_report_is_held_against_the_head() {
    let shop = Shop::open_with(|config| config.timing.fleet_interval = Duration::from_millis(20)).await;
    let till = shop.enrol("till-1", "b1").await;
    let before = shop.cursor(&till).await;
    shop.put_product("tea", 1).await;
    report(&shop, &till, json!({"cursor": before, "digests": {"product": "00000000000000000000000000000000"}})).await;
    let fleet = async || shop.admin(Method::GET, "/fleet", Value::Null).await.ok()["items"][0].clone();
    assert_eq!((&fleet().await["health"], &fleet().await["digests_equal"]), (&json!("fresh"), &Value::Null));
    report(&shop, &till, json!({"digests": {"product": "00000000000000000000000000000000"}})).await;
    assert_eq!(fleet().await["digests_equal"], false, "it has all commits, and other rows");
    assert_eq!(fleet().await["transport"], "mqtt");
    assert!(fleet().await["clock_skew_ms"].as_i64().unwrap() < 0, "its clock stands in the past");
}

#[tokio::test]
async fn service_levels_add_up_what_reports_say_and_outlive_the_server() {
    let shop = Shop::open().await;
    let (one, two) = (shop.enrol("till-1", "b1").await, shop.enrol("till-2", "b2").await);
    let counted = |changes: u64, fallback: u64, fresh: u64, quick: u64| {
        json!({
            "counters": {"changes_mqtt": changes, "changes_fallback": fallback, "online_ms": 60_000, "fresh_ms": fresh},
            "latency": {"bounds_ms": [5, 100], "counts": [quick, 1, 0]},
        })
    };
    report(&shop, &one, counted(40, 0, 60_000, 98)).await;
    report(&shop, &one, counted(90, 0, 60_000, 198)).await;
    report(&shop, &two, counted(8, 2, 30_000, 0)).await;
    let levels = shop.admin(Method::GET, "/levels", Value::Null).await.ok();
    for window in ["5m", "1h", "24h", "30d"] {
        assert_eq!(level(&levels, window, "fallback_rate")["value"], 0.02);
        assert_eq!(level(&levels, window, "fallback_rate")["met"], false);
        assert_eq!(level(&levels, window, "freshness")["value"], 0.75);
        assert_eq!(level(&levels, window, "latency_p99_ms")["value"], 5.0);
    }
    assert_eq!(level(&levels, "5m", "publish_success")["met"], true, "{levels}");
    let elsewhere = shop.admin(Method::GET, "/levels?merchant=other", Value::Null).await.ok();
    assert_eq!(level(&elsewhere, "5m", "freshness")["value"], Value::Null);
    let shop = shop.reopen().await;
    let levels = shop.admin(Method::GET, "/levels?merchant=m1", Value::Null).await.ok();
    assert_eq!(level(&levels, "1h", "freshness")["value"], 0.75);
    let metrics = shop.http.get(shop.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(!metrics.contains("till-1"), "labelled by branch, never by device");
}
