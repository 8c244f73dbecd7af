//! Operations for a backend that decides: each is in its inbox once, delivered in order, decided once, and its till hears of it.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use mstore_protocol::{BackendDecision, BackendVerdict, Code, EventRequest, OperationId, StockAuthority, StockTarget, VerdictStatus};
use mstore_store::{
    Attempt, DeadLetterAct, DeadLettersOf, Decide, Due, InboxBacklog, InboxOf, MoveKind, OutboxMessage, SourceWrite, StoreError,
};
use serde_json::{Value, json};

use super::fixture::*;

/// A merchant whose backend decides, with an inbox, ten of `p` in branch `a`.
async fn decided_elsewhere(f: Fixture) -> Fixture {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    f.stock_move("a", MoveKind::Delta, StockTarget::Product, "p", "10").await.unwrap();
    f.put_merchant(|m| m.stock_authority = StockAuthority::Backend).await.unwrap();
    f.store.set_inbox(true).await.unwrap();
    f.clock.forward_s(60);
    f
}

fn id_of(operation: &Value) -> OperationId {
    OperationId::parse(operation["id"].as_str().unwrap()).unwrap()
}

fn rejected(code: &str, detail: &str) -> BackendVerdict {
    BackendVerdict { verdict: BackendDecision::Rejected, code: Some(code.into()), detail: Some(detail.into()) }
}

async fn inbox(f: &Fixture, decided_too: bool) -> Vec<Value> {
    f.store.inbox(InboxOf { merchant: merchant(), branch: None, decided_too }, None, 100).await.unwrap().items
}

async fn letters(f: &Fixture) -> Vec<Value> {
    let of = DeadLettersOf { merchant: merchant(), branch: None, device: None, decided_too: false };
    f.store.dead_letters(of, None, 100).await.unwrap().items
}

async fn own_after(f: &Fixture, seq: u64) -> Vec<OperationId> {
    f.store.own_operations(&branch("a"), &device("till"), seq, f.head("a").await.seq).await.unwrap()
}

async fn claim(f: &Fixture) -> Vec<Due> {
    f.store.claim_deliveries(f.clock.now(), f.clock.now().plus_ms(30_000), 10).await.unwrap()
}

fn ids(due: &[Due]) -> Vec<OperationId> {
    due.iter().map(|due| due.id).collect()
}

fn sql_verdict(id: OperationId, set: &str) -> String {
    format!("UPDATE operation_inbox SET {set} WHERE merchant_id = 'm' AND id = '{id}'")
}

fn is_refused(f: &Fixture, statement: &str) -> bool {
    catch_unwind(AssertUnwindSafe(|| (f.sql)(statement))).is_err()
}

pub async fn only_what_a_backend_decides_is_put_into_its_inbox(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    f.deliver("a", "p", "10").await;
    f.store.set_inbox(true).await.unwrap();
    assert_eq!(f.accept_one("a", f.sale(1, "p", "1")).await.code, None);
    f.put_merchant(|m| m.stock_authority = StockAuthority::Backend).await.unwrap();
    f.store.set_inbox(false).await.unwrap();
    assert_eq!(f.accept_one("a", f.sale(2, "p", "1")).await.code, None);
    assert!(inbox(&f, true).await.is_empty());
    f.store.set_inbox(true).await.unwrap();
    let sale = f.sale(3, "p", "1");
    let verdict = f.accept_one("a", sale.clone()).await;
    assert_eq!((verdict.status, verdict.seq, verdict.code), (VerdictStatus::Accepted, None, Some(Code::AwaitsBackend)));
    let again = f.accept_one("a", sale.clone()).await;
    assert_eq!((again.status, again.seq, again.code), (VerdictStatus::Duplicate, None, Some(Code::AwaitsBackend)));
    let bad = f.accept_one("a", f.sale(4, "unknown", "1")).await;
    assert_rejected(&bad, Code::UnknownProduct);
    let rows = inbox(&f, true).await;
    assert_eq!(rows.len(), 1, "once, and what was rejected here is no business of the backend's");
    let row = &rows[0];
    assert_eq!(
        (&row["branch"], &row["device"], &row["journal_id"], &row["device_seq"]),
        (&json!("a"), &json!("till"), &json!("j"), &json!(3))
    );
    assert_eq!((&row["body"], &row["verdict"]), (&sale, &Value::Null));
    assert_eq!(f.store.inbox_backlog().await.unwrap(), InboxBacklog { undecided: 1, undelivered: 1 });
}

