//! The stock rule through the ledger.
#![allow(clippy::unwrap_used)]

use mstore_protocol::{Code, StockTarget, VerdictStatus};
use mstore_store::{Listing, MoveKind, SourceWrite, StockMove, StockPolicy, StoreError};
use serde_json::{Value, json};

use super::fixture::*;

async fn stocked(f: Fixture) -> Fixture {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    f.deliver("a", "p", "10").await;
    f.clock.forward_s(3600);
    f
}

fn at(f: &Fixture, operation: Value, seconds: i64) -> Value {
    with(operation, "occurred_at", json!(f.clock.now().plus_ms(seconds * 1000).to_string()))
}

async fn ledger_sum(f: &Fixture) -> i64 {
    let moves = f.store.list(Listing::StockMoves(branch("a")), None, 1000).await.unwrap().items;
    moves.iter().map(|item| q(item["effect"].as_str().unwrap()).as_milli()).sum()
}

pub async fn a_count_sets_the_base(f: Fixture) {
    let f = stocked(f).await;
    f.accept_one("a", f.act(1, "count", "product", "p", "7.5")).await;
    assert_eq!((f.stock("a", "p").await, ledger_sum(&f).await), ("7.5".into(), 7500));
    f.clock.forward_s(10);
    f.accept_one("a", f.sale(2, "p", "1")).await;
    assert_eq!(f.stock("a", "p").await, "6.5");
    f.clock.forward_s(10);
    f.stock_move("a", MoveKind::Count, StockTarget::Product, "p", "20").await.unwrap();
    assert_eq!((f.stock("a", "p").await, ledger_sum(&f).await), ("20".into(), 20_000));
}

pub async fn a_late_delta_has_no_effect(f: Fixture) {
    let f = stocked(f).await;
    f.accept_one("a", f.act(1, "count", "product", "p", "7")).await;
    let late = at(&f, f.sale(1, "p", "2"), -600);
    let verdict = f.accept_from("a", "other", "k", 0, vec![late]).await.unwrap().remove(0);
    assert_eq!((verdict.status, verdict.code), (VerdictStatus::Accepted, Some(Code::LateDelta)));
    assert_eq!((f.stock("a", "p").await, ledger_sum(&f).await), ("7".into(), 7000));
    assert!(f.row("a", "transaction", &verdict.id).await.is_some(), "the receipt is there all the same");
}

pub async fn a_late_count_keeps_later_deltas(f: Fixture) {
    let f = stocked(f).await;
    f.accept_one("a", f.sale(1, "p", "2")).await;
    let count = at(&f, f.act(1, "count", "product", "p", "100"), -600);
    let verdict = f.accept_from("a", "other", "k", 0, vec![count]).await.unwrap().remove(0);
    assert_eq!((verdict.code, f.stock("a", "p").await), (None, "98".into()));
    let older = at(&f, f.act(2, "count", "product", "p", "50"), -1200);
    let verdict = f.accept_from("a", "third", "l", 0, vec![older]).await.unwrap().remove(0);
    assert_eq!((verdict.code, f.stock("a", "p").await), (Some(Code::LateDelta), "98".into()));
}

pub async fn near_a_count_is_flagged(f: Fixture) {
    let f = stocked(f).await;
    f.accept_one("a", f.act(1, "count", "product", "p", "7")).await;
    f.clock.forward_s(1);
    let verdict = f.accept_from("a", "other", "k", 0, vec![f.sale(1, "p", "2")]).await.unwrap().remove(0);
    assert_eq!((verdict.code, f.stock("a", "p").await), (Some(Code::NearCount), "5".into()));
    let same_journal = f.accept_one("a", f.sale(2, "p", "2")).await;
    assert_eq!((same_journal.code, f.stock("a", "p").await), (None, "3".into()));
}

pub async fn the_clock_offset_corrects_the_order(f: Fixture) {
    let f = stocked(f).await;
    f.accept_one("a", f.act(1, "count", "product", "p", "7")).await;
    f.clock.forward_s(60);
    // Its clock is an hour slow: it wrote down a time before the count, but sold after it.
    let sale = at(&f, f.sale(1, "p", "2"), -3600);
    let verdict = f.accept_from("a", "slow", "k", 3_600_000, vec![sale]).await.unwrap().remove(0);
    assert_eq!((verdict.code, f.stock("a", "p").await), (None, "5".into()));
}

