//! Rejected operations: one decision about each, and no gap in a journal that goes unseen.
#![allow(clippy::unwrap_used)]

use mstore_protocol::{
    Code, DeadLetterReport, DecidedBy, Decision, EventRequest, LocalDecision, OperationDecision, OperationId, Row, StockAuthority, Verdict,
    VerdictStatus,
};
use mstore_store::{AcceptUpload, DeadLetterAct, DeadLettersOf, Decide, Decided, DeviceChange, NewClaim, SourceWrite, StoreError};
use serde_json::{Value, json};

use super::fixture::*;

async fn stocked(f: Fixture) -> Fixture {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    f.deliver("a", "p", "10").await;
    f.clock.forward_s(60);
    f
}

fn id_of(operation: &Value) -> OperationId {
    OperationId::parse(operation["id"].as_str().unwrap()).unwrap()
}

/// The same again under a new id and number, in the place of another.
fn instead(of: &Value, seq: u64) -> Value {
    let again = with(with(of.clone(), "id", json!(new_id().to_string())), "device_seq", json!(seq));
    with(again, "replaces", of["id"].clone())
}

async fn decide(f: &Fixture, id: OperationId, act: DeadLetterAct) -> Result<Decided, StoreError> {
    f.store.decide(Decide { merchant: merchant(), id, act, reason: "asked the cashier".into(), by: by() }).await
}

fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Code {
    match result {
        Err(StoreError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

async fn settle(f: &Fixture, till: &str, decided: Vec<LocalDecision>, open: Vec<OperationId>) -> Vec<OperationDecision> {
    let report = DeadLetterReport { journal_id: "j".into(), decided, open };
    f.store.settle_dead_letters(&branch("a"), &device(till), report).await.unwrap()
}

async fn letters(f: &Fixture, of: impl FnOnce(&mut DeadLettersOf)) -> Vec<Value> {
    let mut all = DeadLettersOf { merchant: merchant(), branch: None, device: None, decided_too: false };
    of(&mut all);
    f.store.dead_letters(all, None, 100).await.unwrap().items
}

async fn accept_text(f: &Fixture, text: String) -> Verdict {
    let upload =
        AcceptUpload { key: branch("a"), device: device("till"), journal_id: "j".into(), clock_offset_ms: 0, operations: vec![text] };
    f.store.accept(upload).await.unwrap().remove(0)
}

pub async fn a_broken_operation_keeps_its_id(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "p", "1");
    let doubled = sale.to_string().replacen('{', "{\"type\":\"sale\",", 1);
    let verdict = accept_text(&f, doubled.clone()).await;
    assert_rejected(&verdict, Code::MalformedOperation);
    assert_eq!(verdict.id, sale["id"].as_str().unwrap());
    assert_eq!(accept_text(&f, doubled).await, verdict);
    assert_eq!(letters(&f, |_| ()).await.len(), 1);
}

pub async fn a_replacement_of_what_was_accepted_is_refused(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "p", "1");
    f.accept_one("a", sale.clone()).await;
    let again = instead(&sale, 2);
    assert_rejected(&f.accept_one("a", again.clone()).await, Code::AlreadyDecided);
    assert_rejected(&f.accept_one("a", instead(&again, 3)).await, Code::AlreadyDecided);
    assert_eq!(f.stock("a", "p").await, "9");
    assert!(letters(&f, |_| ()).await.is_empty(), "nothing is left to decide");
    assert_eq!(refused(decide(&f, id_of(&again), DeadLetterAct::Retry(new_id())).await), Code::AlreadyDecided);
    assert_eq!(refused(decide(&f, id_of(&sale), DeadLetterAct::Discard).await), Code::Conflict);
}

pub async fn an_operation_is_replaced_once(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "later", "1");
    assert_rejected(&f.accept_one("a", sale.clone()).await, Code::UnknownProduct);
    f.put_ids(&["later"]).await;
    let verdicts = f.accept("a", vec![instead(&sale, 2), instead(&sale, 3)]).await;
    assert_eq!(verdicts[0].status, VerdictStatus::Accepted);
    assert_rejected(&verdicts[1], Code::AlreadyDecided);
    assert_eq!(f.stock("a", "later").await, "-1");
    let itself = f.sale(4, "p", "1");
    assert_rejected(&f.accept_one("a", with(itself.clone(), "replaces", itself["id"].clone())).await, Code::MalformedOperation);
}

