//! Operations of devices and events of backends.
#![allow(clippy::unwrap_used)]

use mstore_protocol::{Code, EventRequest, OperationId, Row, StockAuthority, StockTarget, Verdict, VerdictStatus};
use mstore_store::{Listing, MoveKind, Product, RecipeLine, SourceWrite, StoreError, Written};
use serde_json::{Value, json};

use super::fixture::*;

async fn stocked(f: Fixture) -> Fixture {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    f.put_items("a", &["milk"]).await;
    f.deliver("a", "p", "10").await;
    f.clock.forward_s(60);
    f
}

fn accepted(verdict: &Verdict) -> u64 {
    assert_eq!(verdict.status, VerdictStatus::Accepted, "{verdict:?}");
    verdict.seq.unwrap()
}

pub async fn a_sale_moves_stock_and_makes_a_transaction(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "p", "2");
    f.clock.forward_s(1);
    let verdict = f.accept_one("a", sale.clone()).await;
    assert_eq!(accepted(&verdict), f.head("a").await.seq);
    assert_eq!(f.stock("a", "p").await, "8");
    let row = f.row("a", "transaction", &verdict.id).await.unwrap();
    assert_eq!(row["lines"], sale["lines"]);
    assert_eq!((&row["tenders"], &row["total"], &row["occurred_at"]), (&sale["tenders"], &sale["total"], &sale["occurred_at"]));
    let fixed = (&row["type"], &row["status"], &row["device_id"], &row["device_seq"], &row["recorded_at"]);
    let now = json!(f.clock.now().to_string());
    assert_eq!(fixed, (&json!("sale"), &json!("completed"), &json!("till"), &json!(1), &now));
    assert_eq!(row.as_object().unwrap().len(), 12, "{row}");
    let back = with(f.sale(2, "p", "1"), "type", json!("return"));
    accepted(&f.accept_one("a", back).await);
    assert_eq!(f.stock("a", "p").await, "9");
}

pub async fn a_duplicate_answers_the_first_seq(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "p", "2");
    let verdicts = f.accept("a", vec![sale.clone()]).await;
    let first = accepted(&verdicts[0]);
    f.deliver("a", "q", "1").await;
    let again = f.accept_one("a", sale.clone()).await;
    assert_eq!((again.status, again.seq), (VerdictStatus::Duplicate, Some(first)));
    let elsewhere = f.accept_one("b", sale).await;
    assert_eq!((elsewhere.status, elsewhere.seq), (VerdictStatus::Duplicate, Some(first)));
    assert_eq!(f.stock("a", "p").await, "8");
}

pub async fn a_rejection_is_repeated(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "later", "2");
    let first = f.accept_one("a", sale.clone()).await;
    assert_rejected(&first, Code::UnknownProduct);
    f.put_ids(&["later"]).await;
    assert_eq!(f.accept_one("a", sale.clone()).await, first);
    let replacing = with(with(sale.clone(), "id", json!(new_id().to_string())), "replaces", sale["id"].clone());
    accepted(&f.accept_one("a", with(replacing, "device_seq", json!(2))).await);
}

pub async fn an_id_with_another_body_is_reused(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "p", "2");
    f.accept_one("a", sale.clone()).await;
    assert_rejected(&f.accept_one("a", with(sale.clone(), "receipt_no", json!("other"))).await, Code::IdReused);
    assert_eq!(f.accept_one("a", sale).await.status, VerdictStatus::Duplicate, "the first stands");
}

pub async fn one_bad_operation_blocks_no_other(f: Fixture) {
    let f = stocked(f).await;
    let bad = with(f.sale(2, "p", "1"), "lines", json!([]));
    let verdicts = f.accept("a", vec![f.sale(1, "p", "1"), bad, json!("nonsense"), json!({}), f.sale(3, "p", "1")]).await;
    let states: Vec<_> = verdicts.iter().map(|verdict| verdict.status).collect();
    use VerdictStatus::{Accepted, Rejected};
    assert_eq!(states, [Accepted, Rejected, Rejected, Rejected, Accepted]);
    assert_eq!(f.stock("a", "p").await, "8");
    assert!(f.alarms("device_seq_gap").await.is_empty(), "a rejected one counts as present");
    let kept = f.store.list(Listing::Operations(branch("a")), None, 10).await.unwrap().items;
    assert_eq!(kept.iter().map(|item| item["status"].as_str().unwrap()).collect::<Vec<_>>(), ["accepted", "rejected", "accepted"]);
}

