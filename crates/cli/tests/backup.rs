//! A backup made while the server is written to, and what becomes of a till that is ahead of it.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use serde_json::Value;
use support::{Server, binary, http};

/// Moves stock through the API until told to stop; counts what was acknowledged.
fn write(server: &Server, token: &str, stop: &AtomicBool, acknowledged: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let n = acknowledged.load(Ordering::Relaxed);
        let id = format!("019aa9a4-0000-7000-8000-{n:012}");
        let body =
            format!(r#"{{"moves":[{{"id":"{id}","collection":"product","item_id":"SKU-00009","quantity":"1","reason":"a delivery"}}]}}"#);
        let answer = http(server.http(), "POST", "/v1/admin/merchants/m1/branches/b1/stock-moves", Some(token), &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

fn transactions(server: &Server, token: &str) -> usize {
    let answer = http(server.http(), "GET", "/v1/admin/merchants/m1/branches/b1/transactions", Some(token), "");
    let page: Value = serde_json::from_str(&answer.body).unwrap();
    page["items"].as_array().unwrap().len()
}

fn backup(server: &Server, to: &Path) -> Value {
    let output = binary().args(["backup", "--json", "--data-dir"]).arg(server.data_dir()).arg("--to").arg(to).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_backup_under_load_is_whole_and_sales_after_it_are_handed_in_again() {
    let server = Server::start();
    server.admin(&["trigger", "shop", "m1/b1"]);
    let token = std::fs::read_to_string(server.data_dir().join("admin.token")).unwrap().trim().to_owned();
    let (db, to) = (server.dir.path().join("till.db"), server.dir.path().join("copy"));
    let claim = server.claim("m1/b1", "till");
    server.till(&db, Some(&claim), "sync\nsell SKU-00001 3\ndrain\nquit\n");

    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, made, after) = std::thread::scope(|scope| {
        scope.spawn(|| write(&server, &token, &stop, &acknowledged));
        while acknowledged.load(Ordering::Relaxed) < 20 {
            std::thread::yield_now();
        }
        let before = acknowledged.load(Ordering::Relaxed);
        let made = backup(&server, &to);
        let during = acknowledged.load(Ordering::Relaxed);
        // The writer was not stopped by it.
        while acknowledged.load(Ordering::Relaxed) < during + 5 {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        (before, made, acknowledged.load(Ordering::Relaxed))
    });
    let commits = made["commits"].as_u64().unwrap();
    assert!(commits > before, "what was answered before is in it: {made}, {before} moves");
    server.till(&db, None, "sync\nsell SKU-00001 2\ndrain\nquit\n");
    assert_eq!(transactions(&server, &token), 2);

    let server = server.killed(|dir| {
        std::fs::rename(dir.join("shop"), dir.join("lost")).unwrap();
        let restored = binary().args(["restore", "--from"]).arg(&to).arg("--data-dir").arg(dir.join("shop")).output().unwrap();
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    });
    assert_eq!(transactions(&server, &token), 1, "the second sale came after the backup");
    let back = server.till(&db, None, "sync\ndrain\nsync\nshow SKU-00001\nquit\n");
    assert!(back.contains("SKU-00001  95 "), "{back}");
    assert_eq!(transactions(&server, &token), 2, "handed in again, once");
    let alarms = http(server.http(), "GET", "/v1/admin/alarms", Some(&token), "").body;
    assert!(alarms.contains("restored_from_backup"), "{alarms}");
    let stock = http(server.http(), "GET", "/v1/admin/merchants/m1/branches/b1/stock-moves?limit=1000", Some(&token), "").body;
    let kept = stock.matches("a delivery").count() as u64;
    assert!((before..=after).contains(&kept), "{before} ≤ {kept} ≤ {after}");
    server.admin(&["verify"]);
}

#[test]
fn nothing_is_overwritten_and_nothing_damaged_is_restored() {
    let server = Server::start();
    server.admin(&["trigger", "shop", "m1/b1"]);
    let to = server.dir.path().join("copy");
    backup(&server, &to);
    let refused = |args: &[&str], dirs: [&Path; 2], code: i32, what: &str| {
        let output = binary().args(args).arg(dirs[0]).arg("--data-dir").arg(dirs[1]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(what), "{said}");
    };
    refused(&["backup", "--to"], [&to, &server.data_dir()], 2, "is there already");
    refused(&["backup", "--to"], [&server.dir.path().join("x"), server.dir.path()], 2, "holds no embedded database");
    refused(&["restore", "--from"], [&to, &server.data_dir()], 2, "is there already");
    let fresh = server.dir.path().join("fresh");
    std::fs::rename(to.join("master.key"), to.join("mislaid")).unwrap();
    refused(&["restore", "--from"], [&to, &fresh], 2, "master.key is missing");
    assert!(!fresh.exists() && !server.dir.path().join("fresh.partial").exists(), "nothing half made is left");
    std::fs::rename(to.join("mislaid"), to.join("master.key")).unwrap();
    let copy = to.join("mstore.db");
    let mut bytes = std::fs::read(&copy).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&copy, bytes).unwrap();
    refused(&["restore", "--from"], [&to, &fresh], 1, "damaged");
}
