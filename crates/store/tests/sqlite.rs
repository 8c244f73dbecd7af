//! The SQLite store against the suite that every backend passes, and what only SQLite can do wrong.
#![allow(clippy::unwrap_used, missing_docs)]

mod conformance;

use std::{path::Path, sync::Arc};

use conformance::{Fixture, TestClock, fixture::*};
use mstore_protocol::StockTarget;
use mstore_store::{
    MoveKind, StoreError,
    sqlite::{SqliteConfig, SqliteStore},
};
use rusqlite::Connection;

store_conformance!(sqlite, make);

async fn make() -> Option<Fixture> {
    Some(make_store())
}

fn make_store() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    open(&path, TestClock::new(), Box::new(dir))
}

fn open(path: &Path, clock: TestClock, keep: Box<dyn std::any::Any + Send>) -> Fixture {
    let config = SqliteConfig { ledger_keep_days: 400, ..SqliteConfig::new(path, clock.as_fn()) };
    let store = SqliteStore::open(config).unwrap();
    let path = path.to_owned();
    let sql = Box::new(move |statements: &str| {
        let foreign = Connection::open(&path).unwrap();
        foreign.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        foreign.execute_batch(&format!("BEGIN IMMEDIATE; {statements}; COMMIT")).unwrap();
    });
    with(store, clock, sql, keep)
}

fn with(store: Arc<SqliteStore>, clock: TestClock, sql: Box<dyn Fn(&str) + Send + Sync>, keep: Box<dyn std::any::Any + Send>) -> Fixture {
    Fixture { store, clock, sql, unreadable: "CAST(x'fffe' AS TEXT)", visits: false, keep }
}

#[tokio::test]
async fn replace_evicts_nothing_unseen() {
    let f = make_store().shop().await;
    f.put_ids(&["p", "q"]).await;
    f.deliver("a", "p", "10").await;
    let cursor = f.head("a").await.cursor();
    (f.sql)("REPLACE INTO product (merchant_id, id, sku, name, price_amount) VALUES ('m', 'q', 'new', 'New', 1)");
    (f.sql)("REPLACE INTO branch_product (merchant_id, branch_id, product_id, price_amount) VALUES ('m', 'a', 'p', 450)");
    (f.sql)("UPDATE OR REPLACE product SET id = 'q' WHERE id = 'p'");
    f.settle().await;
    assert_eq!(f.ask("a", Some(cursor), None).await.unwrap().ids(), ["p", "q"]);
    assert_eq!(f.row("a", "product", "p").await, None);
    (f.sql)("UPDATE product SET id = 'p' WHERE id = 'q'");
    f.settle().await;
    assert_eq!(f.stock("a", "p").await, "0", "REPLACE set the stock to its default, and the ledger followed");
    assert_eq!(f.store.sweep(None, 10_000).await.unwrap().differing, 0);
}

#[tokio::test]
async fn the_ledger_only_grows() {
    let f = make_store().shop().await;
    f.put_ids(&["p"]).await;
    f.deliver("a", "p", "10").await;
    let dir = f.keep.downcast_ref::<tempfile::TempDir>().unwrap();
    let foreign = Connection::open(dir.path().join("store.db")).unwrap();
    for statement in
        ["DELETE FROM stock_move", "UPDATE stock_move SET effect_milli = 0", "INSERT OR REPLACE INTO stock_move SELECT * FROM stock_move"]
    {
        let refused = foreign.execute_batch(statement).unwrap_err().to_string();
        assert!(refused.contains("the ledger only grows"), "{statement}: {refused}");
    }
}

