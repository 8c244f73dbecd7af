//! The server is killed at every place between a request and its answer, and between a commit and its frame. Afterwards the numbering is the
//! same, a till that was there all the time has missed nothing, and everything that was done was done once.
#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used)]

mod outage;

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt as _, path::Path, time::Duration};

use mstore_client::{Client, DeviceState, NewReceipt, Options, Quantity};
use mstore_store::failpoint;
use outage::{Process, Shop, until_true};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

/// Every commit of every branch, and every row as devices have it with the commit that made it so.
#[derive(Debug, PartialEq)]
struct Numbering {
    commits: BTreeMap<(i64, i64), String>,
    rows: BTreeMap<(i64, String, String), (i64, Option<String>)>,
}

impl Numbering {
    fn read(database: &Path) -> Self {
        let sql = Connection::open(database).unwrap();
        let mut commits = sql.prepare("SELECT head, seq, tag FROM commit_log").unwrap();
        let commits = commits.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?))).unwrap();
        let commits = commits.collect::<Result<_, _>>().unwrap();
        let mut rows = sql.prepare("SELECT head, collection, id, seq, row FROM mirror").unwrap();
        let rows = rows.query_map([], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), (row.get(3)?, row.get(4)?)))).unwrap();
        Self { commits, rows: rows.collect::<Result<_, _>>().unwrap() }
    }

    /// What was there is there still: the same commits, and every row that no later commit changed.
    fn goes_on_as(&self, later: &Self, place: &str) {
        let newest: BTreeMap<i64, i64> = self.commits.keys().copied().collect();
        for (commit, tag) in &self.commits {
            assert_eq!(later.commits.get(commit), Some(tag), "{place}: commit {commit:?}");
        }
        for (id, (seq, row)) in &later.rows {
            if *seq <= newest.get(&id.0).copied().unwrap_or(0) {
                assert_eq!(self.rows.get(id), Some(&(*seq, row.clone())), "{place}: {id:?}");
            }
        }
    }
}

/// What was begun while the server might die; all of it is brought to its end afterwards.
struct Work {
    n: usize,
    moved: String,
    claim: Option<String>,
}

impl Work {
    fn new(n: usize) -> Self {
        Self { n, moved: outage::new_id(), claim: None }
    }

    fn device(&self) -> String {
        format!("extra-{}", self.n)
    }

    async fn claim(&mut self, shop: &Shop) -> Option<()> {
        let body = json!({"device_id": self.device(), "merchant": "m1", "branch": "b1", "name": "extra"});
        let (status, answer) = shop.admin(Method::POST, "/devices", body).await?;
        assert_eq!(status, 200, "{answer}");
        self.claim = answer["code"].as_str().map(str::to_owned);
        Some(())
    }

    /// Redeems the claim, always with the same nonce, and logs in with what comes of it.
    async fn enrol(&self, shop: &Shop) -> Option<()> {
        let body = json!({"code": self.claim.as_ref()?, "nonce": format!("nonce-{}", self.n)});
        let (status, answer) = shop.call(Method::POST, "/v1/devices/enrol", None, body).await?;
        assert_eq!(status, 200, "{answer}");
        let bearer = format!("{}:{}", self.device(), answer["token"].as_str()?);
        let (status, answer) = shop.call(Method::GET, "/v1/m1/b1/head", Some(&bearer), Value::Null).await?;
        assert_eq!(status, 200, "{answer}");
        Some(())
    }

    async fn write(&self, shop: &Shop) -> Option<()> {
        let product = json!({"sku": "P", "name": format!("name {}", self.n), "price": {"amount": 1_000, "currency": "IDR"}});
        let (status, answer) = shop.admin(Method::PUT, "/merchants/m1/products/P", product).await?;
        assert_eq!(status, 200, "{answer}");
        let moves = json!({"moves": [{"id": self.moved, "collection": "product", "item_id": "P", "quantity": "10"}]});
        let (status, answer) = shop.admin(Method::POST, "/merchants/m1/branches/b1/stock-moves", moves).await?;
        assert_eq!(status, 200, "{answer}");
        Some(())
    }

