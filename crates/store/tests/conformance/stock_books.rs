//! The books of the stock: exceptions, goods in transit, conservation.
#![allow(clippy::unwrap_used)]

use mstore_protocol::{Code, OperationId, StockTarget};
use mstore_store::{BooksOf, Listing, MoveKind, StockPolicy, StoreError, TransferArrival};
use serde_json::{Value, json};

use super::fixture::*;

async fn stocked(f: Fixture) -> Fixture {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    for at in ["a", "b"] {
        f.put_items(at, &["milk"]).await;
        f.deliver(at, "p", "10").await;
    }
    f.clock.forward_s(60);
    f
}

fn books(settled_too: bool) -> BooksOf {
    BooksOf { merchant: merchant(), branch: None, settled_too }
}

fn transfer(f: &Fixture, seq: u64, quantity: &str, to: &str) -> Value {
    with(f.act(seq, "transfer", "product", "p", quantity), "to_branch", json!(to))
}

pub async fn oversells_are_listed_until_settled(f: Fixture) {
    let f = stocked(f).await;
    f.accept("a", vec![f.sale(1, "p", "4"), f.sale(2, "p", "6.5"), f.sale(3, "p", "1")]).await;
    let found = f.store.oversells(books(false), None, 10).await.unwrap().items;
    assert_eq!(found.len(), 2, "{found:?}");
    let (last, first) = (&found[0], &found[1]);
    assert_eq!((&first["quantity"], &first["stock_after"], &first["stock_now"]), (&json!("-6.5"), &json!("-0.5"), &json!("-1.5")));
    assert_eq!((&first["receipt_no"], &first["device"], &first["branch"]), (&json!("R-2"), &json!("till"), &json!("a")));
    f.store.settle_oversell(&merchant(), last["n"].as_u64().unwrap(), "delivery was not booked", &by()).await.unwrap();
    assert_eq!(f.store.oversells(books(false), None, 10).await.unwrap().items[..], *std::slice::from_ref(first));
    let all = f.store.oversells(books(true), None, 10).await.unwrap().items;
    assert_eq!((all.len(), &all[0]["note"]), (2, &json!("delivery was not booked")));
    let nothing = f.store.settle_oversell(&merchant(), 99, "", &by()).await;
    assert!(matches!(nothing, Err(StoreError::Refused { code: Code::NotFound, .. })));
    // A count beside the sale takes the flag in the ledger; the exception is listed all the same.
    f.stock_move("a", MoveKind::Count, StockTarget::Product, "p", "0").await.unwrap();
    let verdict = f.accept_one("a", f.sale(4, "p", "1")).await;
    assert_eq!(verdict.code, Some(Code::NearCount));
    assert_eq!(f.store.oversells(books(false), None, 10).await.unwrap().items.len(), 2);
    f.put_merchant(|m| m.stock_policy = StockPolicy::Allow).await.unwrap();
    f.accept_one("a", f.sale(5, "p", "1")).await;
    assert_eq!(f.store.oversells(books(false), None, 10).await.unwrap().items.len(), 2, "who allows it wants no list");
}

pub async fn a_transfer_in_transit_is_of_neither_branch(f: Fixture) {
    let f = stocked(f).await;
    f.store.set_transfer_arrival(&merchant(), TransferArrival::OnReceipt).await.unwrap();
    let sent = transfer(&f, 1, "4", "b");
    f.accept_one("a", sent.clone()).await;
    assert_eq!((f.stock("a", "p").await, f.stock("b", "p").await), ("6".into(), "10".into()));
    let found = f.store.transfers(books(false), None, 10).await.unwrap().items;
    assert_eq!((found.len(), &found[0]["quantity"], &found[0]["arrived_at"]), (1, &json!("4"), &Value::Null));
    assert!(f.store.imbalances(&merchant()).await.unwrap().is_empty());
    f.clock.forward_s(3600);
    let id = OperationId::parse(sent["id"].as_str().unwrap()).unwrap();
    let written = f.store.receive_transfer(&branch("b"), id).await.unwrap();
    assert_eq!(written.seqs.get(&branch("b")), Some(&f.head("b").await.seq));
    assert_eq!((f.stock("a", "p").await, f.stock("b", "p").await), ("6".into(), "14".into()));
    assert!(f.store.transfers(books(false), None, 10).await.unwrap().items.is_empty());
    assert_eq!(f.store.transfers(books(true), None, 10).await.unwrap().items.len(), 1);
    assert!(f.store.imbalances(&merchant()).await.unwrap().is_empty());
}