pub async fn a_verdict_and_the_stock_of_one_transaction_are_one_commit(f: Fixture) {
    let f = decided_elsewhere(f).await;
    let id = id_of(&f.sale(1, "p", "2"));
    let sale = with(f.sale(1, "p", "2"), "id", json!(id.to_string()));
    f.accept_one("a", sale.clone()).await;
    let before = f.head("a").await;
    (f.sql)(&format!(
        "UPDATE branch_product SET stock_milli = 8000 WHERE merchant_id = 'm' AND branch_id = 'a' AND product_id = 'p'; {}",
        sql_verdict(id, "verdict = 'accepted'")
    ));
    f.settle().await;
    assert_eq!((f.head("a").await.seq, f.stock("a", "p").await), (before.seq + 1, "8".into()));
    let (_, frame) = f.frames().await.pop().unwrap();
    assert_eq!((frame.seq, frame.ops), (before.seq + 1, vec![id]));
    assert_eq!(own_after(&f, before.seq).await, [id]);
    let again = f.accept_one("a", sale).await;
    assert_eq!((again.status, again.seq, again.code), (VerdictStatus::Duplicate, Some(before.seq + 1), None));
    assert!(f.row("a", "transaction", &id.to_string()).await.is_some());
}

pub async fn a_verdict_that_changes_nothing_is_told_all_the_same(f: Fixture) {
    let f = decided_elsewhere(f).await;
    let received = f.act(1, "receive", "product", "p", "5");
    f.accept_one("a", received.clone()).await;
    let before = f.head("a").await;
    let verdict = f.store.give_verdict(&merchant(), id_of(&received), BackendVerdict::accepted()).await.unwrap();
    let after = f.head("a").await;
    assert_eq!((verdict.status, verdict.seq, verdict.code), (VerdictStatus::Accepted, Some(after.seq), None));
    assert_eq!((after.seq, &after.digests), (before.seq + 1, &before.digests));
    let told = f.store.outbox(0, 1_000).await.unwrap().pop().unwrap();
    assert_eq!((told.seq, told.message), (after.seq, OutboxMessage::HeadOnly));
    let answer = f.ask("a", Some(before.cursor()), None).await.unwrap();
    assert_eq!((answer.lines.len(), answer.summary.to), (0, after.seq));
    assert_eq!(own_after(&f, before.seq).await, [id_of(&received)]);
    assert_eq!(f.ask("a", Some(after.cursor()), None).await.unwrap().summary.to, after.seq, "its tag is remembered");
    assert_eq!(f.store.sweep(None, 10_000).await.unwrap().differing, 0);
}

pub async fn a_rejected_operation_becomes_a_dead_letter(f: Fixture) {
    let f = decided_elsewhere(f).await;
    let (sale, other) = (f.sale(1, "p", "2"), f.sale(2, "p", "1"));
    f.accept("a", vec![sale.clone(), other.clone()]).await;
    let before = f.head("a").await;
    (f.sql)(&sql_verdict(id_of(&sale), "verdict = 'rejected', code = 'out_of_stock', detail = 'one is left'"));
    f.settle().await;
    assert_eq!(f.row("a", "transaction", sale["id"].as_str().unwrap()).await, None, "nothing of it has an effect");
    assert!(f.row("a", "transaction", other["id"].as_str().unwrap()).await.is_some());
    assert_eq!((f.head("a").await.seq, own_after(&f, before.seq).await), (before.seq + 1, vec![id_of(&sale)]), "its till is told to ask");
    let again = f.accept_one("a", sale.clone()).await;
    assert_rejected(&again, Code::RefusedByBackend);
    assert_eq!((again.detail.as_deref(), again.seq), (Some("backend:out_of_stock: one is left"), None));
    let letter = letters(&f).await.remove(0);
    assert_eq!((&letter["id"], &letter["code"], &letter["body"]), (&sale["id"], &json!("refused_by_backend"), &sale));
    assert!(f.alarms("device_seq_gap").await.is_empty());

    let act = DeadLetterAct::Retry(new_id());
    let decided = f.store.decide(Decide { merchant: merchant(), id: id_of(&sale), act, reason: String::new(), by: by() }).await.unwrap();
    let successor = decided.verdict.unwrap();
    assert_eq!((successor.status, successor.code), (VerdictStatus::Accepted, Some(Code::AwaitsBackend)));
    let waiting: Vec<Value> = inbox(&f, false).await.into_iter().map(|row| row["id"].clone()).collect();
    assert_eq!(waiting, [json!(successor.id), other["id"].clone()], "what takes its place is the backend's to decide, too");
}

