//! The server's disk is full: refused with a code that says so, nothing lost, and all goes on by itself when there is room again.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod outage;

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use mstore_client::{Client, DeviceState, NewReceipt, Options, Quantity};
use outage::{Process, Shop, until_true};
use reqwest::Method;
use serde_json::{Value, json};

/// A small file system with a ballast on it, in a mount namespace of its own; then whatever follows. The ballast is larger than the log can
/// get: what is in the log needs its room in the database before the log gives its own back.
const MOUNT: &str = r#"mkdir -p "$0" && mount -t tmpfs -o size=24m none "$0" && head -c 14000000 /dev/zero > "$0/ballast" && exec "$@""#;

/// Runs a command with a small disk at `path`.
fn on_a_small_disk(path: &std::path::Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", MOUNT]).arg(path);
    command
}

fn may_mount(shop: &Shop) -> bool {
    let tried = on_a_small_disk(&shop.path("tried")).arg("true").stderr(Stdio::null()).status();
    let works = tried.is_ok_and(|status| status.success());
    if !works {
        assert!(
            std::env::var_os("MSTORE_TEST_SKIP_MISSING").is_some(),
            "no file system can be mounted here: unshare and user namespaces are needed"
        );
        writeln!(std::io::stdout().lock(), "\nskipped: disk_full: no file system can be mounted here").unwrap();
    }
    works
}

async fn readiness(shop: &Shop) -> (u16, Value) {
    shop.call(Method::GET, "/readyz", None, Value::Null).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_loses_nothing_and_recovers() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut shop = Shop::new();
    if !may_mount(&shop) {
        return;
    }
    let mut program = on_a_small_disk(&shop.path("shop"));
    program.arg(env!("CARGO_BIN_EXE_mstore-sync"));
    let command = Process::command(&shop, program);
    let server = Process::ready(&mut shop, command);
    shop.fill().await;
    let options = Options { seed: Some(5), ..Options::default() };
    let till = Client::enrol(shop.path("till.db"), &shop.http(), &shop.claim("till").await, options).await.unwrap();
    until_true("live", async || till.status().state == DeviceState::Live).await;
    assert_eq!(readiness(&shop).await.0, 200);

    // Write until there is no room; what was answered is counted.
    let mut written = 0;
    let refusal = loop {
        let products: Vec<Value> = (0..100)
            .map(|n| json!({"id": format!("{written}-{n}"), "sku": format!("{written}-{n}"), "name": "x".repeat(900), "price": {"amount": 1, "currency": "IDR"}}))
            .collect();
        let (status, answer) = shop.admin(Method::POST, "/merchants/m1/products", json!({"products": products})).await.unwrap();
        if status != 200 {
            break (status, answer);
        }
        written += 1;
        assert!(written < 200, "the disk never gets full");
    };
    assert_eq!((refusal.0, &refusal.1["code"], &refusal.1["retryable"]), (503, &json!("disk_full"), &json!(true)), "{}", refusal.1);
    let head = shop.admin_head().await;
    until_true("not ready", async || readiness(&shop).await.0 == 503).await;
    assert_eq!(readiness(&shop).await.1["code"], "disk_full");

    // Reading goes on, and so does selling; nothing of it is accepted.
    assert_eq!(shop.admin_head().await["seq"], head["seq"]);
    for _ in 0..3 {
        till.commit_sale(NewReceipt::of([("P", Quantity::from_units(1))])).await.unwrap();
    }
    assert!(till.drain(Duration::from_millis(500)).await.is_err());
    assert_eq!((till.status().queue_depth, till.status().dead_letters), (3, 0));

    std::fs::remove_file(format!("/proc/{}/root{}/ballast", server.pid(), shop.path("shop").display())).unwrap();
    until_true("ready again", async || readiness(&shop).await.0 == 200).await;
    till.drain(outage::DEADLINE).await.unwrap();
    assert_eq!(shop.all("/merchants/m1/branches/b1/transactions").await.len(), 3);
    let (_, verified) = shop.admin(Method::POST, "/verify", json!({})).await.unwrap();
    assert_eq!(verified["clean"], true, "{verified}");
    until_true("equal", async || {
        let head = shop.admin_head().await;
        let (cursor, digests) = till.digests();
        let same = digests.iter().all(|(name, digest)| head["digests"][name.as_str()] == json!(digest));
        same && cursor.is_some_and(|cursor| head["seq"] == cursor.seq)
    })
    .await;
    let rows = till.rows(&mstore_client::Collection::product()).unwrap().len();
    assert_eq!(rows, 2 + 100 * written, "what was answered is there, what was refused is not");
    till.close().await;
}