pub async fn every_rejection_has_its_code(f: Fixture) {
    let f = stocked(f).await;
    let dollars = f.sale(1, "p", "1").to_string().replace("IDR", "USD");
    let cases: Vec<(Value, Code)> = vec![
        (serde_json::from_str(&dollars).unwrap(), Code::CurrencyDiffers),
        (f.sale(2, "none", "1"), Code::UnknownProduct),
        (f.sale(3, "p", "-1"), Code::NegativeQuantity),
        (f.sale(4, "p", "1.0"), Code::MalformedQuantity),
        (with(f.sale(5, "p", "1"), "device_seq", json!(1.5)), Code::FloatRefused),
        (with(f.sale(6, "p", "1"), "type", json!("gift")), Code::UnknownOperationType),
        (f.act(7, "adjust", "inventory", "none", "1"), Code::UnknownItem),
        (f.act(8, "receive", "product", "none", "1"), Code::UnknownProduct),
        (with(f.act(9, "transfer", "product", "p", "1"), "to_branch", json!("nowhere")), Code::UnknownBranch),
        (with(f.act(10, "transfer", "product", "p", "1"), "to_branch", json!("a")), Code::MalformedOperation),
        (with(f.act(11, "transfer", "inventory", "milk", "1"), "to_branch", json!("b")), Code::UnknownItem),
    ];
    let (operations, codes): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let before = f.snapshot("a").await.lines;
    for (verdict, code) in f.accept("a", operations).await.iter().zip(codes) {
        assert_rejected(verdict, code);
        assert!(verdict.detail.as_ref().is_some_and(|detail| !detail.is_empty()));
    }
    assert_eq!(f.snapshot("a").await.lines, before);
}

pub async fn frames_name_their_operations(f: Fixture) {
    let f = stocked(f).await;
    let (one, two) = (f.sale(1, "p", "1"), f.sale(2, "q", "1"));
    let verdicts = f.accept("a", vec![one, two]).await;
    let frames: Vec<_> = f.frames().await.into_iter().map(|(_, frame)| frame).filter(|frame| Some(frame.seq) == verdicts[0].seq).collect();
    let ops: Vec<_> = frames.iter().map(|frame| frame.ops.iter().map(OperationId::to_string).collect::<Vec<_>>()).collect();
    assert_eq!(ops, [vec![verdicts[0].id.clone(), verdicts[1].id.clone()], vec![]], "one commit, named on part 1");
    f.deliver("a", "p", "1").await;
    assert!(f.frames().await.pop().unwrap().1.ops.is_empty());
}

pub async fn own_operations_are_those_of_the_device(f: Fixture) {
    let f = stocked(f).await;
    let start = f.head("a").await.seq;
    let mine: Vec<_> = f.accept("a", vec![f.sale(1, "p", "1"), f.sale(2, "none", "1")]).await;
    f.accept_from("a", "other", "k", 0, vec![f.sale(1, "p", "1")]).await.unwrap();
    let later = f.accept("a", vec![f.sale(3, "p", "1")]).await;
    let own = async |from, to| {
        let ids = f.store.own_operations(&branch("a"), &device("till"), from, to).await.unwrap();
        ids.iter().map(OperationId::to_string).collect::<Vec<_>>()
    };
    let head = f.head("a").await.seq;
    assert_eq!(own(start, head).await, [mine[0].id.clone(), later[0].id.clone()]);
    assert_eq!(own(mine[0].seq.unwrap(), head).await, [later[0].id.clone()]);
    assert!(own(head, head).await.is_empty());
}

