//! A real server in this process, and a proxy before it that refuses or holds what a test wants refused or held.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use mstore_broker::EmbeddedConfig;
use mstore_client::{Client, Options, Quantity, Status};
use mstore_protocol::{BranchKey, Currency, Env, MerchantId, Money, OperationId, StockTarget, Timestamp};
use mstore_server::{AdminToken, MasterKey, Running, Secrets, Server, ServerConfig, system_clock};
use mstore_store::{
    Alarm, Listing, Merchant, MoveKind, Product, SourceWrite, StockMove, StockPolicy, Store,
    sqlite::{SqliteConfig, SqliteStore},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Nothing here takes this long unless it hangs.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct Shop {
    pub running: Running,
    pub store: Arc<dyn Store>,
    pub dir: tempfile::TempDir,
    pub admin: AdminToken,
    /// How far the server's clock is ahead of the system's.
    pub ahead_ms: Arc<AtomicI64>,
}

pub fn key() -> BranchKey {
    BranchKey::parse("m1", "b1").unwrap()
}

pub fn money(amount: i64) -> Money {
    Money { amount, currency: Currency::parse("IDR").unwrap() }
}

fn product(id: &str) -> Product {
    Product {
        id: id.into(),
        sku: id.into(),
        barcode: None,
        name: format!("Product {id}"),
        category: None,
        unit: "pcs".into(),
        price: money(1_000),
        track_stock: true,
        is_active: true,
    }
}

impl Shop {
    pub async fn open() -> Self {
        Self::opened(None).await
    }

    /// One where a device's token ends at an age.
    pub async fn with_max_age(max_age: Duration) -> Self {
        Self::opened(Some(max_age)).await
    }

    async fn opened(device_token_max_age: Option<Duration>) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = SqliteStore::open(SqliteConfig::new(dir.path().join("mstore.db"), system_clock())).unwrap();
        let secrets = Secrets { master_key: MasterKey::generate(), admin_token: AdminToken::generate() };
        let admin = secrets.admin_token.clone();
        let ahead_ms = Arc::new(AtomicI64::new(0));
        let (ahead, system) = (ahead_ms.clone(), system_clock());
        let mut config = ServerConfig::new(Env::parse("test").unwrap(), secrets, EmbeddedConfig::tcp("127.0.0.1:0".parse().unwrap()));
        config.clock = Arc::new(move || system().plus_ms(ahead.load(Ordering::SeqCst)));
        config.device_token_max_age = device_token_max_age;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = Server::start(config, store.clone(), listener).await.unwrap();
        let shop = Self { running, store, dir, admin, ahead_ms };
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
        shop.put(&["tea", "cake"]).await;
        shop
    }

    pub async fn write(&self, write: SourceWrite) -> u64 {
        self.store.write(write).await.unwrap().seqs.get(&key()).copied().unwrap_or(0)
    }

    pub async fn put(&self, ids: &[&str]) -> u64 {
        let products = ids.iter().map(|id| product(id)).collect();
        self.write(SourceWrite::PutProducts { merchant: MerchantId::parse("m1").unwrap(), products }).await
    }

    pub async fn deliver(&self, id: &str, quantity: &str) -> u64 {
        let moved = StockMove {
            id: OperationId::from_parts(Timestamp::from_ms(1_700_000_000_000), rand::random()),
            collection: StockTarget::Product,
            item_id: id.into(),
            kind: MoveKind::Delta,
            quantity: Quantity::parse(quantity).unwrap(),
            reason: "test".into(),
        };
        self.write(SourceWrite::MoveStock { key: key(), moves: vec![moved] }).await
    }

    pub async fn post(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let http = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
        let request = http.post(format!("{}/v1/admin{path}", self.running.http_url())).bearer_auth(self.admin.reveal());
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    /// Enrols a till that reaches the server at `url`.
    pub async fn till(&self, name: &str, url: &str, options: Options) -> Client {
        let body = serde_json::json!({"device_id": name, "merchant": "m1", "branch": "b1", "name": name});
        let code = self.post("/devices", &body).await["code"].as_str().unwrap().to_owned();
        let options = Options { seed: Some(7), ..options };
        Client::enrol(self.dir.path().join(format!("{name}.db")), url, &code, options).await.unwrap()
    }

    pub async fn items(&self, listing: Listing) -> Vec<serde_json::Value> {
        self.store.list(listing, None, 1_000).await.unwrap().items
    }

    /// Operations accepted, and how many different receipts they are.
    pub async fn accepted(&self) -> usize {
        self.items(Listing::Operations(key())).await.iter().filter(|item| item["status"] == "accepted").count()
    }

    pub async fn open_alarms(&self, kind: &str) -> Vec<Alarm> {
        let alarms = self.items(Listing::Alarms).await.into_iter().map(|item| serde_json::from_value::<Alarm>(item).unwrap());
        alarms.filter(|alarm| alarm.kind == kind && alarm.cleared_at.is_none()).collect()
    }

    /// Waits for the server's side to come to something; each look takes a read of the store.
    pub async fn until(&self, what: &str, reached: impl AsyncFn(&Self) -> bool) {
        let waited = tokio::time::timeout(DEADLINE, async {
            while !reached(self).await {
                tokio::task::yield_now().await;
            }
        });
        assert!(waited.await.is_ok(), "not {what}");
    }
}

pub async fn until(till: &Client, what: &str, reached: impl Fn(&Status) -> bool) {
    let mut status = till.watch_status();
    let waited = tokio::time::timeout(DEADLINE, status.wait_for(|status| reached(status))).await;
    assert!(waited.is_ok(), "not {what}: {:?} {:?}", till.status(), till.stats());
}

/// What a proxy does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Lets it through.
    Open,
    /// Answers with a page of its own.
    Page(u16),
    /// Lets it through when the gate is opened.
    Held,
}