pub async fn a_nonsense_offset_zeroes_no_effect(f: Fixture) {
    const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;
    let f = stocked(f).await;
    f.accept_one("a", f.act(1, "count", "product", "p", "7")).await;
    f.clock.forward_s(60);
    for (n, offset) in [(0, i64::MIN), (1, i64::MAX), (2, WEEK_MS + 1), (3, -WEEK_MS - 1)] {
        // By its own clock it sold before the count.
        let sales = vec![at(&f, f.sale(1, "p", "1"), -3600), at(&f, f.sale(2, "p", "0.5"), -3600)];
        let verdicts = f.accept_from("a", "till", &format!("offset-{n}"), offset, sales).await.unwrap();
        assert!(verdicts.iter().all(|verdict| verdict.code.is_none()), "{verdicts:?}");
        assert_eq!(f.alarms("clock_offset_refused").await.len(), n + 1, "one for each upload");
    }
    assert_eq!(f.stock("a", "p").await, "1", "7 counted, four times 1.5 sold");
    let late = at(&f, f.sale(1, "p", "1"), -3600);
    let verdict = f.accept_from("a", "till", "in range", -WEEK_MS, vec![late]).await.unwrap().remove(0);
    assert_eq!((verdict.code, f.stock("a", "p").await), (Some(Code::LateDelta), "1".into()), "a week is believed");
    assert_eq!(f.alarms("clock_offset_refused").await.len(), 4);
}

pub async fn the_policy_decides_below_zero(f: Fixture) {
    let f = stocked(f).await;
    for (policy, sale_code, adjust_status) in [
        (StockPolicy::Allow, None, VerdictStatus::Accepted),
        (StockPolicy::Warn, Some(Code::BelowZero), VerdictStatus::Accepted),
        (StockPolicy::Block, Some(Code::BelowZero), VerdictStatus::Rejected),
    ] {
        f.put_merchant(|m| m.stock_policy = policy).await.unwrap();
        f.clock.forward_s(60);
        f.stock_move("a", MoveKind::Count, StockTarget::Product, "p", "1").await.unwrap();
        f.clock.forward_s(60);
        let journal = format!("{policy:?}");
        let operations = vec![f.sale(1, "p", "2"), f.act(2, "adjust", "product", "p", "-1")];
        let verdicts = f.accept_from("a", "till", &journal, 0, operations).await.unwrap();
        assert_eq!((verdicts[0].status, verdicts[0].code), (VerdictStatus::Accepted, sale_code), "{policy:?}");
        assert_eq!(verdicts[1].status, adjust_status, "{policy:?}");
        let expect = if adjust_status == VerdictStatus::Accepted { "-2" } else { "-1" };
        assert_eq!(f.stock("a", "p").await, expect, "never clamped");
    }
    let refused = f.stock_move("a", MoveKind::Delta, StockTarget::Product, "p", "-1").await;
    assert!(matches!(refused, Err(StoreError::Refused { code: Code::BelowZero, .. })));
}

pub async fn the_same_movement_moves_once(f: Fixture) {
    let f = stocked(f).await;
    let one = StockMove {
        id: new_id(),
        collection: StockTarget::Product,
        item_id: "p".into(),
        kind: MoveKind::Delta,
        quantity: q("5"),
        reason: String::new(),
    };
    for expect in [1, 0] {
        let written = f.write(SourceWrite::MoveStock { key: branch("a"), moves: vec![one.clone()] }).await.unwrap();
        assert_eq!(written.seqs.len(), expect);
    }
    assert_eq!(f.stock("a", "p").await, "15");
    let moves = vec![StockMove { id: new_id(), ..one.clone() }, StockMove { id: new_id(), item_id: "none".into(), ..one }];
    let refused = f.write(SourceWrite::MoveStock { key: branch("a"), moves }).await;
    assert!(matches!(refused, Err(StoreError::Refused { code: Code::UnknownProduct, .. })));
    assert_eq!(f.stock("a", "p").await, "15", "all or none");
}

pub async fn inventory_is_counted_too(f: Fixture) {
    let f = stocked(f).await;
    f.put_items("a", &["milk"]).await;
    f.accept("a", vec![f.act(1, "receive", "inventory", "milk", "3"), f.act(2, "count", "inventory", "milk", "2.75")]).await;
    assert_eq!(f.quantity("a", "milk").await, "2.75");
    f.clock.forward_s(60);
    f.accept_one("a", f.act(3, "adjust", "inventory", "milk", "-0.25")).await;
    assert_eq!(f.quantity("a", "milk").await, "2.5");
    assert_eq!(f.frames().await.pop().unwrap().1.frame_type, "inventory.quantity_updated");
}