pub async fn a_gap_is_alarmed_once_and_cleared_when_filled(f: Fixture) {
    let f = stocked(f).await;
    f.accept("a", vec![f.sale(1, "p", "1"), f.sale(5, "p", "1")]).await;
    f.accept("a", vec![f.sale(6, "p", "1")]).await;
    let alarms = f.alarms("device_seq_gap").await;
    assert_eq!(alarms.len(), 1);
    assert!(alarms[0].detail.contains("2 to 4") && alarms[0].device == Some(device("till")), "{alarms:?}");
    f.accept("a", vec![f.sale(3, "p", "1"), f.sale(4, "p", "1")]).await;
    assert_eq!(f.alarms("device_seq_gap").await, alarms);
    f.accept("a", vec![f.sale(2, "p", "1")]).await;
    assert!(f.alarms("device_seq_gap").await[0].cleared_at.is_some());
    f.accept_from("a", "till", "another journal", 0, vec![f.sale(1, "p", "1")]).await.unwrap();
    assert_eq!(f.alarms("device_seq_gap").await.len(), 1, "journals count for themselves");
}

pub async fn a_number_used_twice_is_alarmed_and_accepted(f: Fixture) {
    let f = stocked(f).await;
    accepted(&f.accept_one("a", f.sale(1, "p", "1")).await);
    accepted(&f.accept_one("a", f.sale(1, "p", "1")).await);
    assert_eq!((f.alarms("device_seq_reused").await.len(), f.stock("a", "p").await), (1, "8".into()));
}

pub async fn a_recipe_consumes_and_gives_back(f: Fixture) {
    let f = stocked(f).await;
    let lines =
        vec![RecipeLine { item_id: "milk".into(), quantity: q("0.2") }, RecipeLine { item_id: "elsewhere".into(), quantity: q("1") }];
    f.write(SourceWrite::PutRecipe { merchant: merchant(), product_id: "p".into(), lines }).await.unwrap();
    f.stock_move("a", MoveKind::Delta, StockTarget::Inventory, "milk", "5").await.unwrap();
    f.accept_one("a", f.sale(1, "p", "3")).await;
    assert_eq!((f.quantity("a", "milk").await, f.stock("a", "p").await), ("4.4".into(), "7".into()));
    f.accept_one("a", with(f.sale(2, "p", "1"), "type", json!("return"))).await;
    assert_eq!(f.quantity("a", "milk").await, "4.6");
}

pub async fn a_transfer_is_out_here_and_in_there(f: Fixture) {
    let f = stocked(f).await;
    let verdict = f.accept_one("a", with(f.act(1, "transfer", "product", "p", "4"), "to_branch", json!("b"))).await;
    assert_eq!(accepted(&verdict), f.head("a").await.seq);
    assert_eq!((f.stock("a", "p").await, f.stock("b", "p").await), ("6".into(), "4".into()));
    let moves = f.store.list(Listing::StockMoves(branch("b")), None, 10).await.unwrap().items;
    assert_eq!((&moves[0]["operation_id"], &moves[0]["effect"]), (&json!(verdict.id), &json!("4")));
}

pub async fn an_untracked_product_keeps_its_stock(f: Fixture) {
    let f = stocked(f).await;
    f.put(vec![Product { track_stock: false, ..product("service") }]).await;
    accepted(&f.accept_one("a", f.sale(1, "service", "3")).await);
    assert_eq!(f.stock("a", "service").await, "0");
}

pub async fn an_operation_without_effect_gets_the_head(f: Fixture) {
    let f = stocked(f).await;
    let head = f.head("a").await;
    let verdict = f.accept_one("a", f.act(1, "count", "product", "p", "10")).await;
    assert_eq!((accepted(&verdict), f.head("a").await), (head.seq, head));
    let again = f.store.own_operations(&branch("a"), &device("till"), 0, accepted(&verdict)).await.unwrap();
    assert_eq!(again.len(), 1);
}

fn stock_event(key: &str, version: u64, stock: &str, ops: Vec<OperationId>) -> SourceWrite {
    let event = EventRequest::ProductStockUpdated { idempotency_key: key.into(), version, product_id: "p".into(), stock: q(stock), ops };
    SourceWrite::Event { key: branch("a"), event: Box::new(event) }
}

