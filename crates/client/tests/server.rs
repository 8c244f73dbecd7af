//! A client against a real server in the same process: enrolment, first sync, live changes, sales offline and online, repair.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use mstore_broker::EmbeddedConfig;
use mstore_client::{Client, Collection, DeviceState, NewReceipt, Options, Quantity, Query, Via};
use mstore_protocol::{BranchKey, Code, Currency, Env, MerchantId, Money, OperationId, StockTarget, Timestamp};
use mstore_server::{AdminToken, MasterKey, Running, Secrets, Server, ServerConfig, system_clock};
use mstore_store::{
    Merchant, MoveKind, Product, SourceWrite, StockMove, StockPolicy, Store,
    sqlite::{SqliteConfig, SqliteStore},
};

/// Nothing here takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

struct Shop {
    running: Running,
    store: Arc<dyn Store>,
    dir: tempfile::TempDir,
    admin: AdminToken,
}

fn key() -> BranchKey {
    BranchKey::parse("m1", "b1").unwrap()
}

fn product(id: &str) -> Product {
    let price = Money { amount: 1_000, currency: Currency::parse("IDR").unwrap() };
    Product {
        id: id.into(),
        sku: id.into(),
        barcode: Some(format!("899{id}")),
        name: format!("Product {id}"),
        category: Some("drinks".into()),
        unit: "pcs".into(),
        price,
        track_stock: true,
        is_active: true,
    }
}

