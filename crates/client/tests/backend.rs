//! A till of a merchant whose backend decides: what it sold stays in the overlay until there is a verdict, and a late rejection is a dead letter.
#![allow(clippy::unwrap_used)]

mod support;

use mstore_client::{Client, DeviceState, NewReceipt, Options, Quantity};
use mstore_protocol::{BackendDecision, BackendVerdict, Code, MerchantId, OperationId, StockAuthority};
use mstore_store::{InboxOf, Merchant, SourceWrite, StockPolicy};
use support::{DEADLINE, Shop, money, until};

fn merchant() -> MerchantId {
    MerchantId::parse("m1").unwrap()
}

/// Ten teas on the shelf, and a backend that decides from now on.
async fn decided_elsewhere() -> Shop {
    let shop = Shop::open().await;
    shop.deliver("tea", "10").await;
    let settings = Merchant {
        merchant: merchant(),
        name: "Kopi".into(),
        currency: money(0).currency,
        stock_policy: StockPolicy::Warn,
        stock_authority: StockAuthority::Backend,
    };
    shop.write(SourceWrite::PutMerchant(settings)).await;
    shop.store.set_inbox(true).await.unwrap();
    shop
}

async fn sell(till: &Client) -> OperationId {
    let sold = till.commit_sale(NewReceipt::of([("tea", Quantity::from_units(2))])).await.unwrap();
    till.drain(DEADLINE).await.unwrap();
    sold.id
}

async fn waiting(shop: &Shop) -> usize {
    shop.store.inbox(InboxOf { merchant: merchant(), branch: None, decided_too: false }, None, 100).await.unwrap().items.len()
}

fn tea(till: &Client) -> String {
    till.product("tea").unwrap().unwrap().stock.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_rejection_is_a_dead_letter_of_the_till() {
    let shop = decided_elsewhere().await;
    let till = shop.till("till-1", &shop.running.http_url(), Options::default()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    let id = sell(&till).await;
    assert_eq!((tea(&till), till.status().dead_letters, waiting(&shop).await), ("8".into(), 0, 1));
    let no = BackendVerdict { verdict: BackendDecision::Rejected, code: Some("closed".into()), detail: None };
    shop.store.give_verdict(&merchant(), id, no).await.unwrap();
    until(&till, "a dead letter", |status| status.dead_letters == 1).await;
    let letter = till.dead_letters().await.unwrap().remove(0);
    assert_eq!((letter.operation.id, letter.code, letter.detail.as_deref()), (id, Some(Code::RefusedByBackend), Some("backend:closed")));
    assert_eq!(tea(&till), "10", "it shows what the server has");
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acceptance_that_changes_nothing_ends_the_overlay() {
    let shop = decided_elsewhere().await;
    let till = shop.till("till-1", &shop.running.http_url(), Options::default()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    let id = sell(&till).await;
    assert_eq!(tea(&till), "8");
    let cursor = till.status().cursor;
    shop.store.give_verdict(&merchant(), id, BackendVerdict::accepted()).await.unwrap();
    until(&till, "the commit", |status| status.cursor != cursor).await;
    shop.until("asked after", async |_| till.status().queue_depth == 0 && tea(&till) == "10").await;
    assert_eq!(till.status().dead_letters, 0);
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_that_came_while_the_till_was_away_reaches_it() {
    let shop = decided_elsewhere().await;
    let till = shop.till("till-1", &shop.running.http_url(), Options::default()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    let id = sell(&till).await;
    till.set_online(false).await;
    let no = BackendVerdict { verdict: BackendDecision::Rejected, code: None, detail: Some("no such order".into()) };
    shop.store.give_verdict(&merchant(), id, no).await.unwrap();
    till.set_online(true).await;
    until(&till, "a dead letter", |status| status.dead_letters == 1).await;
    assert_eq!((tea(&till), till.dead_letters().await.unwrap()[0].detail.as_deref()), ("10".into(), Some("no such order")));
    till.close().await;
    shop.running.shutdown().await;
}