pub async fn an_operation_that_comes_after_its_replacement_is_refused(f: Fixture) {
    let f = stocked(f).await;
    let lost = f.sale(1, "p", "1");
    let again = instead(&lost, 2);
    assert_eq!(f.accept_one("a", again).await.status, VerdictStatus::Accepted);
    assert_rejected(&f.accept_one("a", lost).await, Code::AlreadyDecided);
    assert_eq!(f.stock("a", "p").await, "9");
    assert!(f.alarms("device_seq_gap").await[0].cleared_at.is_some());
}

pub async fn a_reused_id_may_be_replaced_once(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "p", "1");
    f.accept_one("a", sale.clone()).await;
    let other = with(with(sale.clone(), "receipt_no", json!("other")), "device_seq", json!(2));
    assert_rejected(&f.accept_one("a", other.clone()).await, Code::IdReused);
    assert_eq!(f.accept_one("a", instead(&other, 3)).await.status, VerdictStatus::Accepted);
    assert_rejected(&f.accept_one("a", instead(&other, 4)).await, Code::AlreadyDecided);
    assert_eq!(f.accept_one("a", sale).await.status, VerdictStatus::Duplicate, "the first stands");
    assert_eq!(f.stock("a", "p").await, "8");
}

pub async fn an_operator_sends_again_what_can_be_accepted_now(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "later", "2");
    f.clock.forward_s(60);
    f.accept_from("a", "till", "j", 1_000, vec![sale.clone()]).await.unwrap();
    let (id, new) = (id_of(&sale), new_id());
    assert_eq!(refused(decide(&f, id, DeadLetterAct::Retry(new_id())).await), Code::UnknownProduct);
    assert_eq!(letters(&f, |_| ()).await.len(), 1, "nothing was decided");
    f.put_ids(&["later"]).await;
    let decided = decide(&f, id, DeadLetterAct::Retry(new)).await.unwrap();
    let verdict = decided.verdict.unwrap();
    assert_eq!((verdict.status, verdict.seq), (VerdictStatus::Accepted, Some(f.head("a").await.seq)));
    assert_eq!((decided.decision.decision, decided.decision.replaced_by), (Decision::Replaced, Some(new)));
    assert_eq!(f.stock("a", "later").await, "-2");
    let row = f.row("a", "transaction", &new.to_string()).await.unwrap();
    assert_eq!((&row["device_id"], &row["device_seq"], &row["occurred_at"]), (&json!("till"), &json!(1), &sale["occurred_at"]));
    assert!(f.frames().await.iter().any(|(_, frame)| Some(frame.seq) == verdict.seq && frame.ops == [new]), "its commit names it");
    assert!(letters(&f, |_| ()).await.is_empty());
    assert_eq!(refused(decide(&f, id, DeadLetterAct::Retry(new_id())).await), Code::AlreadyDecided);
    assert_rejected(&f.accept_one("a", sale).await, Code::UnknownProduct);
    assert_eq!(f.stock("a", "later").await, "-2");
    assert_eq!(refused(decide(&f, new_id(), DeadLetterAct::Discard).await), Code::NotFound);
}

pub async fn an_operator_corrects_what_cannot(f: Fixture) {
    let f = stocked(f).await;
    let bad = with(f.act(1, "adjust", "product", "p", "-1"), "quantity", json!("-1.0"));
    assert_rejected(&f.accept_one("a", bad.clone()).await, Code::MalformedQuantity);
    let correction = json!({"type": "adjust", "collection": "product", "item_id": "p", "quantity": "-1", "reason": "broken"});
    let wrong = with(correction.clone(), "item_id", json!("none")).to_string();
    assert_eq!(refused(decide(&f, id_of(&bad), DeadLetterAct::Edit(new_id(), wrong)).await), Code::UnknownProduct);
    assert_eq!(refused(decide(&f, id_of(&bad), DeadLetterAct::Edit(new_id(), "7".into())).await), Code::MalformedOperation);
    assert_eq!(refused(decide(&f, id_of(&bad), DeadLetterAct::Retry(new_id())).await), Code::MalformedQuantity);
    decide(&f, id_of(&bad), DeadLetterAct::Edit(new_id(), correction.to_string())).await.unwrap();
    assert_eq!(f.stock("a", "p").await, "9");
}