#[tokio::test]
async fn the_sweep_finds_what_no_trigger_saw() {
    let f = make_store().shop().await;
    f.put_ids(&["p", "q", "r"]).await;
    (f.sql)(
        "DROP TRIGGER product_update; DROP TRIGGER product_delete; DROP TRIGGER product_insert; \
         UPDATE product SET name = 'unseen' WHERE id = 'p'; DELETE FROM product WHERE id = 'q'; \
         INSERT INTO product (merchant_id, id, sku, name, price_amount) VALUES ('m', 's', 's', 'S', 1)",
    );
    f.settle().await;
    let cursor = f.head("a").await.cursor();
    assert_eq!(f.store.sweep(None, 10_000).await.unwrap().differing, 6, "three rows at two branches");
    assert_eq!(f.ask("a", Some(cursor), None).await.unwrap().ids(), ["p", "q", "s"]);
    assert_eq!(f.alarms("sweep_difference").await.len(), 1);
    assert_eq!(f.store.sweep(None, 10_000).await.unwrap().differing, 0);
}

#[tokio::test]
async fn a_mirror_edited_by_hand_is_mended() {
    for damage in [
        "UPDATE mirror SET row = replace(row, 'Product p', 'Product x') WHERE id = 'p' AND head = 1",
        "UPDATE mirror SET hash = zeroblob(16) WHERE id = 'p' AND head = 1",
        "UPDATE mirror SET hash = NULL WHERE id = 'p' AND head = 1",
        "DELETE FROM mirror WHERE id = 'p' AND head = 1",
        "UPDATE head_collection SET digest = '00000000000000000000000000000001' WHERE collection = 'product' AND head = 1",
    ] {
        let f = make_store().shop().await;
        f.put_ids(&["p", "q"]).await;
        let rows = |answer: conformance::fixture::Answer| {
            let mut rows: Vec<_> = answer.lines.into_iter().map(|line| line.3).collect();
            rows.sort();
            rows
        };
        let before = rows(f.snapshot("a").await);
        (f.sql)(damage);
        let mut found = 0;
        for _ in 0..3 {
            let report = f.store.sweep(None, 10_000).await.unwrap();
            found += report.differing + report.mended;
        }
        assert!(found > 0, "{damage}");
        let answer = f.snapshot("a").await;
        assert_eq!(digests_of(&answer.lines), f.head("a").await.digests, "{damage}");
        assert_eq!(answer.summary.digests, f.head("a").await.digests, "{damage}");
        assert_eq!(rows(answer), before, "{damage}");
        let last = f.store.sweep(None, 10_000).await.unwrap();
        assert_eq!((last.differing, last.mended), (0, 0), "{damage}");
    }
}

#[tokio::test]
async fn whatever_was_answered_is_there_after_a_crash() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (path, copy) = (dir.path().join("store.db"), dir.path().join("copy.db"));
    let clock = TestClock::new();
    let f = open(&path, clock.clone(), Box::new(Arc::clone(&dir))).shop().await;
    f.put_ids(&["p"]).await;
    for n in 1..=20 {
        f.accept_one("a", f.sale(n, "p", "1")).await;
        // What a kill at this moment would leave: the file and its log as they are.
        for suffix in ["", "-wal"] {
            std::fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", copy.display())).unwrap();
        }
        let reopened = open(&copy, clock.clone(), Box::new(()));
        assert_eq!(reopened.head("a").await, f.head("a").await);
        assert_eq!(reopened.store.outbox(0, 1000).await.unwrap(), f.store.outbox(0, 1000).await.unwrap());
        assert_eq!(reopened.stock("a", "p").await, format!("-{n}"));
        reopened.store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_store_dropped_without_closing_reopens_the_same() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let path = dir.path().join("store.db");
    let clock = TestClock::new();
    let f = open(&path, clock.clone(), Box::new(Arc::clone(&dir))).shop().await;
    f.put_ids(&["p"]).await;
    f.deliver("a", "p", "1").await;
    let (head, outbox) = (f.head("a").await, f.store.outbox(0, 100).await.unwrap());
    drop(f);
    // Written while no server runs: the triggers are in the file.
    let foreign = Connection::open(&path).unwrap();
    foreign.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    foreign.execute_batch("UPDATE product SET name = 'meanwhile'").unwrap();
    let f = open(&path, clock, Box::new(dir));
    assert_eq!(f.ask("a", Some(head.cursor()), None).await.unwrap().ids(), ["p"]);
    assert_eq!(f.store.outbox(0, 100).await.unwrap()[..outbox.len()], outbox);
    assert!(f.store.take_fresh().is_empty(), "what is in the table comes first");
}

