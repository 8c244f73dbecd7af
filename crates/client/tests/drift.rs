//! Rows altered by hand, on a till or in the server's mirror: found and mended within one poll, also when nothing else happens.
#![allow(clippy::unwrap_used)]

mod shop;

use std::time::Duration;

use mstore_client::{Collection, DeviceState, Options};
use rusqlite::Connection;
use shop::{Shop, key, until, until_true};

/// What somebody with a shell does: the guards are in the file, so they can be dropped.
fn alter(path: &std::path::Path, statements: &str) {
    let sql = Connection::open(path).unwrap();
    sql.busy_timeout(Duration::from_secs(10)).unwrap();
    let guards =
        "DROP TRIGGER IF EXISTS row_guard_insert; DROP TRIGGER IF EXISTS row_guard_update; DROP TRIGGER IF EXISTS row_guard_delete;";
    let guards = if path.ends_with("mstore.db") { "" } else { guards };
    sql.execute_batch(&format!("BEGIN IMMEDIATE; {guards} {statements}; COMMIT")).unwrap();
}

/// Short polls, and no heads over MQTT: only the poll can find anything.
fn polling() -> Options {
    Options { poll_interval: Duration::from_millis(300), ..Options::default() }
}

/// Each does what a hand with sqlite3 could do to the file of a till.
const ON_THE_TILL: &[&str] = &[
    "UPDATE row SET body = replace(body, 'Product P00003', 'Product for free') WHERE id = 'P00003'",
    "UPDATE row SET body = replace(body, 'Product', 'Produce') WHERE collection = 'product'",
    "UPDATE row SET hash = zeroblob(16) WHERE id = 'P00003'",
    "UPDATE row SET hash = NULL, body = '{}' WHERE id = 'P00003'",
    "UPDATE row SET hash = 'text' WHERE id = 'P00003'",
    "UPDATE row SET body = CAST(x'fffe' AS TEXT) WHERE id = 'P00003'",
    "UPDATE row SET id = CAST(x'fffe' AS TEXT) WHERE id = 'P00003'",
    "DELETE FROM row WHERE id = 'P00003'",
    "INSERT INTO row SELECT collection, 'P99999', seq, body, hash FROM row WHERE id = 'P00003'",
    "INSERT INTO row SELECT 'gifts', id, seq, body, hash FROM row WHERE id = 'P00003'",
    "UPDATE position SET digests = replace(digests, '\"product\":\"', '\"product\":\"00000000000000000000000000000000\",\"x\":\"')",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_till_altered_by_hand_is_mended_within_a_poll() {
    let shop = Shop::open(30).await;
    shop.running.broker_stop().await;
    let till = shop.till("till-1", polling()).await;
    until(&till, "polling", |status| status.state == DeviceState::Polling).await;
    let before = till.rows(&Collection::product()).unwrap();
    let head = shop.store.head(&key()).await.unwrap().unwrap();
    for (n, damage) in ON_THE_TILL.iter().enumerate() {
        // The hash column takes NULL only when somebody makes it.
        let damage = damage.replace("hash = NULL, ", "");
        let found = till.status().digest_mismatches;
        alter(till.path(), &damage);
        until_true(&damage, async || {
            let whole = Connection::open(till.path()).unwrap();
            let fits = "SELECT count(*) FROM row WHERE collection = 'product' AND length(hash) = 16 AND hash <> zeroblob(16)";
            let count: i64 = whole.query_row(fits, [], |row| row.get(0)).unwrap();
            let strays: i64 = whole.query_row("SELECT count(*) FROM row WHERE collection <> 'product'", [], |row| row.get(0)).unwrap();
            count == 30
                && strays == 0
                && till.rows(&Collection::product()).is_ok_and(|rows| rows == before)
                && till.status().digest_mismatches > found
        })
        .await;
        shop.same_as_server(&till).await;
        assert_eq!(shop.store.head(&key()).await.unwrap().unwrap().seq, head.seq, "nothing else happened");
        assert_eq!(till.stats().engine.snapshots, 1, "only ranges were fetched: {n} {damage}");
    }
    // The server hears of it: in the fleet and in the metrics.
    till.report_now().await;
    until_true("reported", async || shop.fleet().await["items"][0]["digest_mismatches"].as_u64().unwrap() >= ON_THE_TILL.len() as u64)
        .await;
    let metrics = shop.metrics().await;
    let counted = metrics.lines().find_map(|line| line.strip_prefix("mstore_digest_mismatch_total{branch=\"m1/b1\"} "));
    assert!(counted.unwrap().parse::<usize>().unwrap() >= ON_THE_TILL.len(), "{metrics}");
    till.close().await;
    shop.running.shutdown().await;
}

/// Each does what a hand with sqlite3 could do to the server's mirror.
const IN_THE_MIRROR: &[&str] = &[
    "UPDATE mirror SET row = replace(row, 'Product P00003', 'Product for free') WHERE id = 'P00003'",
    "UPDATE mirror SET hash = zeroblob(16) WHERE id = 'P00003'",
    "UPDATE mirror SET row = replace(row, 'Product', 'Produce'), hash = zeroblob(16) WHERE id = 'P00003'",
    "UPDATE mirror SET row = CAST(x'fffe' AS TEXT) WHERE id = 'P00003'",
    "DELETE FROM mirror WHERE id = 'P00003'",
    "INSERT INTO mirror (head, collection, id, seq, bucket, hash, row) SELECT head, collection, 'P99999', 0, bucket, hash, row FROM mirror WHERE id = 'P00003'",
    "UPDATE head_collection SET digest = '00000000000000000000000000000001' WHERE collection = 'product'",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_altered_by_hand_is_mended_within_a_poll() {
    let shop = Shop::open_with(30, |config| config.timing.sweep_interval = Duration::from_millis(100)).await;
    let till = shop.till("till-1", polling()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    let before = till.rows(&Collection::product()).unwrap();
    for damage in IN_THE_MIRROR {
        alter(&shop.dir.path().join("mstore.db"), damage);
        until_true(damage, async || shop.mirror_is_whole().await).await;
        let newcomer = shop.till(&format!("new-{}", rand::random::<u32>()), polling()).await;
        until(&newcomer, "live", |status| status.state == DeviceState::Live).await;
        for one in [&till, &newcomer] {
            until_true(damage, async || one.rows(&Collection::product()).is_ok_and(|rows| rows == before)).await;
            until_true(damage, async || shop.is_same_as_server(one).await).await;
        }
        newcomer.close().await;
    }
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_till_that_is_given_altered_rows_makes_the_server_look() {
    // The sweep sleeps: only a till that was given a wrong row can notice.
    let shop = Shop::open_with(30, |config| config.timing.sweep_interval = Duration::from_secs(3_600)).await;
    alter(
        &shop.dir.path().join("mstore.db"),
        "UPDATE mirror SET row = replace(row, 'Product P00003', 'Product for free') WHERE id = 'P00003'",
    );
    let till = shop.till("till", polling()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    until_true("mended", async || {
        let row = till.product("P00003").unwrap().unwrap();
        row.name == "Product P00003" && shop.is_same_as_server(&till).await
    })
    .await;
    assert!(till.stats().engine.digest_mismatches > 0, "{:?}", till.stats());
    assert!(shop.mirror_is_whole().await);
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_branch_does_not_look_live() {
    let shop = Shop::open(400).await;
    let till = shop.till("till-1", Options::default()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    let database = shop.dir.path().join("mstore.db");
    alter(&database, "CREATE TABLE kept AS SELECT * FROM product; DELETE FROM product");
    let held = DeviceState::Blocked(mstore_protocol::Code::BranchHeld);
    until(&till, "blocked", |status| status.state == held).await;
    assert_eq!(till.rows(&Collection::product()).unwrap().len(), 400, "what is shown stays");
    till.report_now().await;
    until_true("reported", async || shop.fleet().await["items"][0]["report"]["code"] == "branch_held").await;
    // A till that comes in meanwhile is told as well.
    let second = shop.till("till-2", Options::default()).await;
    until(&second, "blocked", |status| status.state == held).await;
    alter(&database, "INSERT INTO product SELECT * FROM kept");
    for one in [&till, &second] {
        until(one, "live again", |status| status.state == DeviceState::Live).await;
    }
    for one in [till, second] {
        one.close().await;
    }
    shop.running.shutdown().await;
}
