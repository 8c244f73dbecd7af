//! What leaves over MQTT: frames in order, then the head; nothing lost when the broker or the server goes away.

use mstore_protocol::{ChangeOp, limits::BULK_CHANGES_MAX};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    mqtt::Mqtt,
    shop::{DEADLINE, Shop, sale},
};

#[tokio::test]
async fn commits_arrive_in_order_and_the_head_follows() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let mut mqtt = Mqtt::connect(&shop, &till).await.ok().unwrap();
    for topic in ["test/m1/b1/product/updates", "test/m1/b1/transaction/updates"] {
        assert!(mqtt.subscribe(topic).await);
    }
    let before = shop.head(&till).await;
    for n in 1..=20 {
        shop.put_product("tea", n).await;
    }
    for n in 1..=20 {
        let message = mqtt.next().await.unwrap();
        let frame = message.frame();
        assert_eq!((message.topic.as_str(), message.retained), ("test/m1/b1/product/updates", false));
        assert_eq!((frame.seq, frame.epoch), (before.seq + n, before.epoch));
        assert_eq!(frame.changes[0].op, ChangeOp::Patch);
    }
    let sold = sale(1, "tea", "1");
    let verdict = &shop.sell(&till, "b1", std::slice::from_ref(&sold)).await.ok()["verdicts"][0];
    let parts = [mqtt.next().await.unwrap().frame(), mqtt.next().await.unwrap().frame()];
    assert!(parts.iter().all(|frame| frame.parts == 2 && verdict["seq"] == frame.seq));
    assert_eq!(parts[0].ops[0].to_string(), sold["id"].as_str().unwrap());
    assert!(mqtt.subscribe("test/m1/b1/sync/head").await);
    loop {
        let message = mqtt.next().await.unwrap();
        let head = message.head();
        if head.seq == before.seq + 21 {
            assert_eq!(head.digests, shop.head(&till).await.digests);
            break;
        }
    }
}

#[tokio::test]
async fn a_bulk_change_sends_no_frames_but_a_head_to_pull() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let mut mqtt = Mqtt::connect(&shop, &till).await.ok().unwrap();
    assert!(mqtt.subscribe("test/m1/b1/product/updates").await);
    assert!(mqtt.subscribe("test/m1/b1/sync/head").await);
    let before = shop.head(&till).await;
    shop.import(BULK_CHANGES_MAX + 1).await;
    loop {
        let message = mqtt.next().await.unwrap();
        assert_eq!(message.topic, "test/m1/b1/sync/head", "no frame");
        let head = message.head();
        if head.seq > before.seq && head.pull_within_ms.is_some() {
            assert_eq!(head.pull_within_ms, Some(0), "one device need not wait");
            break;
        }
    }
}

#[tokio::test]
async fn a_broker_restart_loses_nothing_and_brings_the_heads_back() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let addr = shop.running.mqtt_addr();
    let mut mqtt = Mqtt::connect(&shop, &till).await.ok().unwrap();
    assert!(mqtt.subscribe("test/m1/b1/product/updates").await);
    shop.running.broker_stop().await;
    assert!(mqtt.next().await.is_none());
    let ready = shop.http.get(shop.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    shop.put_product("tea", 77).await;
    shop.running.broker_restart().await.unwrap();
    assert_eq!(shop.running.mqtt_addr(), addr);
    let mut mqtt = Mqtt::connect(&shop, &till).await.ok().unwrap();
    assert!(mqtt.subscribe("test/m1/b1/sync/head").await);
    let expected = shop.head(&till).await;
    loop {
        if mqtt.next().await.unwrap().head().seq == expected.seq {
            break;
        }
    }
    outbox_is_empty(&shop).await;
}

#[tokio::test]
async fn what_was_committed_before_a_stop_is_there_after_it() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    shop.running.broker_stop().await;
    shop.put_product("tea", 78).await;
    let cursor = shop.cursor(&till).await;
    let shop = shop.reopen().await;
    assert_eq!(shop.cursor(&till).await, cursor);
    outbox_is_empty(&shop).await;
    let mut mqtt = Mqtt::connect(&shop, &till).await.ok().unwrap();
    assert!(mqtt.subscribe("test/m1/b1/sync/head").await);
    assert_eq!(mqtt.next().await.unwrap().head().cursor(), cursor);
}

/// Everything was handed to the broker and acknowledged.
async fn outbox_is_empty(shop: &Shop) {
    let emptied = async {
        while shop.store.gauges().await.unwrap().outbox > 0 {
            tokio::task::yield_now().await
        }
    };
    timeout(DEADLINE, emptied).await.expect("an empty outbox");
}

#[tokio::test]
async fn a_tail_shows_what_is_published() {
    let shop = Shop::open().await;
    let url = shop.url("/v1/admin/tail?merchant=m1&branch=b1");
    let mut tail = shop.http.get(url).bearer_auth(shop.admin_token()).send().await.unwrap();
    let first = tail.chunk().await.unwrap().unwrap();
    let first: Value = serde_json::from_slice(&first).unwrap();
    assert_eq!(first["topic"], "test/m1/b1/sync/head");
    shop.put_product("tea", 79).await;
    let mut seen = String::new();
    while !seen.contains("\"frame\"") {
        seen.push_str(std::str::from_utf8(&tail.chunk().await.unwrap().unwrap()).unwrap());
    }
    let line = seen.lines().find(|line| line.contains("\"frame\"")).unwrap();
    let message: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&message["topic"], &message["frame"]["changes"][0]["id"]), (&json!("test/m1/b1/product/updates"), &json!("tea")));
    // A stream without end does not hold up the shutdown.
    timeout(DEADLINE, shop.running.shutdown()).await.unwrap();
    while let Ok(Some(_)) = tail.chunk().await {}
}

#[tokio::test]
async fn metrics_count_what_was_published_by_branch() {
    let shop = Shop::open().await;
    outbox_is_empty(&shop).await;
    let text = shop.http.get(shop.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for name in ["mstore_publish_acknowledged_total{branch=\"m1/b1\"}", "mstore_commit_to_published_seconds_bucket", "mstore_broker_up 1"] {
        assert!(text.contains(name), "{name}\n{text}");
    }
    assert!(shop.admin(Method::GET, "/fleet", Value::Null).await.ok()["items"].as_array().unwrap().is_empty());
}
