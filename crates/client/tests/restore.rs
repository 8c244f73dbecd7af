//! A server that is put back to a backup while its tills went on: noticed, healed by ranges, and no receipt lost or doubled.
#![allow(clippy::unwrap_used)]

mod shop;

use std::collections::BTreeSet;

use mstore_client::{Client, Collection, DeviceState, NewReceipt, Options, Quantity, Query};
use mstore_store::Listing;
use shop::{DEADLINE, Shop, key, until, until_true};

async fn sell(till: &Client, product: &str) -> String {
    till.commit_sale(NewReceipt::of([(product, Quantity::from_units(1))])).await.unwrap().id.to_string()
}

async fn live(till: &Client) {
    until(till, "live", |status| status.state == DeviceState::Live && status.queue_depth == 0).await;
}

/// The receipts that the server has, each as often as it has it.
async fn receipts(shop: &Shop) -> Vec<String> {
    let page = shop.store.list(Listing::Transactions(key()), None, 1_000).await.unwrap();
    let mut ids: Vec<String> = page.items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

async fn alarms(shop: &Shop, kind: &str) -> usize {
    let page = shop.store.list(Listing::Alarms, None, 1_000).await.unwrap();
    page.items.iter().filter(|alarm| alarm["kind"] == kind).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_server_gets_its_receipts_back_and_tills_fetch_only_what_differs() {
    const PRODUCTS: usize = 2_000;
    let shop = Shop::open(PRODUCTS).await;
    let tills = [shop.till("till-1", Options::default()).await, shop.till("till-2", Options::default()).await];
    let mut sold = BTreeSet::new();
    for till in &tills {
        live(till).await;
        sold.insert(sell(till, "P00001").await);
        till.drain(DEADLINE).await.unwrap();
    }
    let stopped = shop.stop().await;
    stopped.back_up("monday.db");

    // Tuesday is not in the backup: sales, a delivery, a new price.
    let shop = stopped.start().await;
    for (n, till) in tills.iter().enumerate() {
        live(till).await;
        for i in 0..5 {
            sold.insert(sell(till, &format!("P{:05}", 100 * n + i)).await);
        }
        till.drain(DEADLINE).await.unwrap();
    }
    shop.move_stock("P00500", "40").await;
    for till in &tills {
        shop.same_as_server(till).await;
    }
    let before: Vec<_> = tills.iter().map(Client::stats).collect();
    let stopped = shop.stop().await;
    stopped.restore("monday.db");

    let shop = stopped.start().await;
    for till in &tills {
        until(till, "renumbered", |status| status.cursor.is_some_and(|cursor| cursor.seq > 0)).await;
        until_true("renumbered", async || till.stats().engine.renumberings == 1).await;
        till.drain(DEADLINE).await.unwrap();
    }
    let wanted: Vec<String> = sold.iter().cloned().collect();
    until_true("all receipts", async || receipts(&shop).await == wanted).await;
    for (till, before) in tills.iter().zip(&before) {
        shop.same_as_server(till).await;
        live(till).await;
        let after = till.stats();
        assert_eq!(after.engine.snapshots, before.engine.snapshots, "no snapshot: {after:?}");
        assert!(after.engine.ranges_repaired > 0, "{after:?}");
        let fetched = after.changes_http - before.changes_http;
        assert!(fetched < PRODUCTS as u64 / 4, "{fetched} rows for a dozen that differ");
        // The delivery is not in the backup and in no journal: it is gone, on every till alike. The sales are not.
        assert_eq!(till.product("P00500").unwrap().unwrap().stock.to_string(), "0");
        assert_eq!(till.product("P00001").unwrap().unwrap().stock.to_string(), "-3");
        assert_eq!(till.transactions(&Query { limit: 1_000, ..Query::default() }).unwrap().len(), sold.len());
    }
    assert_eq!(alarms(&shop, "restored_from_backup").await, 1, "one for the branch, whoever notices first");
    assert!(shop.mirror_is_whole().await);
    for till in tills {
        till.close().await;
    }
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_server_that_went_on_is_noticed_by_the_tag() {
    let shop = Shop::open(50).await;
    let till = shop.till("till-1", Options::default()).await;
    live(&till).await;
    let stopped = shop.stop().await;
    stopped.back_up("monday.db");
    let shop = stopped.start().await;
    live(&till).await;
    let sale = sell(&till, "P00001").await;
    till.drain(DEADLINE).await.unwrap();
    shop.same_as_server(&till).await;
    till.set_online(false).await;
    let stopped = shop.stop().await;
    stopped.restore("monday.db");

    // The same number of commits, other commits: only the tag tells.
    let shop = stopped.start().await;
    shop.move_stock("P00002", "7").await;
    let head = shop.store.head(&key()).await.unwrap().unwrap();
    assert_eq!(till.status().cursor.unwrap().seq, head.seq);
    till.set_online(true).await;
    until_true("the receipt", async || receipts(&shop).await == [sale.clone()]).await;
    shop.same_as_server(&till).await;
    let stock = |id: &str| till.product(id).unwrap().unwrap().stock.to_string();
    assert_eq!((stock("P00001"), stock("P00002")), ("-1".to_owned(), "7".to_owned()));
    assert_eq!((till.stats().engine.renumberings, till.stats().engine.snapshots), (1, 1), "{:?}", till.stats());
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_most_rows_differ_everything_is_fetched() {
    const PRODUCTS: usize = 4_000;
    let shop = Shop::open(PRODUCTS).await;
    let till = shop.till("till-1", Options::default()).await;
    live(&till).await;
    let stopped = shop.stop().await;
    stopped.back_up("monday.db");
    let shop = stopped.start().await;
    let merchant = key().merchant;
    let renamed = (0..PRODUCTS).map(|n| mstore_store::Product { name: "New".into(), ..shop::product(&format!("P{n:05}")) }).collect();
    shop.write(mstore_store::SourceWrite::PutProducts { merchant, products: renamed }).await;
    shop.same_as_server(&till).await;
    let stopped = shop.stop().await;
    stopped.restore("monday.db");
    let shop = stopped.start().await;
    until_true("renumbered", async || till.stats().engine.renumberings == 1).await;
    shop.same_as_server(&till).await;
    assert_eq!(till.stats().engine.snapshots, 2, "{:?}", till.stats());
    assert!(till.rows(&Collection::product()).unwrap().iter().all(|row| !row.contains("\"New\"")));
    till.close().await;
    shop.running.shutdown().await;
}