#[tokio::test]
async fn a_foreign_lock_answers_busy_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let clock = TestClock::new();
    let config = SqliteConfig { busy_timeout: std::time::Duration::from_millis(50), ..SqliteConfig::new(&path, clock.as_fn()) };
    let store = SqliteStore::open(config).unwrap();
    let f = with(store, clock, Box::new(|_| ()), Box::new(dir)).shop().await;
    f.put_ids(&["p"]).await;
    let foreign = Connection::open(&path).unwrap();
    foreign.execute_batch("BEGIN IMMEDIATE; UPDATE product SET name = 'slow writer'").unwrap();
    let busy = f.stock_move("a", MoveKind::Delta, StockTarget::Product, "p", "1").await;
    assert!(matches!(busy, Err(StoreError::Busy { .. })), "{busy:?}");
    assert_eq!(f.stock("a", "p").await, "0", "reading goes on");
    foreign.execute_batch("COMMIT").unwrap();
    f.deliver("a", "p", "2").await;
    let row = f.row("a", "product", "p").await.unwrap();
    assert_eq!((row["stock"].as_str(), row["name"].as_str()), (Some("2"), Some("slow writer")));
}

#[tokio::test]
async fn a_batch_may_leave_out_branches_but_no_mark_of_a_branch() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let config = SqliteConfig { marks_per_transaction: 10, ..SqliteConfig::new(dir.path().join("store.db"), clock.as_fn()) };
    let store = SqliteStore::open(config).unwrap();
    let f = with(store, clock, Box::new(|_| ()), Box::new(dir)).shop().await;
    let written = f.put((0..25).map(|i| product(&format!("p{i:02}"))).collect()).await;
    assert_eq!(written.seqs.len(), 2, "the answer waits for the last branch");
    for at in ["a", "b"] {
        assert_eq!((f.head(at).await.seq, f.snapshot(at).await.lines.len()), (1, 25));
    }
}

#[tokio::test]
async fn a_backlog_collapses_into_a_head() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let config = SqliteConfig { outbox_per_branch_max: 5, fresh_max: 3, ..SqliteConfig::new(dir.path().join("store.db"), clock.as_fn()) };
    let store = SqliteStore::open(config).unwrap();
    let f = with(store, clock, Box::new(|_| ()), Box::new(dir)).shop().await;
    f.put_ids(&["p"]).await;
    for _ in 0..30 {
        f.deliver("a", "p", "1").await;
        let of_a = f.store.outbox(0, 100).await.unwrap().into_iter().filter(|entry| entry.key == branch("a")).count();
        assert!(of_a <= 6, "{of_a}");
    }
    let entries = f.store.outbox(0, 100).await.unwrap();
    assert!(entries.iter().any(|entry| entry.message == mstore_store::OutboxMessage::HeadOnly));
    assert!(entries.is_sorted_by_key(|entry| entry.id));
}

#[tokio::test]
async fn an_unreadable_place_is_named() {
    let error = SqliteStore::open(SqliteConfig::new("/nonexistent/dir/store.db", TestClock::new().as_fn())).err().unwrap();
    assert!(error.to_string().contains("/nonexistent/dir/store.db"), "{error}");
}