pub async fn a_decision_at_the_server_overrules_the_till(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "later", "1");
    f.accept_one("a", sale.clone()).await;
    f.put_ids(&["later"]).await;
    // The till sent it again while it was offline; the operator was faster.
    let from_till = instead(&sale, 2);
    let by = new_id();
    decide(&f, id_of(&sale), DeadLetterAct::Retry(by)).await.unwrap();
    assert_rejected(&f.accept_one("a", from_till.clone()).await, Code::AlreadyDecided);
    assert_eq!(f.stock("a", "later").await, "-1");
    let heard = settle(&f, "till", vec![], vec![id_of(&sale), id_of(&from_till)]).await;
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0].replaced_by, heard[0].decided_by, heard[0].reason.as_str()), (Some(by), DecidedBy::Operator, "asked the cashier"));
    let late = LocalDecision { id: id_of(&sale), device_seq: 1, replaced_by: None };
    assert_eq!(settle(&f, "till", vec![late], vec![]).await, heard, "a discard that comes too late");
}

pub async fn a_decision_at_the_till_overrules_the_server(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "later", "1");
    f.accept_one("a", sale.clone()).await;
    f.put_ids(&["later"]).await;
    let from_till = instead(&sale, 2);
    // The till tells of it before the operation itself comes through.
    let told = LocalDecision { id: id_of(&sale), device_seq: 1, replaced_by: Some(id_of(&from_till)) };
    let heard = settle(&f, "till", vec![told], vec![]).await;
    assert_eq!((heard[0].decision, heard[0].decided_by), (Decision::Replaced, DecidedBy::Device));
    assert_eq!(refused(decide(&f, id_of(&sale), DeadLetterAct::Retry(new_id())).await), Code::AlreadyDecided);
    assert_eq!(f.accept_one("a", from_till).await.status, VerdictStatus::Accepted);
    assert_eq!(f.stock("a", "later").await, "-1");
}

pub async fn a_discarded_operation_stays_discarded(f: Fixture) {
    let f = stocked(f).await;
    let (at_till, at_server, lost) = (f.sale(1, "later", "1"), f.sale(2, "later", "1"), f.sale(3, "p", "1"));
    f.accept("a", vec![at_till.clone(), at_server.clone()]).await;
    f.put_ids(&["later"]).await;
    let discarded =
        [(&at_till, 1), (&lost, 3)].map(|(of, device_seq)| LocalDecision { id: id_of(of), device_seq, replaced_by: None }).to_vec();
    assert_eq!(settle(&f, "till", discarded, vec![]).await.len(), 2);
    assert_eq!(refused(decide(&f, id_of(&at_till), DeadLetterAct::Retry(new_id())).await), Code::AlreadyDecided);
    let decided = decide(&f, id_of(&at_server), DeadLetterAct::Discard).await.unwrap();
    assert_eq!((decided.decision.decision, decided.verdict), (Decision::Discarded, None));
    assert_rejected(&f.accept_one("a", instead(&at_server, 4)).await, Code::AlreadyDecided);
    assert_rejected(&f.accept_one("a", lost).await, Code::AlreadyDecided);
    assert_eq!((f.stock("a", "later").await, f.stock("a", "p").await), ("0".into(), "10".into()));
    assert!(letters(&f, |_| ()).await.is_empty());
    assert!(f.alarms("device_seq_gap").await.is_empty(), "its number is accounted for");
}

