//! Uploads through a way that misbehaves: refused wholes against refused operations, dead letters on both sides, a journal in a file, nothing that waits for another.
#![allow(clippy::unwrap_used)]

mod support;

use mstore_client::{Client, CommitError, DeviceState, Journal, NewReceipt, OpenError, Options, Quantity, Via, WipeError};
use mstore_protocol::{Code, OperationKind, StockAct, StockTarget};
use serde_json::json;
use support::{DEADLINE, Proxy, Seen, Shop, Way, money, until};

fn is_upload(seen: &Seen<'_>) -> bool {
    seen.line.starts_with("POST") && seen.line.contains("/operations")
}

/// A sale that needs no catalogue.
fn receipt(id: &str, no: &str) -> NewReceipt {
    let mut receipt = NewReceipt::of([(id, Quantity::from_units(1))]);
    receipt.lines[0].unit_price = Some(money(1_000));
    receipt.receipt_no = Some(no.into());
    receipt
}

async fn sell(till: &Client, count: usize) {
    for n in 0..count {
        till.commit_sale(receipt("tea", &format!("T-{n}"))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_are_too_large_for_the_way_are_halved() {
    let shop = Shop::open().await;
    let small_only = |seen: &Seen<'_>| if is_upload(seen) && seen.body.len() > 2_000 { Way::Page(413) } else { Way::Open };
    let proxy = Proxy::before(&shop, small_only).await;
    let till = shop.till("till-1", &proxy.url, Options { online: false, ..Options::default() }).await;
    sell(&till, 40).await;
    till.set_online(true).await;
    till.drain(DEADLINE).await.unwrap();
    assert_eq!((shop.accepted().await, till.status().dead_letters, till.status().upload_refused), (40, 0, false));
    assert!(shop.open_alarms("device_seq_gap").await.is_empty());
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_operation_that_the_way_refuses_is_a_dead_letter_and_leaves_no_gap() {
    let shop = Shop::open().await;
    let picky = |seen: &Seen<'_>| if is_upload(seen) && seen.body.contains("DROP TABLE") { Way::Page(403) } else { Way::Open };
    let proxy = Proxy::before(&shop, picky).await;
    let till = shop.till("till-1", &proxy.url, Options { online: false, ..Options::default() }).await;
    sell(&till, 3).await;
    let odd = till.commit_sale(receipt("tea", "DROP TABLE")).await.unwrap();
    sell(&till, 3).await;
    till.set_online(true).await;
    till.drain(DEADLINE).await.unwrap();
    let letters = till.dead_letters().await.unwrap();
    assert_eq!((letters.len(), letters[0].operation.id, letters[0].code), (1, odd.id, Some(Code::PathRefused)));
    assert_eq!(shop.accepted().await, 6);
    assert_eq!(shop.open_alarms("device_seq_gap").await.len(), 1, "number 4 is missing there");

    let OperationKind::Sale(mut plain) = letters[0].operation.kind.clone() else { panic!("a sale") };
    plain.receipt_no = "T-4".into();
    till.edit(odd.id, OperationKind::Sale(plain)).await.unwrap();
    assert!(matches!(till.edit(odd.id, letters[0].operation.kind.clone()).await, Err(CommitError::NotRejected { .. })));
    till.drain(DEADLINE).await.unwrap();
    shop.until("told of number 4", async |shop| shop.open_alarms("device_seq_gap").await.is_empty()).await;
    assert_eq!((shop.accepted().await, till.status().dead_letters), (7, 0));
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_refuses_everything_costs_nothing_but_time_and_is_alarmed() {
    let shop = Shop::open().await;
    let closed = |seen: &Seen<'_>| if is_upload(seen) { Way::Page(403) } else { Way::Open };
    let proxy = Proxy::before(&shop, closed).await;
    let till = shop.till("till-1", &proxy.url, Options::default()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    sell(&till, 5).await;
    until(&till, "refused", |status| status.upload_refused).await;
    assert_eq!((till.status().queue_depth, till.status().dead_letters, shop.accepted().await), (5, 0, 0));
    till.report_now().await;
    shop.until("alarmed", async |shop| !shop.open_alarms("uploads_refused").await.is_empty()).await;
    assert_eq!(till.status().state, DeviceState::Live, "what comes down is not touched");

    proxy.becomes(|seen| if is_upload(seen) { Way::Page(502) } else { Way::Open });
    till.sync_now().await;
    proxy.becomes(|_| Way::Open);
    till.drain(DEADLINE).await.unwrap();
    assert_eq!((shop.accepted().await, till.status().dead_letters), (5, 0));
    until(&till, "through", |status| !status.upload_refused).await;
    till.report_now().await;
    shop.until("cleared", async |shop| shop.open_alarms("uploads_refused").await.is_empty()).await;
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_gateway_is_no_reason_to_give_anything_up() {
    let shop = Shop::open().await;
    let broken = |seen: &Seen<'_>| if is_upload(seen) { Way::Page(502) } else { Way::Open };
    let mut proxy = Proxy::before(&shop, broken).await;
    let till = shop.till("till-1", &proxy.url, Options::default()).await;
    sell(&till, 4).await;
    proxy.has_refused(3).await;
    assert_eq!((till.status().queue_depth, till.status().dead_letters, till.status().upload_refused), (4, 0, false));
    proxy.becomes(|_| Way::Open);
    till.drain(DEADLINE).await.unwrap();
    assert_eq!(shop.accepted().await, 4);
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upload_holds_up_nothing_that_comes_down() {
    let shop = Shop::open().await;
    let mut proxy = Proxy::before(&shop, |seen| if is_upload(seen) { Way::Held } else { Way::Open }).await;
    let till = shop.till("till-1", &proxy.url, Options::default()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    sell(&till, 1).await;
    proxy.holds().await;
    let seq = shop.deliver("cake", "7").await;
    until(&till, "at the delivery", |status| status.cursor.is_some_and(|cursor| cursor.seq >= seq)).await;
    shop.running.broker_stop().await;
    until(&till, "polling", |status| status.state == DeviceState::Polling).await;
    let seq = shop.deliver("cake", "1").await;
    till.sync_now().await;
    until(&till, "at the second", |status| status.cursor.is_some_and(|cursor| cursor.seq >= seq)).await;
    assert_eq!(till.product("cake").unwrap().unwrap().stock.to_string(), "8");
    let mut applied = till.applied();
    till.resync().await;
    let resynced = tokio::time::timeout(DEADLINE, applied.recv()).await.unwrap().unwrap();
    assert_eq!(resynced.via, Via::Http);
    assert_eq!(
        (till.status().queue_depth, shop.accepted().await),
        (1, 0),
        "all that while the upload hung, and a resync leaves the queue alone"
    );
    assert_eq!(till.product("tea").unwrap().unwrap().stock.to_string(), "-1");
    proxy.open_gate();
    till.drain(DEADLINE).await.unwrap();
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_snapshot_holds_up_no_upload() {
    let shop = Shop::open().await;
    let mut proxy = Proxy::before(&shop, |seen| if seen.line.contains("/changes") { Way::Held } else { Way::Open }).await;
    let till = shop.till("till-1", &proxy.url, Options::default()).await;
    proxy.holds().await;
    sell(&till, 3).await;
    till.drain(DEADLINE).await.unwrap();
    assert_eq!((shop.accepted().await, till.status().cursor), (3, None), "all that while the snapshot hung");
    proxy.open_gate();
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    assert_eq!(till.product("tea").unwrap().unwrap().stock.to_string(), "-3");
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_decided_the_till_does_not_decide_again() {
    let shop = Shop::open().await;
    let till = shop.till("till-1", &shop.running.http_url(), Options::default()).await;
    let bad = till.commit_sale(receipt("later", "T-1")).await.unwrap();
    let other = till.commit_sale(receipt("later", "T-2")).await.unwrap();
    till.drain(DEADLINE).await.unwrap();
    until(&till, "with dead letters", |status| status.dead_letters == 2).await;
    shop.put(&["later"]).await;
    // The till decides without a network, the operator meanwhile.
    till.set_online(false).await;
    let again = till.retry(bad.id).await.unwrap();
    till.discard(other.id).await.unwrap();
    for id in [bad.id, other.id] {
        let decided = shop.post(&format!("/merchants/m1/dead-letters/{id}/retry"), &json!({"reason": "called the shop"})).await;
        assert_eq!(decided["decision"]["decision"], "replaced", "{decided}");
    }
    till.set_online(true).await;
    till.drain(DEADLINE).await.unwrap();
    let letters = till.dead_letters().await.unwrap();
    assert_eq!((letters.len(), letters[0].operation.id, letters[0].code), (1, again.id, Some(Code::AlreadyDecided)));
    assert!(matches!(till.retry(again.id).await, Err(CommitError::AlreadyDecided { .. })));
    till.discard(again.id).await.unwrap();
    assert_eq!(shop.accepted().await, 2, "each receipt once");
    till.report_now().await;
    let head = shop.store.head(&support::key()).await.unwrap().unwrap().seq;
    until(&till, "at the head", |status| status.cursor.is_some_and(|cursor| cursor.seq >= head)).await;
    assert_eq!(till.product("later").unwrap().unwrap().stock.to_string(), "-2");
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_decision_empties_the_tills_list() {
    let shop = Shop::open().await;
    let till = shop.till("till-1", &shop.running.http_url(), Options::default()).await;
    let bad = till.commit_sale(receipt("later", "T-1")).await.unwrap();
    till.drain(DEADLINE).await.unwrap();
    until(&till, "with a dead letter", |status| status.dead_letters == 1).await;
    shop.post(&format!("/merchants/m1/dead-letters/{}/discard", bad.id), &json!({"reason": "a test"})).await;
    till.report_now().await;
    until(&till, "without", |status| status.dead_letters == 0).await;
    assert!(matches!(till.retry(bad.id).await, Err(CommitError::NotRejected { .. })));
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_till_with_unsent_work_is_wiped_only_after_an_export_and_the_file_counts_once() {
    let shop = Shop::open().await;
    let till = shop.till("till-1", &shop.running.http_url(), Options::default()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    sell(&till, 2).await;
    till.drain(DEADLINE).await.unwrap();
    till.set_online(false).await;
    sell(&till, 3).await;
    let refused = till.wipe().await.unwrap_err();
    assert!(matches!(refused.why, WipeError::UnsentWork { waiting: 3, rejected: 0 }), "{refused}");
    let till = *refused.client.unwrap();
    let file = shop.dir.path().join("journal.json");
    let exported = till.export(&file).await.unwrap();
    assert_eq!((exported.operations, exported.waiting), (5, 3));
    let count =
        StockAct { collection: StockTarget::Product, item_id: "tea".into(), quantity: Quantity::from_units(1), reason: "more".into() };
    till.commit(OperationKind::Receive(count)).await.unwrap();
    let refused = till.wipe().await.unwrap_err();
    assert!(matches!(refused.why, WipeError::UnsentWork { waiting: 1, .. }), "what came after the export is in no file: {refused}");
    let till = *refused.client.unwrap();
    till.export(&file).await.unwrap();
    let path = till.path().to_owned();
    till.wipe().await.unwrap();
    assert!(!path.exists());
    assert!(matches!(Journal::open(&path), Err(OpenError::NotEnrolled)));

    let journal: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for statuses in [["duplicate", "accepted"], ["duplicate", "duplicate"]] {
        let answer = shop.post("/devices/till-1/journal", &journal).await;
        let verdicts = answer["verdicts"].as_array().unwrap();
        assert_eq!((&verdicts[1]["status"], &verdicts[5]["status"]), (&json!(statuses[0]), &json!(statuses[1])), "{answer}");
    }
    assert_eq!(shop.accepted().await, 6);
    assert!(shop.open_alarms("device_seq_gap").await.is_empty());
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_is_read_and_decided_about_without_running_the_till() {
    let shop = Shop::open().await;
    let till = shop.till("till-1", &shop.running.http_url(), Options::default()).await;
    let bad = till.commit_sale(receipt("later", "T-1")).await.unwrap();
    let worse = till.commit_sale(receipt("never", "T-2")).await.unwrap();
    till.drain(DEADLINE).await.unwrap();
    let path = till.path().to_owned();
    till.close().await;
    let mut journal = Journal::open(&path).unwrap();
    let letters = journal.dead_letters().unwrap();
    assert_eq!((letters.len(), letters[0].code), (2, Some(Code::UnknownProduct)));
    journal.retry(bad.id).unwrap();
    assert!(matches!(journal.retry(bad.id), Err(CommitError::NotRejected { .. })));
    journal.discard(worse.id).unwrap();
    assert!(matches!(journal.wipe(), Err(WipeError::UnsentWork { waiting: 1, rejected: 0 })));
    shop.put(&["later"]).await;
    let till = Client::open(&path, Options { seed: Some(7), ..Options::default() }).await.unwrap();
    till.drain(DEADLINE).await.unwrap();
    assert_eq!((shop.accepted().await, till.status().dead_letters), (1, 0));
    till.wipe().await.unwrap();
    shop.running.shutdown().await;
}