pub async fn with_a_backend_deciding_operations_await_their_event(f: Fixture) {
    let f = stocked(f).await;
    f.put_merchant(|m| m.stock_authority = StockAuthority::Backend).await.unwrap();
    let verdict = f.accept_one("a", f.sale(1, "p", "2")).await;
    assert_eq!((verdict.status, verdict.seq), (VerdictStatus::Accepted, None));
    assert!(f.row("a", "transaction", &verdict.id).await.is_some());
    assert_eq!(f.stock("a", "p").await, "10");
    assert!(f.frames().await.iter().all(|(_, frame)| frame.ops.is_empty()));
    let id = OperationId::parse(&verdict.id).unwrap();
    let written = f.write(stock_event("k", 1, "8", vec![id])).await.unwrap();
    assert_eq!(f.stock("a", "p").await, "8");
    assert_eq!(f.frames().await.pop().unwrap().1.ops, [id]);
    let own = f.store.own_operations(&branch("a"), &device("till"), 0, written.seqs[&branch("a")]).await.unwrap();
    assert_eq!(own, [id]);
    let refused = f.stock_move("a", MoveKind::Delta, StockTarget::Product, "p", "1").await;
    assert!(matches!(refused, Err(StoreError::Refused { code: Code::StockDecidedElsewhere, .. })));
}

pub async fn events_are_idempotent_and_versioned(f: Fixture) {
    let f = stocked(f).await;
    let first = f.write(stock_event("k1", 5, "8", vec![])).await.unwrap();
    assert_eq!((first.duplicate, f.stock("a", "p").await), (false, "8".into()));
    f.write(stock_event("k2", 6, "7", vec![])).await.unwrap();
    let again = f.write(stock_event("k1", 5, "8", vec![])).await.unwrap();
    assert_eq!(again, Written { duplicate: true, durable_at_us: again.durable_at_us, ..first });
    let code = async |write| if let Err(StoreError::Refused { code, .. }) = f.write(write).await { Some(code) } else { None };
    assert_eq!(code(stock_event("k3", 5, "9", vec![])).await, Some(Code::StaleEvent));
    assert_eq!(code(stock_event("k1", 9, "9", vec![])).await, Some(Code::IdReused));
    assert_eq!(f.stock("a", "p").await, "7");
}

pub async fn an_upload_to_nowhere_is_refused(f: Fixture) {
    let f = stocked(f).await;
    let refused = f.accept_from("nowhere", "till", "j", 0, vec![f.sale(1, "p", "1")]).await;
    assert!(matches!(refused, Err(StoreError::Refused { code: Code::NotFound, .. })));
}

pub async fn an_operation_named_before_its_upload_does_not_wait(f: Fixture) {
    let f = stocked(f).await;
    f.put_merchant(|m| m.stock_authority = StockAuthority::Backend).await.unwrap();
    let sale = f.sale(1, "p", "2");
    let id = OperationId::parse(sale["id"].as_str().unwrap()).unwrap();
    f.write(stock_event("k", 1, "8", vec![id])).await.unwrap();
    assert_eq!(f.frames().await.pop().unwrap().1.ops, [id]);
    assert_eq!(accepted(&f.accept_one("a", sale).await), f.head("a").await.seq);
}

/// An event for branch `b`, of an operation that a till of branch `a` has done.
fn event_elsewhere(operation: &Value) -> SourceWrite {
    let ops = vec![OperationId::parse(operation["id"].as_str().unwrap()).unwrap()];
    let event =
        EventRequest::ProductStockUpdated { idempotency_key: "elsewhere".into(), version: 1, product_id: "p".into(), stock: q("8"), ops };
    SourceWrite::Event { key: branch("b"), event: Box::new(event) }
}

pub async fn an_event_for_another_branch_names_an_operation_in_its_own(f: Fixture) {
    let f = stocked(f).await;
    f.put_merchant(|m| m.stock_authority = StockAuthority::Backend).await.unwrap();
    let received = f.act(1, "receive", "product", "p", "5");
    let verdict = f.accept_one("a", received.clone()).await;
    let before = f.head("a").await.seq;
    f.write(event_elsewhere(&received)).await.unwrap();
    let own = f.store.own_operations(&branch("a"), &device("till"), before, f.head("a").await.seq).await.unwrap();
    assert_eq!((f.head("a").await.seq, own.len()), (before + 1, 1), "its till hears of it, although nothing else changed");
    assert_eq!(own[0].to_string(), verdict.id);
}