    /// A hash that does not fit, for the sweep to mend.
    async fn verify(&self, shop: &Shop) -> Option<()> {
        let sql = Connection::open(shop.database()).unwrap();
        sql.busy_timeout(Duration::from_secs(10)).unwrap();
        sql.execute("UPDATE mirror SET hash = zeroblob(16) WHERE id = 'Q'", []).unwrap();
        shop.admin(Method::POST, "/verify", json!({})).await.map(drop)
    }

    /// Everything once, as far as the server lets it; gives how many sales were committed on the till.
    async fn disturb(&mut self, shop: &Shop, till: &Client) -> usize {
        let mut sales = 0;
        for _ in 0..2 {
            till.commit_sale(NewReceipt::of([("P", Quantity::from_units(1))])).await.unwrap();
            sales += 1;
        }
        let _cut_off = till.rotate().await;
        till.report_now().await;
        // Each of these may be the one that is cut off; the others are tried all the same.
        let _ = self.claim(shop).await;
        let _ = self.enrol(shop).await;
        let _ = self.write(shop).await;
        let _ = self.verify(shop).await;
        sales
    }

    async fn finish(mut self, shop: &Shop) {
        if self.claim.is_none() {
            self.claim(shop).await.unwrap();
        }
        self.enrol(shop).await.unwrap();
        self.write(shop).await.unwrap();
        let (_, verified) = shop.admin(Method::POST, "/verify", json!({})).await.unwrap();
        assert_eq!(verified["differing"], 0, "{verified}");
    }
}

/// What must hold when everything has come to its end.
async fn check(shop: &Shop, till: &Client, rounds: usize, sold: usize, place: &str) {
    till.drain(outage::DEADLINE).await.unwrap_or_else(|error| panic!("{place}: {error}: {:?}", till.status()));
    let stock = (10 * rounds as i64 - sold as i64).to_string();
    until_true(place, async || {
        let live = till.status().state == DeviceState::Live;
        let head = shop.admin_head().await;
        let (cursor, digests) = till.digests();
        let same = digests.iter().all(|(name, digest)| head["digests"][name.as_str()] == json!(digest));
        live && same && cursor.is_some_and(|cursor| head["seq"] == cursor.seq && head["epoch"] == json!(cursor.epoch))
    })
    .await;
    let product = till.product("P").unwrap().unwrap();
    assert_eq!((product.stock.to_string(), product.name), (stock, format!("name {}", rounds - 1)), "{place}");
    let receipts = shop.all("/merchants/m1/branches/b1/transactions").await;
    let mut ids: Vec<&str> = receipts.iter().map(|receipt| receipt["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((receipts.len(), ids.len()), (sold, sold), "{place}: each receipt once");
    let engine = till.stats().engine;
    assert_eq!((engine.renumberings, engine.snapshots, engine.digest_mismatches), (0, 1, 0), "{place}: {engine:?}");
    for alarm in shop.all("/alarms").await {
        assert_eq!(alarm["kind"], "sweep_difference", "{place}: {alarm}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_place_and_nothing_is_lost_or_doubled() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut shop = Shop::new();
    let mut server = Process::start(&mut shop, None);
    shop.fill().await;
    let options = Options { seed: Some(11), ..Options::default() };
    let till = Client::enrol(shop.path("till.db"), &shop.http(), &shop.claim("till").await, options).await.unwrap();
    until_true("live", async || till.status().state == DeviceState::Live).await;
    let (mut rounds, mut sold) = (0, 0);
    for place in failpoint::ALL {
        server.stop();
        let at_start = *place == "upkeep_done";
        if at_start {
            shop.arm();
            assert_eq!(Process::crash(&shop, place).signal(), Some(6), "{place}");
            shop.disarm();
        }
        server = Process::start(&mut shop, (!at_start).then_some(*place));
        until_true("live", async || till.status().state == DeviceState::Live).await;
        let before = Numbering::read(&shop.database());
        let mut work = Work::new(rounds);
        if !at_start {
            shop.arm();
        }
        sold += work.disturb(&shop, &till).await;
        if !at_start {
            let status = server.wait_for_end(place).await;
            assert_eq!(status.signal(), Some(6), "{place}: {status}");
            shop.disarm();
            server = Process::start(&mut shop, None);
        }
        before.goes_on_as(&Numbering::read(&shop.database()), place);
        rounds += 1;
        work.finish(&shop).await;
        check(&shop, &till, rounds, sold, place).await;
    }
    till.close().await;
}