/// A request as a proxy sees it.
pub struct Seen<'a> {
    pub line: &'a str,
    pub body: &'a str,
}

type Rule = Box<dyn Fn(&Seen<'_>) -> Way + Send + Sync>;

/// A proxy on loopback; its rule may be changed at any time.
pub struct Proxy {
    pub url: String,
    rule: Arc<Mutex<Rule>>,
    gate: watch::Sender<bool>,
    counts: watch::Receiver<Counts>,
}

/// What a proxy has done so far.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    held: usize,
    refused: usize,
}

impl Proxy {
    pub async fn before(shop: &Shop, rule: impl Fn(&Seen<'_>) -> Way + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(rule)));
        let (gate, (count, counts)) = (watch::channel(false).0, watch::channel(Counts::default()));
        let (rules, gates, upstream, count) = (rule.clone(), gate.clone(), shop.running.http_addr(), Arc::new(count));
        tokio::spawn(async move {
            while let Ok((till, _)) = listener.accept().await {
                let (rules, gate, count) = (rules.clone(), gates.subscribe(), count.clone());
                tokio::spawn(async move {
                    // A connection that either side gives up is not the test's business.
                    let _ = pass(till, upstream, &rules, gate, &count).await;
                });
            }
        });
        Self { url, rule, gate, counts }
    }

    pub fn becomes(&self, rule: impl Fn(&Seen<'_>) -> Way + Send + Sync + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// Waits until a request is held.
    pub async fn holds(&mut self) {
        tokio::time::timeout(DEADLINE, self.counts.wait_for(|counts| counts.held > 0)).await.expect("nothing is held").unwrap();
    }

    /// Waits until it has answered this often with a page of its own.
    pub async fn has_refused(&mut self, times: usize) {
        tokio::time::timeout(DEADLINE, self.counts.wait_for(|counts| counts.refused >= times)).await.expect("nothing is refused").unwrap();
    }

    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }
}

async fn pass(
    mut till: TcpStream,
    upstream: std::net::SocketAddr,
    rules: &Mutex<Rule>,
    mut gate: watch::Receiver<bool>,
    counts: &watch::Sender<Counts>,
) -> std::io::Result<()> {
    let Some((head, body)) = request(&mut till).await? else { return Ok(()) };
    let way = {
        let text = String::from_utf8_lossy(&body);
        let rule = rules.lock().unwrap();
        rule(&Seen { line: head.lines().next().unwrap_or_default(), body: &text })
    };
    match way {
        Way::Page(status) => {
            counts.send_modify(|counts| counts.refused += 1);
            let page = "<html>no</html>";
            let answer = format!(
                "HTTP/1.1 {status} No\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{page}",
                page.len()
            );
            return till.write_all(answer.as_bytes()).await;
        }
        Way::Held => {
            counts.send_modify(|counts| counts.held += 1);
            // The test is over when the gate is gone.
            let _ = gate.wait_for(|open| *open).await;
        }
        Way::Open => {}
    }
    let mut server = TcpStream::connect(upstream).await?;
    let head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    server.write_all(head.as_bytes()).await?;
    server.write_all(&body).await?;
    tokio::io::copy(&mut server, &mut till).await?;
    till.shutdown().await
}

/// One request, read to its end.
async fn request(till: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if till.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = bytes.split_off(end);
    while body.len() < length.unwrap_or(0) {
        if till.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((head, body)))
}