pub async fn an_operation_named_elsewhere_before_its_upload_is_named_in_its_own(f: Fixture) {
    let f = stocked(f).await;
    f.put_merchant(|m| m.stock_authority = StockAuthority::Backend).await.unwrap();
    let received = f.act(1, "receive", "product", "p", "5");
    f.write(event_elsewhere(&received)).await.unwrap();
    let before = f.head("a").await.seq;
    let seq = accepted(&f.accept_one("a", received).await);
    assert_eq!((seq, f.store.own_operations(&branch("a"), &device("till"), before, seq).await.unwrap().len()), (before + 1, 1));
}

pub async fn a_duplicate_beside_its_first_gets_the_same_seq(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "p", "1");
    let verdicts = f.accept("a", vec![sale.clone(), sale.clone()]).await;
    assert_eq!((verdicts[0].status, verdicts[1].status), (VerdictStatus::Accepted, VerdictStatus::Duplicate));
    assert_eq!((verdicts[0].seq, verdicts[1].seq), (Some(f.head("a").await.seq), verdicts[0].seq));
    assert_eq!(f.stock("a", "p").await, "9");
    f.put_merchant(|m| m.stock_authority = StockAuthority::Backend).await.unwrap();
    let waits = f.sale(2, "p", "1");
    let verdicts = f.accept("a", vec![waits.clone(), waits]).await;
    assert!(verdicts.iter().all(|verdict| verdict.seq.is_none()), "the event decides: {verdicts:?}");
}

fn transaction_event(key: &str, version: u64, id: &str, total: i64, ops: Vec<OperationId>) -> SourceWrite {
    let transaction = json!({"id": id, "type": "sale", "status": "completed", "total": {"amount": total, "currency": "IDR"}});
    let transaction = Row::parse(&transaction.to_string()).unwrap();
    let event = EventRequest::TransactionCreated { idempotency_key: key.into(), version, transaction, ops };
    SourceWrite::Event { key: branch("a"), event: Box::new(event) }
}

pub async fn a_transaction_event_becomes_a_row(f: Fixture) {
    let f = stocked(f).await;
    f.write(transaction_event("k", 1, "t-1", 5, vec![])).await.unwrap();
    assert_eq!(f.row("a", "transaction", "t-1").await.unwrap()["total"]["amount"], 5);
    assert_eq!(f.frames().await.pop().unwrap().1.frame_type, "transaction.created");
}

pub async fn a_transaction_event_overwrites_nothing(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.accept_one("a", f.sale(1, "p", "1")).await;
    let first = f.write(transaction_event("k", 1, "t-1", 5, vec![])).await.unwrap();
    let before = (f.row("a", "transaction", &sale.id).await, f.head("a").await);
    for (key, id, total) in [("k2", "t-1", 6), ("k3", sale.id.as_str(), 500)] {
        let refused = f.write(transaction_event(key, 2, id, total, vec![])).await;
        assert!(matches!(refused, Err(StoreError::Refused { code: Code::AlreadyExists, .. })), "{refused:?}");
    }
    assert_eq!((f.row("a", "transaction", &sale.id).await, f.head("a").await), before);
    let again = f.write(transaction_event("k4", 1, "t-1", 5, vec![])).await.unwrap();
    assert_eq!((again.duplicate, again.seqs, f.head("a").await), (true, first.seqs, before.1));
}

pub async fn an_event_out_of_range_is_malformed(f: Fixture) {
    let f = stocked(f).await;
    let most = i64::MAX.unsigned_abs();
    for (key, version) in [("", 1), ("k".repeat(201).as_str(), 1), ("k", most + 1), ("k", u64::MAX)] {
        let refused = f.write(stock_event(key, version, "8", vec![])).await;
        assert!(matches!(refused, Err(StoreError::Refused { code: Code::MalformedRequest, .. })), "{key:?} {version}: {refused:?}");
    }
    f.write(stock_event(&"k".repeat(200), most, "8", vec![])).await.unwrap();
    assert_eq!(f.stock("a", "p").await, "8");
}
