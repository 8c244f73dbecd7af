//! A server with one branch, in this process, that can be stopped, put back to a backup and started again on the same addresses.
#![allow(clippy::unwrap_used, dead_code)]

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use mstore_broker::EmbeddedConfig;
use mstore_client::{Client, Options, Quantity};
use mstore_protocol::{BranchKey, Currency, Env, MerchantId, Money, OperationId, StockTarget, Timestamp};
use mstore_server::{AdminToken, MasterKey, Running, Secrets, Server, ServerConfig, system_clock};
use mstore_store::{
    Merchant, MoveKind, Product, SourceWrite, StockMove, StockPolicy, Store,
    sqlite::{SqliteConfig, SqliteStore},
};

/// Nothing here takes this long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) type Change = fn(&mut ServerConfig);

pub(crate) struct Shop {
    pub(crate) running: Running,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) dir: Arc<tempfile::TempDir>,
    secrets: Secrets,
    change: Change,
}

/// A server that is not running.
pub(crate) struct Stopped {
    dir: Arc<tempfile::TempDir>,
    secrets: Secrets,
    change: Change,
    http: SocketAddr,
    mqtt: SocketAddr,
}

pub(crate) fn key() -> BranchKey {
    BranchKey::parse("m1", "b1").unwrap()
}

pub(crate) fn product(id: &str) -> Product {
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

impl Stopped {
    fn database(&self) -> PathBuf {
        self.dir.path().join("mstore.db")
    }

    /// Keeps a copy of the database as it is.
    pub(crate) fn back_up(&self, name: &str) {
        std::fs::copy(self.database(), self.dir.path().join(name)).unwrap();
    }

    /// Puts a copy in the place of the database.
    pub(crate) fn restore(&self, name: &str) {
        for suffix in ["-wal", "-shm"] {
            let _absent = std::fs::remove_file(format!("{}{suffix}", self.database().display()));
        }
        std::fs::copy(self.dir.path().join(name), self.database()).unwrap();
    }

    pub(crate) async fn start(self) -> Shop {
        Shop::serve(self.dir, self.secrets, self.change, self.http, self.mqtt).await
    }
}

impl Shop {
    pub(crate) async fn open(products: usize) -> Self {
        Self::open_with(products, |_| ()).await
    }

    pub(crate) async fn open_with(products: usize, change: Change) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let secrets = Secrets { master_key: MasterKey::generate(), admin_token: AdminToken::generate() };
        let shop = Self::serve(Arc::new(tempfile::tempdir().unwrap()), secrets, change, any, any).await;
        let merchant = MerchantId::parse("m1").unwrap();
        let settings = Merchant {
            merchant: merchant.clone(),
            name: "Kopi".into(),
            currency: Currency::parse("IDR").unwrap(),
            stock_policy: StockPolicy::Warn,
            stock_authority: Default::default(),
        };
        shop.write(SourceWrite::PutMerchant(settings)).await;
        shop.write(SourceWrite::PutBranch { key: key(), name: "One".into() }).await;
        let products = (0..products).map(|n| product(&format!("P{n:05}"))).collect();
        shop.write(SourceWrite::PutProducts { merchant, products }).await;
        shop
    }

    async fn serve(dir: Arc<tempfile::TempDir>, secrets: Secrets, change: Change, http: SocketAddr, mqtt: SocketAddr) -> Self {
        let store: Arc<dyn Store> = SqliteStore::open(SqliteConfig::new(dir.path().join("mstore.db"), system_clock())).unwrap();
        let mut config = ServerConfig::new(Env::parse("test").unwrap(), secrets.clone(), EmbeddedConfig::tcp(mqtt));
        change(&mut config);
        let listener = tokio::net::TcpListener::bind(http).await.unwrap();
        let running = Server::start(config, store.clone(), listener).await.unwrap();
        Self { running, store, dir, secrets, change }
    }

    pub(crate) async fn stop(self) -> Stopped {
        let Self { running, dir, secrets, change, .. } = self;
        let (http, mqtt) = (running.http_addr(), running.mqtt_addr().unwrap());
        running.shutdown().await;
        Stopped { dir, secrets, change, http, mqtt }
    }

    pub(crate) async fn write(&self, write: SourceWrite) -> u64 {
        self.store.write(write).await.unwrap().seqs.get(&key()).copied().unwrap_or(0)
    }

    pub(crate) async fn move_stock(&self, id: &str, quantity: &str) -> u64 {
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

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let http = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
        http.request(method, format!("{}{path}", self.running.http_url())).bearer_auth(self.secrets.admin_token.reveal())
    }

    pub(crate) async fn till(&self, name: &str, options: Options) -> Client {
        let body = serde_json::json!({"device_id": name, "merchant": "m1", "branch": "b1", "name": name}).to_string();
        let request = self.request(reqwest::Method::POST, "/v1/admin/devices").header("content-type", "application/json").body(body);
        let answer = request.send().await.unwrap().text().await.unwrap();
        let claim: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let code = claim["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let options = Options { seed: Some(7), ..options };
        Client::enrol(self.dir.path().join(format!("{name}.db")), &self.running.http_url(), &code, options).await.unwrap()
    }

    pub(crate) async fn fleet(&self) -> serde_json::Value {
        let text = self.request(reqwest::Method::GET, "/v1/admin/fleet").send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn metrics(&self) -> String {
        self.request(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn is_same_as_server(&self, till: &Client) -> bool {
        let head = self.store.head(&key()).await.unwrap().unwrap();
        let (cursor, digests) = till.digests();
        cursor == Some(head.cursor())
            && head.digests.iter().all(|(collection, digest)| digests.get(collection).copied().unwrap_or_default() == *digest)
    }

    pub(crate) async fn same_as_server(&self, till: &Client) {
        until_true("the same as the server", async || self.is_same_as_server(till).await).await;
    }

    /// Source, mirror, hashes and sums agree, by a sweep of everything that found nothing.
    pub(crate) async fn mirror_is_whole(&self) -> bool {
        let report = self.store.sweep(None, usize::MAX).await.unwrap();
        report.differing == 0 && report.mended == 0
    }
}

pub(crate) async fn until(till: &Client, what: &str, reached: impl Fn(&mstore_client::Status) -> bool) {
    let mut status = till.watch_status();
    let waited = tokio::time::timeout(DEADLINE, status.wait_for(|status| reached(status))).await;
    assert!(waited.is_ok(), "not {what}: {:?} {:?}", till.status(), till.stats());
}

/// Asks again until it holds; a condition that has no event of its own.
pub(crate) async fn until_true(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
