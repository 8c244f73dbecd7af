//! One `serve` process of several; killed, frozen, stopped and started again on the same addresses and data.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};

/// A server; killed when dropped.
pub(crate) struct Node {
    child: Child,
    dir: PathBuf,
    log: PathBuf,
    args: Vec<String>,
    address: String,
    admin_token: String,
    http: reqwest::Client,
}

/// The command that serves a data directory.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mstore-sync"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MSTORE_")) {
        command.env_remove(name);
    }
    command.args(["serve", "--ready-json", "--log", "info", "--data-dir"]).arg(dir).args(args);
    command
}

impl Node {
    /// Returns when it is ready.
    pub(crate) fn start(dir: &Path, log: &Path, args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (child, ready) = launch(dir, log, &args, "127.0.0.1:0");
        let address = ready["http"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        let admin_token = std::fs::read_to_string(dir.join("admin.token")).unwrap().trim().to_owned();
        let http = reqwest::Client::builder().timeout(std::time::Duration::from_secs(30)).build().unwrap();
        Self { child, dir: dir.into(), log: log.into(), args, address, admin_token, http }
    }

    /// After its end: the same again.
    pub(crate) fn start_again(&mut self) {
        (self.child, _) = launch(&self.dir, &self.log, &self.args, &self.address);
    }

    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{name}");
    }

    /// As a service manager stops it: SIGTERM, and it ends by itself.
    pub(crate) async fn stop(&mut self) {
        self.signal("TERM");
        let mut ended = None;
        while ended.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            ended = self.child.try_wait().unwrap();
        }
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    }

    /// Under `/v1/admin`.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: Value) -> Result<(u16, Value), reqwest::Error> {
        let request = self.http.request(method, format!("{}/v1/admin{path}", self.http())).bearer_auth(&self.admin_token);
        let response = request.header("content-type", "application/json").body(body.to_string()).send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.admin(Method::PUT, path, body).await.unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub(crate) async fn claim(&self, branch: &str, device: &str) -> String {
        let body = json!({"device_id": device, "merchant": "m1", "branch": branch, "name": device});
        let (status, answer) = self.admin(Method::POST, "/devices", body).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer["code"].as_str().unwrap().to_owned()
    }

    /// The head of a branch as this server tells it.
    pub(crate) async fn head(&self, branch: &str) -> Result<Value, reqwest::Error> {
        let request = self.http.get(format!("{}/v1/m1/{branch}/head", self.http())).bearer_auth(&self.admin_token);
        Ok(serde_json::from_str(&request.send().await?.text().await?).unwrap_or_default())
    }

    /// Whether a load balancer would send it requests.
    pub(crate) async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.http())).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }
}

fn launch(dir: &Path, log: &Path, args: &[String], address: &str) -> (Child, Value) {
    let log = File::options().create(true).append(true).open(log).unwrap();
    let mut command = command(dir, &[]);
    command.args(["--listen", address]).args(args).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("the server said {line:?}: {error}"));
    (child, ready)
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        if std::thread::panicking() {
            let _unheard = writeln!(std::io::stderr().lock(), "--- {}\n{}", self.http(), self.log());
        }
    }
}