#[tokio::test]
async fn a_branch_that_cannot_be_sequenced_is_alarmed_once() {
    for damage in [
        // It cannot be compared, then cannot be written.
        (
            "UPDATE mirror SET row = CAST(x'fffe' AS TEXT) WHERE id = 'p' AND head = 1",
            "UPDATE mirror SET row = '{}' WHERE id = 'p' AND head = 1",
        ),
        (
            "CREATE TRIGGER broken BEFORE INSERT ON commit_log WHEN new.head = 1 BEGIN SELECT raise(ABORT, 'broken'); END",
            "DROP TRIGGER broken",
        ),
    ] {
        let f = make_store().shop().await;
        f.put_ids(&["p", "q"]).await;
        let seq = f.head("a").await.seq;
        (f.sql)(damage.0);
        (f.sql)("UPDATE product SET name = 'New' WHERE id = 'p'");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while f.alarms("branch_blocked").await.is_empty() {
            assert!(std::time::Instant::now() < deadline, "{}", damage.0);
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            f.clock.forward_s(6);
            // The first attempt after a pause may take its neighbours down; it is the next that leaves the branch out.
            let _tried = f.store.upkeep().await;
            f.store.upkeep().await.unwrap();
        }
        assert_eq!((f.head("a").await.seq, f.alarms("branch_blocked").await.len()), (seq, 1), "{}", damage.0);
        assert_eq!(f.row("b", "product", "p").await.unwrap()["name"], "New", "the other branch goes on");
        (f.sql)(damage.1);
        f.clock.forward_s(6);
        f.settle().await;
        assert_eq!(f.row("a", "product", "p").await.unwrap()["name"], "New");
        assert!(f.alarms("branch_blocked").await[0].cleared_at.is_some(), "{}", damage.0);
    }
}

#[tokio::test]
async fn a_quarantine_is_alarmed_once_and_cleared_when_the_row_is_right_again() {
    let f = make_store().shop().await;
    f.put_ids(&["p", "q"]).await;
    let open = async || f.alarms("row_quarantined").await.iter().filter(|alarm| alarm.cleared_at.is_none()).count();
    // The reason changes, the row does not: one alarm at each of the two branches.
    (f.sql)("UPDATE product SET name = CAST(x'fffe' AS TEXT) WHERE id = 'p'");
    f.settle().await;
    (f.sql)("UPDATE product SET name = 'p', sku = CAST(x'fffe' AS TEXT) WHERE id = 'p'");
    f.settle().await;
    assert_eq!((open().await, f.alarms("row_quarantined").await.len()), (2, 2));
    (f.sql)("UPDATE product SET sku = 'p' WHERE id = 'p'");
    f.settle().await;
    assert_eq!((open().await, f.alarms("row_quarantined").await.len()), (0, 2));
    // Neither does the sweep overlook what no trigger saw, nor that it is over.
    (f.sql)("DROP TRIGGER product_update; UPDATE product SET name = CAST(x'fffe' AS TEXT) WHERE id = 'q'");
    for _ in 0..2 {
        assert_eq!(f.store.sweep(None, 10_000).await.unwrap().differing, 2);
        assert_eq!(open().await, 2);
    }
    (f.sql)("UPDATE product SET name = 'q' WHERE id = 'q'");
    f.store.sweep(None, 10_000).await.unwrap();
    assert_eq!((open().await, f.alarms("row_quarantined").await.len()), (0, 4));
}

#[tokio::test]
async fn an_id_that_is_not_text_stops_no_sweep() {
    let f = make_store().shop().await;
    f.put_ids(&["p", "z"]).await;
    (f.sql)(
        "DROP TRIGGER product_insert; DROP TRIGGER product_update; UPDATE product SET name = 'unseen' WHERE id = 'z'; \
         INSERT INTO product (merchant_id, id, sku, name, price_amount) VALUES ('m', CAST(x'71ff' AS TEXT), 's', 'S', 1); \
         INSERT INTO mirror (head, collection, id, seq, bucket, hash, row) VALUES (1, 'product', CAST(x'72ff' AS TEXT), 0, 0, zeroblob(16), '{}')",
    );
    let (mut from, mut slices) = (None, 0);
    loop {
        // The smallest slices end at such an id, too.
        let report = f.store.sweep(from, 1).await.unwrap();
        slices += 1;
        assert!(slices < 100, "it goes on for ever");
        from = report.next;
        if from.is_none() {
            break;
        }
    }
    f.settle().await;
    assert_eq!(f.row("a", "product", "z").await.unwrap()["name"], "unseen", "what comes after it is compared");
    assert_eq!(digests_of(&f.snapshot("a").await.lines), f.head("a").await.digests);
    let open = async || f.alarms("row_quarantined").await.iter().filter(|alarm| alarm.cleared_at.is_none()).count();
    assert_eq!(open().await, 2, "one at each branch");
    (f.sql)("DELETE FROM product WHERE id = CAST(x'71ff' AS TEXT)");
    // The mark of the deletion names it once more; the pass after that finds it gone.
    f.settle().await;
    f.store.sweep(None, 10_000).await.unwrap();
    assert_eq!(open().await, 0);
}

