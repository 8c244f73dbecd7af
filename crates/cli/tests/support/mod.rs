//! A server process for tests: started on free ports, ready when `start` returns, killed when dropped.
#![allow(clippy::unwrap_used, dead_code)]

pub(crate) mod subscriber;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mstore-sync"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MSTORE_")) {
        command.env_remove(name);
    }
    command
}

/// A `serve` process with its data directory.
pub(crate) struct Server {
    child: Child,
    ready: Value,
    /// Whom its callers believe; the system's authorities without one.
    ca: Option<PathBuf>,
    pub(crate) dir: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        Self::launch(args, Stdio::inherit())
    }

    /// With its log somewhere else.
    pub(crate) fn launch(args: &[&str], log: Stdio) -> Self {
        Self::listening(tempfile::tempdir().unwrap(), ["127.0.0.1:0"; 3], args, log)
    }

    /// Ends, as by a power cut; another one comes up at the same addresses on what is in `shop` of its directory.
    pub(crate) fn killed(mut self, change: impl FnOnce(&Path)) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        change(dir.path());
        let address = |url: &Value| url.as_str().unwrap().split("://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        let [http, mqtt, ws] = ["http", "mqtt", "ws"].map(|name| address(&self.ready[name]));
        Self::listening(dir, [&http, &mqtt, &ws], &[], Stdio::inherit())
    }

    /// At these addresses: HTTP, MQTT, WebSocket.
    fn listening(dir: TempDir, [http, mqtt, ws]: [&str; 3], args: &[&str], log: Stdio) -> Self {
        let mut child = binary()
            .args(["serve", "--ready-json", "--log", "warn", "--listen", http, "--mqtt-listen", mqtt, "--ws-listen", ws, "--data-dir"])
            .arg(dir.path().join("shop"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("the server said {line:?}: {error}"));
        Self { child, ready, ca: None, dir }
    }

    /// Its callers believe the authorities of a file.
    pub(crate) fn trusting(mut self, ca: &Path) -> Self {
        self.ca = Some(ca.to_owned());
        self
    }

    /// What it said when it was ready.
    pub(crate) fn url(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap()
    }

    pub(crate) fn http(&self) -> &str {
        self.ready["http"].as_str().unwrap()
    }

    /// Host and port of the MQTT listener.
    pub(crate) fn mqtt(&self) -> (String, String) {
        let authority = self.ready["mqtt"].as_str().unwrap().split("://").nth(1).unwrap().to_owned();
        let (host, port) = authority.rsplit_once(':').unwrap();
        (host.to_owned(), port.to_owned())
    }

    pub(crate) fn database(&self) -> PathBuf {
        PathBuf::from(self.ready["database"].as_str().unwrap())
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("shop")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn admin_token(&self) -> String {
        std::fs::read_to_string(self.ready["admin_token_file"].as_str().unwrap()).unwrap().trim().to_owned()
    }

    /// Runs a subcommand as administrator; panics with its stderr when it fails.
    pub(crate) fn admin(&self, args: &[&str]) -> String {
        let output = self.try_admin(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn try_admin(&self, args: &[&str]) -> Output {
        binary()
            .args(args)
            .env("MSTORE_SERVER", self.http())
            .env("MSTORE_ADMIN_TOKEN_FILE", self.ready["admin_token_file"].as_str().unwrap())
            .envs(self.ca.iter().map(|ca| ("MSTORE_CA", ca)))
            .output()
            .unwrap()
    }

    /// A claim code for a till.
    pub(crate) fn claim(&self, branch: &str, device: &str) -> String {
        let answer: Value = serde_json::from_str(&self.admin(&["device", "add", branch, "--id", device, "--json"])).unwrap();
        answer["code"].as_str().unwrap().to_owned()
    }

    /// Redeems a claim with curl's place taken by a plain socket; the device's token.
    pub(crate) fn token(&self, branch: &str, device: &str) -> String {
        let body = serde_json::json!({ "code": self.claim(branch, device), "nonce": device }).to_string();
        let answer = http(self.http(), "POST", "/v1/devices/enrol", None, &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        answer["token"].as_str().unwrap().to_owned()
    }

    /// Runs `device run` with these lines as its input; its output.
    pub(crate) fn till(&self, db: &Path, claim: Option<&str>, input: &str) -> String {
        let mut command = binary();
        command.args(["device", "run", "--server", self.http(), "--db"]).arg(db);
        if let Some(claim) = claim {
            command.args(["--claim", claim]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// One HTTP/1.1 request over a plain socket.
pub(crate) fn http(base: &str, method: &str, path: &str, bearer: Option<&str>, body: &str) -> Answer {
    use std::io::Read as _;
    let authority = base.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(authority).unwrap();
    let credentials = bearer.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{credentials}Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).unwrap();
    let text = String::from_utf8_lossy(&raw).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), body: body.to_owned() }
}

/// Whether a program is there; when it is not, says that the test is skipped if that is allowed, and fails otherwise.
pub(crate) fn have(program: &str, test: &str) -> bool {
    // Debian keeps servers where a user's PATH may not look.
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        assert!(std::env::var_os("MSTORE_TEST_SKIP_MISSING").is_some(), "{program} is missing: cargo xtask setup installs it");
        writeln!(std::io::stdout().lock(), "\nskipped: {test}: {program} is not installed").unwrap();
    }
    found
}