pub async fn a_transfer_is_received_at_its_own_branch_once(f: Fixture) {
    let f = stocked(f).await;
    f.store.set_transfer_arrival(&merchant(), TransferArrival::OnReceipt).await.unwrap();
    let sent = transfer(&f, 1, "4", "b");
    f.accept_one("a", sent.clone()).await;
    let id = OperationId::parse(sent["id"].as_str().unwrap()).unwrap();
    let elsewhere = f.store.receive_transfer(&branch("a"), id).await;
    assert!(matches!(elsewhere, Err(StoreError::Refused { code: Code::Conflict, .. })));
    let unknown = f.store.receive_transfer(&branch("b"), new_id()).await;
    assert!(matches!(unknown, Err(StoreError::Refused { code: Code::NotFound, .. })));
    for is_again in [false, true] {
        assert_eq!(f.store.receive_transfer(&branch("b"), id).await.unwrap().duplicate, is_again);
    }
    assert_eq!(f.stock("b", "p").await, "14");
}

pub async fn a_transfer_that_the_other_branch_cannot_hold_leaves_nothing(f: Fixture) {
    let f = stocked(f).await;
    f.deliver("b", "p", "999999990").await;
    let verdict = f.accept_one("a", transfer(&f, 1, "4", "b")).await;
    assert_rejected(&verdict, Code::QuantityOutOfRange);
    assert_eq!((f.stock("a", "p").await, f.stock("b", "p").await), ("10".into(), "1000000000".into()));
    assert!(f.store.transfers(books(true), None, 10).await.unwrap().items.is_empty());
    assert!(f.store.imbalances(&merchant()).await.unwrap().is_empty());
}

pub async fn transfers_come_to_nothing(f: Fixture) {
    let f = stocked(f).await;
    let milli = |text: String| q(&text).as_milli();
    let (mut seq, mut waiting) = (0, Vec::new());
    for round in 0u64..12 {
        let arrival = if round % 3 == 0 { TransferArrival::OnReceipt } else { TransferArrival::AtOnce };
        f.store.set_transfer_arrival(&merchant(), arrival).await.unwrap();
        let (from, to) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        seq += 1;
        let quantity = format!("{}.{:03}", round % 4, 7 * round + 1);
        let quantity = quantity.trim_end_matches('0').to_owned();
        let sent = transfer(&f, seq, &quantity, to);
        let journal = format!("of {from}");
        let verdict = f.accept_from(from, "till", &journal, 0, vec![sent]).await.unwrap().remove(0);
        assert_eq!(verdict.status, mstore_protocol::VerdictStatus::Accepted, "{quantity}: {verdict:?}");
        if arrival == TransferArrival::OnReceipt {
            waiting.push((to, OperationId::parse(&verdict.id).unwrap()));
        }
        if round % 5 == 4
            && let Some((to, id)) = waiting.pop()
        {
            f.store.receive_transfer(&branch(to), id).await.unwrap();
        }
        let under_way = f.store.transfers(books(false), None, 100).await.unwrap().items;
        let under_way: i64 = under_way.iter().map(|item| milli(item["quantity"].as_str().unwrap().into())).sum();
        let held = milli(f.stock("a", "p").await) + milli(f.stock("b", "p").await);
        assert_eq!(held + under_way, 20_000, "round {round}");
        assert!(f.store.imbalances(&merchant()).await.unwrap().is_empty());
    }
    (f.sql)(
        "INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, quantity_milli, effect_milli, type) \
         VALUES ('m', 'a', 'half', 'product', 'p', -5, -5, 'transfer')",
    );
    let found = f.store.imbalances(&merchant()).await.unwrap();
    assert_eq!((found.len(), found[0].item_id.as_str(), found[0].difference.to_string()), (1, "p", "-0.005".into()));
}