pub async fn a_verdict_counts_once(f: Fixture) {
    let f = decided_elsewhere(f).await;
    let (sale, other) = (f.sale(1, "p", "2"), f.sale(2, "p", "1"));
    f.accept("a", vec![sale.clone(), other.clone()]).await;
    let id = id_of(&sale);
    let no = rejected("closed", "the day is closed");
    let first = f.store.give_verdict(&merchant(), id, no.clone()).await.unwrap();
    assert_rejected(&first, Code::RefusedByBackend);
    let head = f.head("a").await;
    assert_eq!(f.store.give_verdict(&merchant(), id, no).await.unwrap(), first);
    let another = f.store.give_verdict(&merchant(), id, BackendVerdict::accepted()).await;
    assert!(matches!(another, Err(StoreError::Refused { code: Code::AlreadyDecided, .. })), "{another:?}");
    let unknown = f.store.give_verdict(&merchant(), new_id(), BackendVerdict::accepted()).await;
    assert!(matches!(unknown, Err(StoreError::Refused { code: Code::NotFound, .. })), "{unknown:?}");
    for set in ["verdict = 'accepted'", "verdict = NULL", "detail = 'something else'", "branch_id = 'b'", "body = '{}'"] {
        assert!(is_refused(&f, &sql_verdict(id, set)), "{set}");
    }
    for set in ["verdict = 'maybe'", "code = ''", "id = 'x'"] {
        assert!(is_refused(&f, &sql_verdict(id_of(&other), set)), "{set}");
    }
    assert!(is_refused(&f, &format!("DELETE FROM operation_inbox WHERE id = '{}'", id_of(&other))), "it waits for its verdict");
    (f.sql)(&sql_verdict(id, "verdict = 'rejected'"));
    f.settle().await;
    assert_eq!(f.head("a").await.cursor(), head.cursor());
    let standing = f.store.verdicts(&merchant(), vec![id, id_of(&other), new_id()]).await.unwrap();
    assert_eq!(standing.iter().map(|verdict| verdict.code).collect::<Vec<_>>(), [Some(Code::RefusedByBackend), Some(Code::AwaitsBackend)]);
}

pub async fn an_event_that_names_an_operation_is_a_verdict(f: Fixture) {
    let f = decided_elsewhere(f).await;
    let sale = f.sale(1, "p", "2");
    f.accept_one("a", sale.clone()).await;
    let (before, stock, ops) = (f.head("a").await, q("10"), vec![id_of(&sale)]);
    let event = EventRequest::ProductStockUpdated { idempotency_key: "k".into(), version: 1, product_id: "p".into(), stock, ops };
    f.write(SourceWrite::Event { key: branch("a"), event: Box::new(event) }).await.unwrap();
    assert!(inbox(&f, false).await.is_empty() && claim(&f).await.is_empty());
    assert_eq!(own_after(&f, before.seq).await, [id_of(&sale)], "although the figure was the same");
    let late = f.store.give_verdict(&merchant(), id_of(&sale), rejected("no", "too late")).await;
    assert!(matches!(late, Err(StoreError::Refused { code: Code::AlreadyDecided, .. })));
    let named_before = f.sale(2, "p", "1");
    let event = EventRequest::ProductStockUpdated {
        idempotency_key: "k2".into(),
        version: 2,
        product_id: "p".into(),
        stock: q("9"),
        ops: vec![id_of(&named_before)],
    };
    f.write(SourceWrite::Event { key: branch("a"), event: Box::new(event) }).await.unwrap();
    assert_eq!(f.accept_one("a", named_before).await.code, None);
    assert!(inbox(&f, false).await.is_empty(), "the backend has it already");
}

pub async fn deliveries_go_out_in_the_order_of_a_branch(f: Fixture) {
    let f = decided_elsewhere(f).await;
    let (a1, a2, b1) = (f.sale(1, "p", "1"), f.sale(2, "p", "1"), f.sale(3, "p", "1"));
    f.accept("a", vec![a1.clone(), a2.clone()]).await;
    f.accept("b", vec![b1.clone()]).await;
    let due = claim(&f).await;
    assert_eq!(ids(&due), [id_of(&a1), id_of(&b1)]);
    assert_eq!((due[0].key.clone(), due[0].attempts, serde_json::from_str::<Value>(&due[0].body).unwrap()), (branch("a"), 0, a1.clone()));
    assert!(claim(&f).await.is_empty(), "nobody else gets them");
    let again_at = f.clock.now().plus_ms(5_000);
    f.store.attempted(&due[0], Attempt::Failed { why: "connection refused".into(), again_at }).await.unwrap();
    f.store.attempted(&due[1], Attempt::Taken).await.unwrap();
    f.clock.forward_s(4);
    assert!(claim(&f).await.is_empty(), "what is behind waits as well");
    f.clock.forward_s(2);
    let due = claim(&f).await;
    assert_eq!((ids(&due), due[0].attempts), (vec![id_of(&a1)], 1));
    f.clock.forward_s(31);
    assert_eq!(ids(&claim(&f).await), [id_of(&a1)], "whoever had it died");
    f.store.attempted(&due[0], Attempt::Decided(rejected("no", "no"))).await.unwrap();
    assert_eq!(letters(&f).await.len(), 1);
    assert_eq!(ids(&claim(&f).await), [id_of(&a2)]);
    assert_eq!(f.store.inbox_backlog().await.unwrap(), InboxBacklog { undecided: 2, undelivered: 1 });
}