pub async fn a_till_decides_about_its_own_only(f: Fixture) {
    let f = stocked(f).await;
    let sale = f.sale(1, "later", "1");
    f.accept_one("a", sale.clone()).await;
    let foreign = LocalDecision { id: id_of(&sale), device_seq: 1, replaced_by: None };
    assert!(settle(&f, "other", vec![foreign], vec![id_of(&sale)]).await.is_empty());
    f.put_ids(&["later"]).await;
    let theirs = f.accept_from("a", "other", "k", 0, vec![instead(&sale, 1)]).await.unwrap().remove(0);
    assert_rejected(&theirs, Code::MalformedOperation);
    decide(&f, id_of(&sale), DeadLetterAct::Retry(new_id())).await.unwrap();
    assert!(settle(&f, "other", vec![], vec![id_of(&sale)]).await.is_empty());
}

pub async fn dead_letters_are_listed_by_branch_and_till(f: Fixture) {
    let f = stocked(f).await;
    for (at, till) in [("a", "one"), ("a", "two"), ("b", "one")] {
        f.accept_from(at, till, &format!("{at}{till}"), 0, vec![f.sale(1, "none", "1"), f.sale(2, "p", "1")]).await.unwrap();
    }
    let all = letters(&f, |_| ()).await;
    assert_eq!(all.len(), 3);
    assert_eq!((&all[0]["branch"], &all[0]["device"], &all[0]["code"]), (&json!("b"), &json!("one"), &json!("unknown_product")));
    assert!(all[0]["detail"].as_str().unwrap().contains("none") && all[0]["body"]["receipt_no"] == "R-1", "{}", all[0]);
    assert_eq!(letters(&f, |of| of.branch = Some(branch("a").branch)).await.len(), 2);
    assert_eq!(letters(&f, |of| of.device = Some(device("one"))).await.len(), 2);
    let id = OperationId::parse(all[0]["id"].as_str().unwrap()).unwrap();
    decide(&f, id, DeadLetterAct::Discard).await.unwrap();
    assert_eq!(letters(&f, |_| ()).await.len(), 2);
    let decided = letters(&f, |of| of.decided_too = true).await;
    assert_eq!((decided.len(), &decided[0]["decision"], &decided[0]["decided_by"]), (3, &json!("discarded"), &json!("operator")));
}

pub async fn what_nobody_decided_about_keeps_its_body(f: Fixture) {
    let f = stocked(f).await;
    let (open, given_up) = (f.sale(1, "none", "1"), f.sale(2, "none", "1"));
    f.accept("a", vec![open.clone(), given_up.clone()]).await;
    decide(&f, id_of(&given_up), DeadLetterAct::Discard).await.unwrap();
    f.clock.forward_s(200 * 24 * 3600);
    f.settle().await;
    let bodies: Vec<bool> = letters(&f, |of| of.decided_too = true).await.iter().map(|letter| letter["body"].is_null()).collect();
    assert_eq!(bodies, [true, false]);
}

pub async fn a_wild_number_of_a_rejected_operation_hides_no_gap(f: Fixture) {
    let f = stocked(f).await;
    f.accept("a", vec![f.sale(1, "p", "1")]).await;
    for wild in [u64::MAX / 2, 1 << 40, 600] {
        assert_eq!(f.accept_one("a", f.sale(wild, "none", "1")).await.status, VerdictStatus::Rejected);
    }
    let jumps = f.alarms("device_seq_jump").await;
    assert_eq!(jumps.len(), 3);
    assert!(jumps[2].detail.contains("number 9223372036854775807") && jumps[2].detail.contains("numbers 2 to"), "{}", jumps[2].detail);
    assert!(f.alarms("device_seq_gap").await.is_empty());
    f.accept("a", vec![f.sale(2, "p", "1"), f.sale(4, "p", "1")]).await;
    let gaps = f.alarms("device_seq_gap").await;
    assert_eq!(gaps.len(), 1);
    assert!(
        gaps[0].detail.contains("number 3 of till") && gaps[0].detail.contains("between the receipts R-2 and R-4"),
        "{}",
        gaps[0].detail
    );
    f.accept("a", vec![f.sale(3, "p", "1")]).await;
    assert!(f.alarms("device_seq_gap").await[0].cleared_at.is_some());
}