#[tokio::test]
async fn differences_are_one_alarm_until_a_whole_pass_finds_none() {
    let f = make_store().shop().await;
    f.put_ids(&["p", "q"]).await;
    for id in ["p", "q"] {
        (f.sql)(&format!("UPDATE mirror SET hash = zeroblob(16) WHERE head = 1 AND id = '{id}'"));
        assert_eq!(f.store.sweep(None, 10_000).await.unwrap().mended, 1);
        let alarms = f.alarms("sweep_difference").await;
        assert!(alarms.len() == 1 && alarms[0].cleared_at.is_none(), "{alarms:?}");
    }
    f.store.sweep(None, 10_000).await.unwrap();
    assert!(f.alarms("sweep_difference").await[0].cleared_at.is_some());
}

#[tokio::test]
async fn a_write_that_leaves_no_marks_is_noticed() {
    let f = make_store().shop().await;
    f.put_ids(&["p"]).await;
    let seen = f.store.gauges().await.unwrap().unexplained_writes;
    (f.sql)("UPDATE product SET name = 'marked' WHERE id = 'p'");
    f.settle().await;
    assert_eq!(f.store.gauges().await.unwrap().unexplained_writes, seen, "triggers tell what changed");
    (f.sql)("UPDATE mirror SET hash = zeroblob(16) WHERE id = 'p'");
    f.settle().await;
    assert_eq!(f.store.gauges().await.unwrap().unexplained_writes, seen + 1);
}

#[tokio::test]
async fn whoever_asks_for_sub_digests_of_an_altered_mirror_gets_mended_ones() {
    let f = make_store().shop().await;
    f.put_ids(&["p", "q"]).await;
    let name = mstore_protocol::Collection::product();
    let before = f.store.digests(&branch("a"), &name).await.unwrap().1;
    for damage in [
        "UPDATE mirror SET row = replace(row, 'Product p', 'Product x') WHERE id = 'p' AND head = 1",
        "UPDATE mirror SET row = CAST(x'fffe' AS TEXT) WHERE id = 'p' AND head = 1",
        "UPDATE mirror SET hash = zeroblob(16) WHERE id = 'p' AND head = 1",
        "DELETE FROM mirror WHERE id = 'p' AND head = 1",
    ] {
        (f.sql)(damage);
        assert_eq!(f.store.digests(&branch("a"), &name).await.unwrap().1, before, "{damage}");
        assert_eq!(f.store.sweep(None, 10_000).await.unwrap().mended, 0, "{damage}");
    }
}

#[tokio::test]
async fn a_held_branch_says_so_in_its_head_also_after_a_restart() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (path, clock) = (dir.path().join("store.db"), TestClock::new());
    let f = open(&path, clock.clone(), Box::new(Arc::clone(&dir))).shop().await;
    f.put((0..200).map(|n| product(&format!("p{n:03}"))).collect()).await;
    assert_eq!(f.head("a").await.held_since, None);
    (f.sql)("CREATE TABLE kept AS SELECT * FROM product; DELETE FROM product");
    f.settle().await;
    let since = f.head("a").await.held_since;
    assert!(since.is_some());
    f.store.close().await.unwrap();
    let f = open(&path, clock, Box::new(dir));
    assert_eq!(f.head("a").await.held_since, since);
    (f.sql)("INSERT INTO product SELECT * FROM kept");
    f.clock.forward_s(6);
    f.settle().await;
    assert_eq!(f.head("a").await.held_since, None);
}