pub async fn what_a_backend_does_not_take_lets_others_pass(f: Fixture) {
    let f = decided_elsewhere(f).await;
    let (a1, a2) = (f.sale(1, "p", "1"), f.sale(2, "p", "1"));
    f.accept("a", vec![a1.clone(), a2.clone()]).await;
    let refuse = async |is_set_aside| {
        let due = claim(&f).await.remove(0);
        let again_at = f.clock.now().plus_ms(60_000);
        f.store.attempted(&due, Attempt::Refused { why: "status 422".into(), again_at, is_set_aside }).await.unwrap();
        due.id
    };
    assert_eq!(refuse(false).await, id_of(&a1));
    assert!(claim(&f).await.is_empty() && f.alarms("webhook_refused").await.is_empty());
    f.clock.forward_s(61);
    assert_eq!(refuse(true).await, id_of(&a1));
    assert_eq!(f.alarms("webhook_refused").await.len(), 1);
    let due = claim(&f).await;
    assert_eq!(ids(&due), [id_of(&a2)]);
    f.store.attempted(&due[0], Attempt::Taken).await.unwrap();
    assert!(f.alarms("webhook_refused").await[0].cleared_at.is_none());
    f.clock.forward_s(61);
    let due = claim(&f).await;
    assert_eq!((ids(&due), due[0].attempts), (vec![id_of(&a1)], 2), "it is tried again for ever");
    f.store.attempted(&due[0], Attempt::Decided(BackendVerdict::accepted())).await.unwrap();
    assert!(f.alarms("webhook_refused").await[0].cleared_at.is_some());
}

pub async fn a_backend_that_is_away_is_alarmed_until_it_is_back(f: Fixture) {
    let f = decided_elsewhere(f).await;
    f.accept("a", vec![f.sale(1, "p", "1")]).await;
    f.accept("b", vec![f.sale(2, "p", "1")]).await;
    for attempt in 1..=6 {
        for due in claim(&f).await {
            let again_at = f.clock.now().plus_ms(1_000);
            f.store.attempted(&due, Attempt::Failed { why: "timed out".into(), again_at }).await.unwrap();
        }
        f.clock.forward_s(2);
        assert_eq!(f.alarms("webhook_failing").await.len(), usize::from(attempt >= 5), "attempt {attempt}: one for the merchant");
    }
    for (n, due) in claim(&f).await.into_iter().enumerate() {
        f.store.attempted(&due, Attempt::Taken).await.unwrap();
        assert_eq!(f.alarms("webhook_failing").await[0].cleared_at.is_some(), n == 1, "not before the last is through");
    }
}

pub async fn another_answer_to_a_second_delivery_is_alarmed(f: Fixture) {
    let f = decided_elsewhere(f).await;
    f.accept("a", vec![f.sale(1, "p", "1")]).await;
    let due = claim(&f).await.remove(0);
    for _twice in 0..2 {
        f.store.attempted(&due, Attempt::Decided(BackendVerdict::accepted())).await.unwrap();
    }
    let head = f.head("a").await;
    assert!(f.alarms("verdict_differs").await.is_empty(), "the same again is what retries are for");
    f.store.attempted(&due, Attempt::Decided(rejected("no", "no"))).await.unwrap();
    assert_eq!((f.alarms("verdict_differs").await.len(), letters(&f).await.len()), (1, 0));
    assert_eq!(f.head("a").await.cursor(), head.cursor());
}

pub async fn what_was_decided_is_forgotten_in_the_end(f: Fixture) {
    let f = decided_elsewhere(f).await;
    let (sale, open) = (f.sale(1, "p", "1"), f.sale(2, "p", "1"));
    f.accept("a", vec![sale.clone(), open.clone()]).await;
    f.store.give_verdict(&merchant(), id_of(&sale), BackendVerdict::accepted()).await.unwrap();
    f.store.upkeep().await.unwrap();
    assert_eq!(inbox(&f, true).await.len(), 2);
    f.clock.forward_s(200 * 24 * 3600);
    f.store.upkeep().await.unwrap();
    let left = inbox(&f, true).await;
    assert_eq!((left.len(), &left[0]["id"], &left[0]["body"]), (1, &open["id"], &open));
}