impl Shop {
    async fn open(products: usize) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = SqliteStore::open(SqliteConfig::new(dir.path().join("mstore.db"), system_clock())).unwrap();
        let secrets = Secrets { master_key: MasterKey::generate(), admin_token: AdminToken::generate() };
        let admin = secrets.admin_token.clone();
        let config = ServerConfig::new(Env::parse("test").unwrap(), secrets, EmbeddedConfig::tcp("127.0.0.1:0".parse().unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = Server::start(config, store.clone(), listener).await.unwrap();
        let shop = Self { running, store, dir, admin };
        let merchant = MerchantId::parse("m1").unwrap();
        let currency = Currency::parse("IDR").unwrap();
        let settings = Merchant {
            merchant: merchant.clone(),
            name: "Kopi".into(),
            currency,
            stock_policy: StockPolicy::Warn,
            stock_authority: Default::default(),
        };
        shop.write(SourceWrite::PutMerchant(settings)).await;
        shop.write(SourceWrite::PutBranch { key: key(), name: "One".into() }).await;
        let products = (0..products).map(|n| product(&format!("P{n:05}"))).collect();
        shop.write(SourceWrite::PutProducts { merchant, products }).await;
        shop
    }

    async fn write(&self, write: SourceWrite) -> u64 {
        self.store.write(write).await.unwrap().seqs.get(&key()).copied().unwrap_or(0)
    }

    async fn move_stock(&self, id: &str, quantity: &str) -> u64 {
        let random: [u8; 10] = std::array::from_fn(|_| rand::random());
        let moved = StockMove {
            id: OperationId::from_parts(Timestamp::from_ms(1_700_000_000_000), random),
            collection: StockTarget::Product,
            item_id: id.into(),
            kind: MoveKind::Delta,
            quantity: Quantity::parse(quantity).unwrap(),
            reason: "test".into(),
        };
        self.write(SourceWrite::MoveStock { key: key(), moves: vec![moved] }).await
    }

    async fn till(&self, name: &str, options: Options) -> Client {
        let http = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
        let body = serde_json::json!({"device_id": name, "merchant": "m1", "branch": "b1", "name": name}).to_string();
        let request = http.post(format!("{}/v1/admin/devices", self.running.http_url())).bearer_auth(self.admin.reveal());
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap().text().await.unwrap();
        let claim: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let code = claim["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let options = Options { seed: Some(7), ..options };
        Client::enrol(self.dir.path().join(format!("{name}.db")), &self.running.http_url(), &code, options).await.unwrap()
    }

    async fn same_as_server(&self, till: &Client) {
        let head = self.store.head(&key()).await.unwrap().unwrap();
        let (cursor, digests) = till.digests();
        assert_eq!(cursor, Some(head.cursor()));
        for (collection, digest) in head.digests {
            assert_eq!(digests.get(&collection).copied().unwrap_or_default(), digest, "{collection}");
        }
    }
}

async fn until(till: &Client, what: &str, reached: impl Fn(&mstore_client::Status) -> bool) {
    let mut status = till.watch_status();
    let waited = tokio::time::timeout(DEADLINE, status.wait_for(|status| reached(status))).await;
    assert!(waited.is_ok(), "not {what}: {:?} {:?}", till.status(), till.stats());
}

async fn at_seq(till: &Client, seq: u64) {
    until(till, &format!("at {seq}"), |status| status.cursor.is_some_and(|cursor| cursor.seq >= seq)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_till_syncs_lives_sells_goes_offline_and_comes_back() {
    let shop = Shop::open(30).await;
    let till = shop.till("till-1", Options::default()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    assert_eq!(till.products(&Query::default()).unwrap().len(), 30);
    assert_eq!(till.product_by_barcode("899P00003").unwrap().unwrap().id, "P00003");

    let mut applied = till.applied();
    let seq = shop.move_stock("P00003", "12.5").await;
    let commit = tokio::time::timeout(DEADLINE, applied.recv()).await.unwrap().unwrap();
    assert_eq!((commit.seq, commit.via, commit.changes), (seq, Via::Mqtt, 1));
    assert_eq!(till.product("P00003").unwrap().unwrap().stock.to_string(), "12.5");

    let sale = till.commit_sale(NewReceipt::of([("P00003", Quantity::from_units(2))])).await.unwrap();
    assert_eq!(till.product("P00003").unwrap().unwrap().stock.to_string(), "10.5");
    till.drain(DEADLINE).await.unwrap();
    until(&till, "shown", |status| status.cursor.is_some_and(|cursor| cursor.seq > seq)).await;
    let shown = till.product("P00003").unwrap().unwrap();
    assert_eq!((shown.stock, shown.server_stock), (shown.server_stock, Quantity::parse("10.5").unwrap()));
    assert_eq!(till.transactions(&Query::default()).unwrap()[0].id, sale.id.to_string());

    till.set_online(false).await;
    until(&till, "offline", |status| status.state == DeviceState::Offline).await;
    till.commit_sale(NewReceipt::of([("P00003", Quantity::from_units(1))])).await.unwrap();
    let seq = shop.move_stock("P00004", "7").await;
    assert_eq!(till.status().queue_depth.max(1), 1);
    assert!(till.drain(Duration::from_millis(50)).await.is_err());
    till.set_online(true).await;
    till.drain(DEADLINE).await.unwrap();
    at_seq(&till, seq + 1).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    assert_eq!(till.product("P00003").unwrap().unwrap().stock.to_string(), "9.5");
    shop.same_as_server(&till).await;
    let stats = till.stats();
    assert_eq!((stats.operations_accepted, stats.operations_rejected), (2, 0), "{stats:?}");
    assert_eq!(stats.changes_fallback, 0, "MQTT brought all that it could, and a return from offline is no fallback: {stats:?}");
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_sales_become_dead_letters_and_can_be_edited() {
    let shop = Shop::open(3).await;
    let till = shop.till("till-1", Options::default()).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    let mut receipt = NewReceipt::of([("nobody-knows", Quantity::from_units(1))]);
    receipt.lines[0].unit_price = Some(Money { amount: 5, currency: Currency::parse("IDR").unwrap() });
    let bad = till.commit_sale(receipt).await.unwrap();
    let good = till.commit_sale(NewReceipt::of([("P00001", Quantity::from_units(1))])).await.unwrap();
    till.drain(DEADLINE).await.unwrap();
    let letters = till.dead_letters().await.unwrap();
    assert_eq!((letters.len(), letters[0].operation.id, letters[0].code), (1, bad.id, Some(Code::UnknownProduct)));
    till.discard(bad.id).await.unwrap();
    until(&till, "without dead letters", |status| status.dead_letters == 0).await;
    let head = shop.store.head(&key()).await.unwrap().unwrap();
    at_seq(&till, head.seq).await;
    assert_eq!(till.transactions(&Query::default()).unwrap().iter().filter(|t| t.id == good.id.to_string()).count(), 1);
    till.close().await;
    shop.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_mqtt_the_poll_goes_on_and_a_restarted_till_knows_what_it_knew() {
    let shop = Shop::open(5).await;
    let till = shop.till("till-1", Options { poll_interval: Duration::from_millis(200), ..Options::default() }).await;
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    shop.running.broker_stop().await;
    until(&till, "polling", |status| status.state == DeviceState::Polling).await;
    let seq = shop.move_stock("P00001", "3").await;
    at_seq(&till, seq).await;
    let path = till.path().to_owned();
    till.close().await;
    let till = Client::open(&path, Options { online: false, ..Options::default() }).await.unwrap();
    assert_eq!(till.product("P00001").unwrap().unwrap().stock.to_string(), "3");
    assert_eq!(till.rows(&Collection::product()).unwrap().len(), 5);
    till.close().await;
    shop.running.shutdown().await;
}

/// Figures, not a test: `cargo test --release -p mstore-client --test server -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures() {
    let rows = 10_000;
    let shop = Shop::open(rows).await;
    let began = std::time::Instant::now();
    let till = shop.till("figure-1", Options { report_interval: None, ..Options::default() }).await;
    until(&till, "synced", |status| status.cursor.is_some()).await;
    println!("first sync {rows} rows: {:?}", began.elapsed());
    until(&till, "live", |status| status.state == DeviceState::Live).await;
    for devices in [1, 50] {
        let mut tills = Vec::new();
        for n in 0..devices {
            let till = shop.till(&format!("d{devices}-{n}"), Options { report_interval: None, ..Options::default() }).await;
            until(&till, "live", |status| status.state == DeviceState::Live).await;
            tills.push(till);
        }
        let mut inboxes: Vec<_> = tills.iter().map(Client::applied).collect();
        let mut took = Vec::new();
        for n in 0..100 {
            let began = std::time::Instant::now();
            let seq = shop.move_stock(&format!("P{n:05}"), "1").await;
            let written = began.elapsed();
            for inbox in &mut inboxes {
                while inbox.recv().await.unwrap().seq < seq {}
                took.push((began.elapsed() - written).as_micros());
            }
        }
        took.sort_unstable();
        println!("{devices} devices: write returned → applied p50 {} µs, p99 {} µs", took[took.len() / 2], took[took.len() * 99 / 100]);
        for till in tills {
            till.close().await;
        }
    }
    shop.running.shutdown().await;
}