/// The sum of every ledger is the stock, and what was sent is what was received or is under way.
async fn assert_balanced(f: &Fixture) {
    // As the docs have it; a second row of this name is refused.
    (f.sql)(
        "INSERT INTO setting (name, value) SELECT 'ledger_closed_n', 'wrong' WHERE EXISTS (
           SELECT s.branch_id, s.product_id, s.stock_milli, sum(m.effect_milli) FROM branch_product s
             LEFT JOIN stock_move m ON m.merchant_id = s.merchant_id AND m.branch_id = s.branch_id AND m.collection = 'product' AND m.item_id = s.product_id
            GROUP BY s.branch_id, s.product_id, s.stock_milli HAVING s.stock_milli <> coalesce(sum(m.effect_milli), 0))",
    );
    let moves = f.store.list(Listing::StockMoves(branch("a")), None, 1000).await.unwrap().items;
    let of_milk = moves.iter().filter(|row| row["item_id"] == "milk");
    let sum: i64 = of_milk.map(|row| q(row["effect"].as_str().unwrap()).as_milli()).sum();
    assert_eq!(sum, q(&f.quantity("a", "milk").await).as_milli());
    assert!(f.store.imbalances(&merchant()).await.unwrap().is_empty());
    assert_eq!(f.store.sweep(None, 1000).await.unwrap().differing, 0);
}

pub async fn old_movements_are_closed(f: Fixture) {
    let f = stocked(f).await;
    // 10 delivered at each; a sends 4 to b, counts 5 although it has 6, sells 2; b sells 1.
    f.accept_one("a", transfer(&f, 1, "4", "b")).await;
    f.clock.forward_s(3600);
    f.stock_move("a", MoveKind::Count, StockTarget::Product, "p", "5").await.unwrap();
    f.clock.forward_s(3600);
    let late = f.sale(3, "p", "1");
    let late_count = f.act(4, "count", "inventory", "milk", "7");
    f.accept_one("a", f.sale(2, "p", "2")).await;
    f.accept_one("b", f.sale(1, "p", "1")).await;
    f.stock_move("b", MoveKind::Delta, StockTarget::Inventory, "milk", "3").await.unwrap();
    f.clock.forward_s(1);
    f.stock_move("a", MoveKind::Delta, StockTarget::Inventory, "milk", "2").await.unwrap();
    let moves = async |at: &str| f.store.list(Listing::StockMoves(branch(at)), None, 1000).await.unwrap().items;
    let archived = |count: u32| {
        let wrong = format!("(SELECT count(*) FROM stock_move_archive) <> {count} OR EXISTS (SELECT 1 FROM ledger_closing)");
        // A second row of this name is refused.
        (f.sql)(&format!("INSERT INTO setting (name, value) SELECT 'ledger_closed_n', 'wrong' WHERE {wrong}"));
    };
    f.store.upkeep().await.unwrap();
    archived(0);
    f.clock.forward_s(399 * 24 * 3600);
    f.deliver("a", "p", "100").await;
    f.clock.forward_s(2 * 24 * 3600);
    f.store.upkeep().await.unwrap();
    // The last count of an item stays, and what is young.
    archived(8);
    let of_p: Vec<(Value, Value)> =
        moves("a").await.iter().filter(|row| row["item_id"] == "p").map(|row| (row["type"].clone(), row["effect"].clone())).collect();
    let is = |kind: &str, effect: &str| of_p.contains(&(json!(kind), json!(effect)));
    assert!(of_p.len() == 4 && is("closing", "8") && is("transfer", "-4"), "{of_p:?}");
    assert_balanced(&f).await;
    assert_eq!((f.stock("a", "p").await, f.stock("b", "p").await), ("103".into(), "13".into()));
    // What comes late: a sale from after the count has its effect, a count from before the closing has none.
    f.accept_one("a", late).await;
    assert_eq!(f.stock("a", "p").await, "102");
    let verdict = f.accept_one("a", late_count).await;
    assert_eq!((verdict.code, f.quantity("a", "milk").await), (Some(Code::LateDelta), "2".into()));
    // Set by hand: one more movement.
    (f.sql)("UPDATE branch_product SET stock_milli = 50000 WHERE branch_id = 'b' AND product_id = 'p'");
    f.settle().await;
    // Closings of the same item become one.
    let before = moves("a").await.len();
    f.clock.forward_s(401 * 24 * 3600);
    f.store.upkeep().await.unwrap();
    assert!(moves("a").await.len() < before, "{:?}", moves("a").await);
    assert_eq!(moves("a").await.iter().filter(|row| row["item_id"] == "p" && row["type"] == "closing").count(), 1);
    assert_balanced(&f).await;
}
