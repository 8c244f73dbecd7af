//! A server with a merchant, two branches and a few products: the one place of these tests that touches the API.

use std::{sync::Arc, time::Duration};

use mstore_broker::{EmbeddedConfig, EmqxApi, ExternalConfig, Login};
use mstore_protocol::{Code, Cursor, Enrolment, Env, Head, Problem};
use mstore_server::{
    AdminToken, BrokerAccounts, HooksConfig, HooksSecret, MasterKey, Running, Secrets, Server, ServerConfig, WebhookConfig, system_clock,
};
use mstore_store::{
    Store,
    sqlite::{SqliteConfig, SqliteStore},
};
use reqwest::{Client, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Nothing here takes this long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Shop {
    pub(crate) running: Running,
    pub(crate) http: Client,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) dir: tempfile::TempDir,
    secrets: Secrets,
}

/// A device that enrolled.
#[derive(Clone)]
pub(crate) struct Till {
    pub(crate) enrolment: Enrolment,
}

impl Till {
    pub(crate) fn bearer(&self) -> String {
        format!("{}:{}", self.enrolment.device_id, self.enrolment.token)
    }
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts success and gives the JSON.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Asserts a problem with this code, in the shape of the contract.
    #[track_caller]
    pub(crate) fn problem(&self, code: Code) -> Problem {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", String::from_utf8_lossy(&self.body));
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.code, code, "{problem}");
        assert_eq!(problem.status, self.status.as_u16());
        assert!(!problem.detail.is_empty() && !problem.next.is_empty());
        if problem.retryable && problem.status != 500 {
            assert!(self.headers.contains_key(header::RETRY_AFTER));
        }
        problem
    }
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::open_with(|_| ()).await
    }

    pub(crate) async fn open_with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets { master_key: MasterKey::generate(), admin_token: AdminToken::generate() };
        let shop = Self::start(dir, secrets, change).await;
        shop.fill().await;
        shop
    }

    /// One whose merchant has a backend that decides.
    pub(crate) async fn with_backend(webhook: Option<WebhookConfig>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets { master_key: MasterKey::generate(), admin_token: AdminToken::generate() };
        let shop = Self::start(dir, secrets, |config| config.webhook = webhook).await;
        shop.fill().await;
        shop.store.set_inbox(true).await.unwrap();
        let settings = json!({"name": "Kopi", "currency": "IDR", "stock_authority": "backend"});
        shop.admin(Method::PUT, "/merchants/m1", settings).await.ok();
        shop
    }

    /// One that is configured otherwise.
    pub(crate) async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets { master_key: MasterKey::generate(), admin_token: AdminToken::generate() };
        let shop = Self::start(dir, secrets, change).await;
        shop.fill().await;
        shop
    }

    /// Makes an admin token of a merchant, or of all; its text.
    pub(crate) async fn token(&self, name: &str, role: &str, merchant: Option<&str>) -> String {
        let body = json!({"name": name, "role": role, "merchant": merchant});
        self.admin(Method::POST, "/tokens", body).await.ok()["token"].as_str().unwrap().to_owned()
    }

    /// One whose broker asks over HTTP; with the secret that it shows.
    pub(crate) async fn that_is_asked(backend: &str, secret: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets { master_key: MasterKey::generate(), admin_token: AdminToken::generate() };
        let login = |name: &str| Login { username: name.to_owned(), password: format!("pw-{name}").into() };
        let hooks =
            HooksConfig { listen: "127.0.0.1:0".parse().unwrap(), secret: HooksSecret::parse(secret).unwrap(), vhost: "/".to_owned() };
        // Nobody listens there: neither broker nor its management is needed to answer questions.
        let api = EmqxApi { url: "http://127.0.0.1:9".to_owned(), login: login("key") };
        let shop = Self::start(dir, secrets, |config| {
            let mut way = ExternalConfig::new("mqtt://127.0.0.1:9".parse().unwrap(), config.env.clone());
            (way.login, way.canary) = (Some(login(backend)), Some(login("canary")));
            (config.broker, config.accounts) = (way.into(), BrokerAccounts::Emqx(hooks, api));
        })
        .await;
        shop.fill().await;
        shop
    }

    async fn start(dir: tempfile::TempDir, secrets: Secrets, change: impl FnOnce(&mut ServerConfig)) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let path = dir.path().join("mstore.db");
        let store: Arc<dyn Store> = SqliteStore::open(SqliteConfig::new(path, system_clock())).unwrap();
        let mut mqtt = EmbeddedConfig::tcp("127.0.0.1:0".parse().unwrap());
        mqtt.ws = Some("127.0.0.1:0".parse().unwrap());
        let mut config = ServerConfig::new(Env::parse("test").unwrap(), secrets.clone(), mqtt);
        config.limits.wrong_claims.burst = 5;
        config.timing.head_after_change = Duration::from_millis(200);
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = Server::start(config, store.clone(), listener).await.unwrap();
        let http = Client::builder().timeout(DEADLINE).no_gzip().no_zstd().build().unwrap();
        Self { running, http, store, dir, secrets }
    }

    /// Stops the server and starts another one on the same data.
    pub(crate) async fn reopen(self) -> Self {
        self.reopen_with(|_| ()).await
    }

    /// The same, with another token in the server's file.
    pub(crate) async fn reopen_with(self, change: impl FnOnce(&mut Secrets)) -> Self {
        let Self { running, dir, mut secrets, .. } = self;
        running.shutdown().await;
        change(&mut secrets);
        Self::start(dir, secrets, |_| ()).await
    }

    async fn fill(&self) {
        self.admin(Method::PUT, "/merchants/m1", json!({"name": "Kopi", "currency": "IDR"})).await.ok();
        for branch in ["b1", "b2"] {
            self.admin(Method::PUT, &format!("/merchants/m1/branches/{branch}"), json!({"name": branch})).await.ok();
        }
        self.put_product("tea", 10_000).await;
        self.put_product("cake", 25_000).await;
    }

    pub(crate) async fn put_product(&self, id: &str, amount: i64) -> Value {
        let path = format!("/merchants/m1/products/{id}");
        self.admin(Method::PUT, &path, product(id, amount)).await.ok()
    }

    pub(crate) async fn import(&self, count: usize) -> Value {
        let products: Vec<Value> = (0..count)
            .map(|i| {
                let mut product = product(&format!("SKU-{i:05}"), 1_000);
                product["id"] = json!(format!("SKU-{i:05}"));
                product
            })
            .collect();
        self.admin(Method::POST, "/merchants/m1/products", json!({"products": products})).await.ok()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.http_addr())
    }

    pub(crate) async fn call(&self, method: Method, path: &str, bearer: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method, self.url(path)).bearer_auth(bearer);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    /// Under `/v1/admin`.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { None } else { Some(body) };
        self.call(method, &format!("/v1/admin{path}"), self.admin_token(), body).await
    }

    pub(crate) fn admin_token(&self) -> &str {
        self.secrets.admin_token.reveal()
    }

    pub(crate) async fn get(&self, till: &Till, path: &str) -> Answer {
        self.call(Method::GET, path, &till.bearer(), None).await
    }

    pub(crate) async fn claim(&self, device: &str, branch: &str) -> String {
        let body = json!({"device_id": device, "merchant": "m1", "branch": branch, "name": device});
        self.admin(Method::POST, "/devices", body).await.ok()["code"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn redeem(&self, code: &str, nonce: &str) -> Answer {
        let request = self.http.post(self.url("/v1/devices/enrol")).json(&json!({"code": code, "nonce": nonce}));
        Answer::of(request.send().await.unwrap()).await
    }

    pub(crate) async fn enrol(&self, device: &str, branch: &str) -> Till {
        let code = self.claim(device, branch).await;
        let answer = self.redeem(&code, &format!("nonce-of-{device}")).await;
        Till { enrolment: serde_json::from_value(answer.ok()).unwrap() }
    }

    pub(crate) async fn head(&self, till: &Till) -> Head {
        let Enrolment { merchant, branch, .. } = &till.enrolment;
        serde_json::from_value(self.get(till, &format!("/v1/{merchant}/{branch}/head")).await.ok()).unwrap()
    }

    pub(crate) async fn cursor(&self, till: &Till) -> Cursor {
        self.head(till).await.cursor()
    }

    pub(crate) async fn sell(&self, till: &Till, branch: &str, operations: &[Value]) -> Answer {
        let body = json!({"journal_id": "j1", "clock_offset_ms": 0, "operations": operations});
        self.call(Method::POST, &format!("/v1/m1/{branch}/operations"), &till.bearer(), Some(body)).await
    }
}

fn product(id: &str, amount: i64) -> Value {
    json!({"sku": id, "name": format!("Name of {id}"), "price": {"amount": amount, "currency": "IDR"}})
}

pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A sale of one product for cash.
pub(crate) fn sale(device_seq: u64, product: &str, quantity: &str) -> Value {
    let money = json!({"amount": 10_000, "currency": "IDR"});
    json!({
        "id": new_id(), "device_seq": device_seq, "type": "sale", "occurred_at": (system_clock())(),
        "lines": [{"line_no": 1, "product_id": product, "quantity": quantity, "unit_price": money, "total": money}],
        "tenders": [{"type": "cash", "amount": money}], "total": money, "receipt_no": format!("R-{device_seq}"),
        "business_date": "2026-11-22"
    })
}
