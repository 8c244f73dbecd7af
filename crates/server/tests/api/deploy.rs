//! What `deploy/` gives to operators, held against the server: every metric that a rule or a panel names is one that exists.

use std::{collections::BTreeSet, path::PathBuf, process::Command, time::Duration};

use mstore_rig::{Program, have};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::shop::{DEADLINE, Shop};

fn deploy(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file)
}

/// Every word of a text that names a metric.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("mstore_")).collect()
}

/// The names that a scrape finds: histograms by the series that they are read from.
fn exposed(text: &str) -> BTreeSet<&str> {
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let names = series.filter_map(|line| line.split(['{', ' ']).next()).filter(|name| !name.is_empty());
    names.flat_map(|name| [Some(name), name.strip_suffix("_bucket")]).flatten().collect()
}

#[tokio::test]
async fn rules_and_dashboard_name_metrics_that_exist() {
    let shop = Shop::open_with(|config| {
        config.timing.fleet_interval = Duration::from_millis(20);
        config.timing.sweep_interval = Duration::from_millis(20);
    })
    .await;
    let till = shop.enrol("till-1", "b1").await;
    let report = json!({
        "state": "live", "cursor": shop.cursor(&till).await, "queue_depth": 0, "oldest_pending_s": 0,
        "latency": {"bounds_ms": [5], "counts": [1, 0]}, "device_time": "2026-11-22T06:41:00.123Z"
    });
    shop.call(axum::http::Method::POST, "/v1/devices/self/report", &till.bearer(), Some(report)).await;
    let texts = ["prometheus/mstore.rules.yml", "grafana/mstore-sync.json"].map(|file| std::fs::read_to_string(deploy(file)).unwrap());
    let wanted: BTreeSet<&str> = texts.iter().flat_map(|text| metrics(text)).collect();
    assert!(wanted.len() > 20, "{wanted:?}");
    let mut missing = Vec::new();
    let found = timeout(DEADLINE, async {
        loop {
            let scrape = shop.http.get(shop.url("/metrics")).send().await.unwrap().text().await.unwrap();
            let exposed = exposed(&scrape);
            missing = wanted.iter().filter(|name| !exposed.contains(**name)).map(|name| (*name).to_owned()).collect();
            if missing.is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(found.await.is_ok(), "no such metrics: {missing:?}");
}

#[test]
fn the_dashboard_is_one() {
    let text = std::fs::read_to_string(deploy("grafana/mstore-sync.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10 && panels.iter().all(|panel| panel["targets"][0]["expr"].is_string()));
}

#[test]
fn the_rules_fire_when_they_should() {
    if !have(&[Program::Promtool]) {
        return;
    }
    for arguments in [["check", "rules", "mstore.rules.yml"], ["test", "rules", "mstore.rules.test.yml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(deploy("prometheus")).output().unwrap();
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
}
