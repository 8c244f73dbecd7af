//! A `serve` process that dies and comes back on the same addresses and data, and callers that live through it.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing here takes this long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What outlives a server.
pub(crate) struct Shop {
    dir: TempDir,
    http: reqwest::Client,
    /// HTTP, MQTT, WebSocket; free ports at first, the same ones ever after.
    addresses: [String; 3],
    admin_token: String,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { dir: tempfile::tempdir().unwrap(), http, addresses: ["127.0.0.1:0"; 3].map(str::to_owned), admin_token: String::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("shop").join("mstore.db")
    }

    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    /// From now on the failpoint kills.
    pub(crate) fn arm(&self) {
        std::fs::write(self.path("armed"), "").unwrap();
    }

    pub(crate) fn disarm(&self) {
        std::fs::remove_file(self.path("armed")).unwrap();
    }

    /// Status and answer; none when the server is gone.
    pub(crate) async fn call(&self, method: Method, path: &str, bearer: Option<&str>, body: Value) -> Option<(u16, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.http()));
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Under `/v1/admin`.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: Value) -> Option<(u16, Value)> {
        self.call(method, &format!("/v1/admin{path}"), Some(&self.admin_token), body).await
    }

    pub(crate) async fn admin_head(&self) -> Value {
        self.call(Method::GET, "/v1/m1/b1/head", Some(&self.admin_token), Value::Null).await.unwrap().1
    }

    /// All items of a listing.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        let (status, page) = self.admin(Method::GET, &format!("{path}?limit=1000"), Value::Null).await.unwrap();
        assert_eq!((status, &page["next"]), (200, &Value::Null), "{page}");
        page["items"].as_array().unwrap().clone()
    }

    /// A merchant with a branch and two products.
    pub(crate) async fn fill(&self) {
        let product = json!({"sku": "P", "name": "first", "price": {"amount": 1_000, "currency": "IDR"}});
        let other = json!({"sku": "Q", "name": "other", "price": {"amount": 1_000, "currency": "IDR"}});
        for (path, body) in [
            ("/merchants/m1", json!({"name": "Kopi", "currency": "IDR"})),
            ("/merchants/m1/branches/b1", json!({"name": "One"})),
            ("/merchants/m1/products/P", product),
            ("/merchants/m1/products/Q", other),
        ] {
            let (status, answer) = self.admin(Method::PUT, path, body).await.unwrap();
            assert_eq!(status, 200, "{path}: {answer}");
        }
    }

    pub(crate) async fn claim(&self, device: &str) -> String {
        let body = json!({"device_id": device, "merchant": "m1", "branch": "b1", "name": device});
        let (status, answer) = self.admin(Method::POST, "/devices", body).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer["code"].as_str().unwrap().to_owned()
    }
}

/// A UUIDv7.
pub(crate) fn new_id() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let at = mstore_protocol::Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap());
    mstore_protocol::OperationId::from_parts(at, rand::random()).to_string()
}

/// The server; killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    /// The command that serves a shop's data.
    pub(crate) fn command(shop: &Shop, program: Command) -> Command {
        let mut command = program;
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MSTORE_")) {
            command.env_remove(name);
        }
        command.args(["serve", "--ready-json", "--log", "error", "--data-dir"]).arg(shop.path("shop"));
        for (flag, address) in ["--listen", "--mqtt-listen", "--ws-listen"].iter().zip(&shop.addresses) {
            command.args([flag, address.as_str()]);
        }
        command.current_dir(shop.dir.path()).stdout(Stdio::piped());
        command
    }

    /// Starts it, with a place armed or not, and waits until it is ready.
    pub(crate) fn start(shop: &mut Shop, place: Option<&str>) -> Self {
        let mut command = Self::command(shop, Command::new(env!("CARGO_BIN_EXE_mstore-sync")));
        if let Some(place) = place {
            command.env("MSTORE_TEST_FAILPOINT", place).env("MSTORE_TEST_FAILPOINT_FILE", shop.path("armed"));
        }
        Self::ready(shop, command)
    }

    /// Runs a command until it says that it is ready, and remembers where it listens.
    pub(crate) fn ready(shop: &mut Shop, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("the server said {line:?}: {error}"));
        for (address, name) in shop.addresses.iter_mut().zip(["http", "mqtt", "ws"]) {
            let url = ready[name].as_str().unwrap().split("://").nth(1).unwrap();
            *address = url.split('/').next().unwrap().to_owned();
        }
        let file = Path::new(ready["admin_token_file"].as_str().unwrap());
        let file = if file.exists() { file.to_owned() } else { format!("/proc/{}/root{}", child.id(), file.display()).into() };
        shop.admin_token = std::fs::read_to_string(file).unwrap().trim().to_owned();
        Self(child)
    }

    /// Starts it with a place armed that it passes at once; how it ended.
    pub(crate) fn crash(shop: &Shop, place: &str) -> ExitStatus {
        let mut command = Self::command(shop, Command::new(env!("CARGO_BIN_EXE_mstore-sync")));
        command.env("MSTORE_TEST_FAILPOINT", place).env("MSTORE_TEST_FAILPOINT_FILE", shop.path("armed"));
        command.stdout(Stdio::null()).status().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn stop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits until it has died of itself.
    pub(crate) async fn wait_for_end(&mut self, place: &str) -> ExitStatus {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(tokio::time::Instant::now() < deadline, "{place} was never passed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Asks again until it holds.
pub(crate) async fn until_true(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