pub async fn a_far_number_is_alarmed_and_met_later(f: Fixture) {
    let f = stocked(f).await;
    f.accept("a", vec![f.sale(1, "p", "0.001"), f.sale(10_000, "p", "0.001"), f.sale(10_001, "p", "0.001")]).await;
    let open = async |kind| f.alarms(kind).await.iter().filter(|alarm| alarm.cleared_at.is_none()).count();
    assert_eq!((open("device_seq_jump").await, open("device_seq_gap").await), (1, 0));
    f.accept("a", vec![f.sale(9_999, "p", "0.001"), f.sale(4_998, "p", "0.001")]).await;
    assert_eq!((open("device_seq_jump").await, open("device_seq_gap").await), (1, 1), "2 to 4997 are missing");
    let rest: Vec<u64> = (2..4_998).chain(4_999..9_999).collect();
    for some in rest.chunks(500) {
        let told = some.iter().map(|seq| LocalDecision { id: new_id(), device_seq: *seq, replaced_by: None }).collect();
        settle(&f, "till", told, vec![]).await;
    }
    assert_eq!((open("device_seq_jump").await, open("device_seq_gap").await), (0, 0));
}

pub async fn a_number_told_of_later_closes_its_gap(f: Fixture) {
    let f = stocked(f).await;
    let lost = f.sale(2, "p", "1");
    f.accept("a", vec![f.sale(1, "p", "1"), f.sale(3, "p", "1")]).await;
    assert_eq!(f.alarms("device_seq_gap").await.len(), 1);
    settle(&f, "till", vec![LocalDecision { id: id_of(&lost), device_seq: 2, replaced_by: None }], vec![]).await;
    assert!(f.alarms("device_seq_gap").await[0].cleared_at.is_some());
}

pub async fn refused_uploads_are_alarmed_until_they_pass(f: Fixture) {
    let f = stocked(f).await;
    let claim = NewClaim {
        code_hash: [7; 32],
        device: device("till"),
        key: branch("a"),
        name: String::new(),
        expires_at: f.clock.now().plus_ms(1_000),
        by: by(),
    };
    f.store.claim(claim).await.unwrap();
    for (refused, open, all) in [(true, 1, 1), (true, 1, 1), (false, 0, 1), (false, 0, 1), (true, 1, 2)] {
        let report = json!({"state": "live", "queue_depth": 3, "upload_refused": refused});
        f.store.change_device(&device("till"), DeviceChange::Report(report), &by(), f.clock.now()).await.unwrap();
        let alarms = f.alarms("uploads_refused").await;
        assert_eq!((alarms.iter().filter(|alarm| alarm.cleared_at.is_none()).count(), alarms.len()), (open, all));
    }
}

pub async fn a_backend_may_not_rewrite_a_receipt(f: Fixture) {
    let f = stocked(f).await;
    f.put_merchant(|m| m.stock_authority = StockAuthority::Backend).await.unwrap();
    let sale = f.sale(1, "p", "1");
    f.accept_one("a", sale.clone()).await;
    let (id, before) = (id_of(&sale), f.row("a", "transaction", sale["id"].as_str().unwrap()).await);
    let event = |key: &str, total: i64| {
        let transaction = json!({"id": id.to_string(), "type": "sale", "total": {"amount": total, "currency": "IDR"}, "booked_by": "erp"});
        let transaction = Row::parse(&transaction.to_string()).unwrap();
        let event = EventRequest::TransactionCreated { idempotency_key: key.into(), version: 1, transaction, ops: vec![id] };
        SourceWrite::Event { key: branch("a"), event: Box::new(event) }
    };
    let written = f.write(event("k1", 500)).await.unwrap();
    assert!(written.duplicate && f.alarms("transaction_differs").await.is_empty());
    let own = f.store.own_operations(&branch("a"), &device("till"), 0, f.head("a").await.seq).await.unwrap();
    assert_eq!(own, [id], "the backend has it: it waits for nothing");
    f.write(event("k2", 400)).await.unwrap();
    let alarms = f.alarms("transaction_differs").await;
    assert!(alarms.len() == 1 && alarms[0].detail.contains("another total for"), "{alarms:?}");
    assert_eq!(f.row("a", "transaction", &id.to_string()).await, before);
}
