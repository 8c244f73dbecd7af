//! Programs that write the tables themselves: no row they touch is missed, no transaction of theirs is shown in part.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mstore_store::Listing;

use super::fixture::*;

async fn shop(f: Fixture) -> Fixture {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    f.put_items("a", &["milk"]).await;
    f.deliver("a", "p", "10").await;
    f
}

async fn ledger_sum(f: &Fixture, at: &str, item: &str) -> i64 {
    let moves = f.store.list(Listing::StockMoves(branch(at)), None, 1000).await.unwrap().items;
    moves.iter().filter(|item_move| item_move["item_id"] == item).map(|item_move| q(item_move["effect"].as_str().unwrap()).as_milli()).sum()
}

pub async fn a_foreign_write_is_noticed_by_itself(f: Fixture) {
    let f = shop(f).await;
    let cursor = f.head("a").await.cursor();
    f.store.take_fresh();
    let wake = f.store.outbox_wake();
    (f.sql)("UPDATE product SET name = 'By hand' WHERE id = 'p'");
    tokio::time::timeout(Duration::from_secs(20), async {
        while f.head("a").await.cursor() == cursor {
            wake.notified().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(f.ask("a", Some(cursor), None).await.unwrap().ids(), ["p"]);
}

pub async fn a_catalogue_price_reaches_every_branch(f: Fixture) {
    let f = shop(f).await;
    let before = f.row("a", "product", "p").await.unwrap();
    (f.sql)("UPDATE product SET price_amount = 777 WHERE id = 'p'");
    f.settle().await;
    for at in ["a", "b"] {
        let row = f.row(at, "product", "p").await.unwrap();
        assert_eq!(row["price"]["amount"], 777);
        assert_ne!(row["updated_at"], before["updated_at"], "a writer that forgets the time gets it set");
    }
}

pub async fn a_foreign_transaction_is_one_commit(f: Fixture) {
    let f = shop(f).await;
    let head = f.head("a").await;
    (f.sql)(
        "UPDATE product SET name = 'P2' WHERE id = 'p'; UPDATE inventory SET name = 'Milk' WHERE id = 'milk'; \
         UPDATE product SET name = 'Q2' WHERE id = 'q'; UPDATE branch_product SET stock_milli = 5000 WHERE product_id = 'p' AND branch_id = 'a'",
    );
    f.settle().await;
    assert_eq!(f.head("a").await.seq, head.seq + 1);
    assert_eq!(f.ask("a", Some(head.cursor()), None).await.unwrap().ids(), ["milk", "p", "q"]);
}

pub async fn a_direct_stock_edit_becomes_a_movement(f: Fixture) {
    let f = shop(f).await;
    (f.sql)("UPDATE branch_product SET stock_milli = stock_milli - 2500 WHERE product_id = 'p' AND branch_id = 'a'");
    (f.sql)("UPDATE inventory SET quantity_milli = 4000 WHERE id = 'milk'");
    (f.sql)("INSERT INTO branch_product (merchant_id, branch_id, product_id, stock_milli) VALUES ('m', 'b', 'q', 3000)");
    f.settle().await;
    assert_eq!((f.stock("a", "p").await, ledger_sum(&f, "a", "p").await), ("7.5".into(), 7500));
    assert_eq!((f.quantity("a", "milk").await, ledger_sum(&f, "a", "milk").await), ("4".into(), 4000));
    assert_eq!((f.stock("b", "q").await, ledger_sum(&f, "b", "q").await), ("3".into(), 3000));
    f.clock.forward_s(60);
    f.accept_one("a", f.sale(1, "p", "1")).await;
    assert_eq!((f.stock("a", "p").await, ledger_sum(&f, "a", "p").await), ("6.5".into(), 6500));
}

pub async fn a_foreign_movement_moves_the_stock(f: Fixture) {
    let f = shop(f).await;
    (f.sql)(
        "INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, quantity_milli, effect_milli, reason) \
         VALUES ('m', 'a', 'x-1', 'product', 'p', -2000, -2000, 'damaged')",
    );
    f.settle().await;
    assert_eq!((f.stock("a", "p").await, ledger_sum(&f, "a", "p").await), ("8".into(), 8000));
}

pub async fn a_row_moved_to_another_branch_leaves_the_first(f: Fixture) {
    let f = shop(f).await;
    (f.sql)("UPDATE inventory SET quantity_milli = 4000 WHERE id = 'milk'");
    (f.sql)("UPDATE inventory SET branch_id = 'b' WHERE id = 'milk'");
    (f.sql)("UPDATE branch_product SET branch_id = 'b' WHERE product_id = 'p' AND branch_id = 'a'");
    f.settle().await;
    assert_eq!((f.row("a", "inventory", "milk").await, f.quantity("b", "milk").await), (None, "4".into()));
    assert_eq!((f.stock("a", "p").await, f.stock("b", "p").await), ("0".into(), "10".into()));
    assert_eq!((ledger_sum(&f, "a", "p").await, ledger_sum(&f, "b", "p").await), (0, 10_000));
    assert_eq!((ledger_sum(&f, "a", "milk").await, ledger_sum(&f, "b", "milk").await), (0, 4000));
}

pub async fn a_changed_key_is_a_deletion_and_a_row(f: Fixture) {
    let f = shop(f).await;
    let cursor = f.head("b").await.cursor();
    (f.sql)("UPDATE product SET id = 'z' WHERE id = 'q'");
    f.settle().await;
    let answer = f.ask("b", Some(cursor), None).await.unwrap();
    assert_eq!(answer.ids(), ["q", "z"]);
    assert_eq!((answer.lines[0].3.is_none(), answer.lines[1].3.is_some()), (true, true));
}

pub async fn a_foreign_branch_gets_the_catalogue(f: Fixture) {
    let f = shop(f).await;
    (f.sql)("INSERT INTO branch (merchant_id, branch_id, name) VALUES ('m', 'c', 'C')");
    f.settle().await;
    assert_eq!(f.snapshot("c").await.ids(), ["p", "q"]);
}

pub async fn a_mass_deletion_is_held_until_confirmed(f: Fixture) {
    let f = shop(f).await;
    f.put((0..150).map(|i| product(&format!("x{i:03}"))).collect()).await;
    let head = f.head("a").await;
    (f.sql)("DELETE FROM product WHERE id LIKE 'x%'");
    f.settle().await;
    let held = mstore_protocol::Head { held_since: Some(f.clock.now()), ..head.clone() };
    assert_eq!(f.head("a").await, held, "nothing leaves, and the head says so");
    assert_eq!((f.store.gauges().await.unwrap().held, f.alarms("mass_delete_held").await.len()), (2, 2));
    let unsettled = f.accept_one("a", f.sale(1, "p", "1")).await;
    assert_eq!((unsettled.status, unsettled.seq), (mstore_protocol::VerdictStatus::Accepted, None), "the sale is safe, its commit waits");
    f.write(mstore_store::SourceWrite::ConfirmHold { key: branch("a"), by: by() }).await.unwrap();
    assert_eq!(f.head("a").await.seq, head.seq + 1);
    assert_eq!(f.snapshot("a").await.ids(), ["q", "milk", "p", &unsettled.id]);
    assert_eq!(f.store.gauges().await.unwrap().held, 1, "the other branch waits for its own");
    let nothing = f.write(mstore_store::SourceWrite::ConfirmHold { key: branch("a"), by: by() }).await;
    assert!(matches!(nothing, Err(mstore_store::StoreError::Refused { .. })));
}

pub async fn a_mass_deletion_taken_back_is_forgotten(f: Fixture) {
    let f = shop(f).await;
    let many: Vec<_> = (0..150).map(|i| product(&format!("x{i:03}"))).collect();
    f.put(many.clone()).await;
    (f.sql)("DELETE FROM product WHERE id LIKE 'x%'");
    f.settle().await;
    f.put(many).await;
    // A round may look at the branches just before the rows are back; then it looks again after the pause, not before.
    for _ in 0..20 {
        f.clock.forward_s(6);
        f.settle().await;
        if f.store.gauges().await.unwrap().held == 0 {
            break;
        }
    }
    assert_eq!(f.store.gauges().await.unwrap().held, 0);
    assert_eq!(f.snapshot("b").await.lines.len(), 152);
    assert!(f.alarms("mass_delete_held").await.iter().all(|alarm| alarm.cleared_at.is_some()));
}

pub async fn a_row_that_breaks_the_rules_is_quarantined(f: Fixture) {
    let f = shop(f).await;
    let sale = f.accept_one("a", f.sale(1, "p", "1")).await;
    let before = f.row("a", "transaction", &sale.id).await;
    (f.sql)(&format!("UPDATE transactions SET body = '{{\"id\":\"{0}\",\"weight\":1.5}}' WHERE id = '{0}'", sale.id));
    f.settle().await;
    assert_eq!((f.row("a", "transaction", &sale.id).await, f.alarms("row_quarantined").await.len()), (before, 1));
}

pub async fn values_that_cannot_be_read_stop_no_other_row(f: Fixture) {
    let f = shop(f).await;
    (f.sql)(&format!("UPDATE product SET name = {} WHERE id = 'p'", f.unreadable));
    (f.sql)(&format!("UPDATE inventory SET unit = {}, quantity_milli = 1000 WHERE id = 'milk'", f.unreadable));
    (f.sql)("UPDATE branch_product SET stock_milli = 1000000000001 WHERE product_id = 'p' AND branch_id = 'a'");
    (f.sql)("INSERT INTO branch_product (merchant_id, branch_id, product_id, stock_milli) VALUES ('m', 'b', 'q', -1000000000001)");
    (f.sql)("UPDATE product SET name = 'Fine' WHERE id = 'q'");
    f.settle().await;
    assert_eq!(f.row("a", "product", "q").await.unwrap()["name"], "Fine", "the rest flows");
    assert_eq!(f.row("a", "product", "p").await.unwrap()["name"], "Product p");
    assert_eq!((f.quantity("a", "milk").await, f.stock("b", "q").await), ("0".into(), "0".into()), "devices keep what they have");
    assert_eq!(f.alarms("row_quarantined").await.len(), 4, "p at both branches, milk, and the stock of q");
    assert!(f.alarms("branch_blocked").await.is_empty());
    assert_eq!(f.store.sweep(None, 10_000).await.unwrap().differing, 4, "not what the source has");
    (f.sql)("UPDATE product SET name = 'Readable' WHERE id = 'p'");
    (f.sql)("UPDATE branch_product SET stock_milli = 1000000000000 WHERE product_id = 'p'");
    f.settle().await;
    assert_eq!(
        (f.row("b", "product", "p").await.unwrap()["name"].as_str(), f.stock("a", "p").await),
        (Some("Readable"), "1000000000".into())
    );
}
