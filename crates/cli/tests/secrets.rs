//! No secret is said: not in logs at the lowest level, not in errors, not in what `ps` shows, not in `serve --print-config`.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use support::{binary, http};

const WEBHOOK: &str = "webhook-secret-7f3a9c";
const BROKER: &str = "broker-password-51be0d";
const DATABASE: &str = "database-password-c44e21";

/// A `serve` process whose log goes to a file.
struct Logged {
    child: Child,
    ready: Value,
}

impl Logged {
    fn start(dir: &Path, log: &Path, args: &[&str]) -> Self {
        let mut command = binary();
        command.args(["serve", "--ready-json", "--log", "trace", "--data-dir"]).arg(dir.join("shop")).args(args);
        for listener in ["--listen", "--mqtt-listen", "--ws-listen"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(File::create(log).unwrap()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }

    fn http(&self) -> &str {
        self.ready["http"].as_str().unwrap()
    }

    fn end(mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        self.child.wait().unwrap();
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What `ps` shows of a process.
fn arguments(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

#[track_caller]
fn silent(place: &str, said: &str, secrets: &[(&str, &str)]) {
    for (name, secret) in secrets {
        assert!(secret.len() >= 8, "{name} is a secret worth looking for");
        let Some(line) = said.lines().find(|line| line.contains(secret)) else { continue };
        panic!("{place} says {name}: {line}");
    }
}

#[test]
fn a_shop_that_logs_everything_says_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("server.log");
    let webhook = file(dir.path(), "webhook", WEBHOOK);
    // Nobody listens there: deliveries fail, and say so.
    let server = Logged::start(dir.path(), &log, &["--webhook-url", "http://127.0.0.1:1/", "--webhook-secret-file", &webhook]);
    let admin_file = server.ready["admin_token_file"].as_str().unwrap().to_owned();
    let admin = fs::read_to_string(&admin_file).unwrap().trim().to_owned();
    let run = |args: &[&str]| {
        let mut command = binary();
        command.args(args).env("MSTORE_SERVER", server.http()).env("MSTORE_ADMIN_TOKEN_FILE", &admin_file);
        command.output().unwrap()
    };
    assert!(run(&["trigger", "shop", "m1/b1"]).status.success());
    let claim = |device: &str| {
        let output = run(&["device", "add", "m1/b1", "--id", device, "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        said["code"].as_str().unwrap().to_owned()
    };
    let (code, spare) = (claim("till"), claim("other"));
    let enrolled = http(server.http(), "POST", "/v1/devices/enrol", None, &json!({ "code": code, "nonce": "n" }).to_string());
    let token = serde_json::from_str::<Value>(&enrolled.body).unwrap()["token"].as_str().unwrap().to_owned();
    let master = fs::read_to_string(dir.path().join("shop/master.key")).unwrap().trim().to_owned();
    let wrong = format!("{}x", &token[..token.len() - 1]);
    for bearer in [format!("till:{token}"), format!("till:{wrong}"), admin.clone()] {
        http(server.http(), "GET", "/v1/m1/b1/head", Some(&bearer), "");
    }
    let secrets: [(&str, &str); 7] = [
        ("the admin token", &*admin),
        ("the master key", &master),
        ("a token", &token),
        ("a wrong token", &wrong),
        ("a claim", &code),
        ("the next claim", &spare),
        ("the webhook's secret", WEBHOOK),
    ];

    // A real till that logs everything, too; its claim code does not stand on its command line.
    let mut till = binary();
    till.args(["device", "run", "--server", server.http(), "--db"]).arg(dir.path().join("till.db"));
    let mut till = till
        .env("MSTORE_CLAIM", &spare)
        .env("MSTORE_LOG", "trace")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(dir.path().join("till.log")).unwrap())
        .spawn()
        .unwrap();
    silent("ps", &(arguments(till.id()) + &arguments(server.child.id())), &secrets);
    use std::io::Write as _;
    till.stdin.take().unwrap().write_all(b"sync\nsell SKU-00001 1\ndrain\nquit\n").unwrap();
    let said = till.wait_with_output().unwrap();
    assert!(said.status.success());
    let db = rusqlite::Connection::open(dir.path().join("till.db")).unwrap();
    let enrolment: String = db.query_row("SELECT value FROM state WHERE name = 'enrolment'", [], |row| row.get(0)).unwrap();
    let own = serde_json::from_str::<Value>(&enrolment).unwrap()["token"].as_str().unwrap().to_owned();
    let secrets = [&secrets[..], &[("the till's token", own.as_str())]].concat();
    silent("the till", &String::from_utf8(said.stdout).unwrap(), &secrets);
    silent("the till's log", &fs::read_to_string(dir.path().join("till.log")).unwrap(), &secrets);
    for args in [&["device", "rotate", "till"][..], &["device", "revoke", "till"], &["device", "list"]] {
        let output = run(args);
        silent("a command", &(String::from_utf8(output.stderr).unwrap()), &secrets);
    }
    server.end();
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("TRACE") && said.contains("device enrolled"), "everything is logged");
    silent("the server's log", &said, &secrets);
}

#[test]
fn passwords_of_others_are_said_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = [("the broker's password", BROKER), ("the database's password", DATABASE)];
    let password = file(dir.path(), "password", BROKER);
    let urls = [
        format!("postgres://shop:{DATABASE}@127.0.0.1:1/shop"),
        format!("postgres://shop@127.0.0.1:1/shop?password={DATABASE}"),
        format!("postgres://shop:{DATABASE}@127.0.0.1:1/shop?nonsense=1"),
        format!("nonsense://shop:{DATABASE}@127.0.0.1:1/shop"),
    ];
    for url in &urls {
        for args in [&["serve", "--print-config"][..], &["serve", "--log", "trace", "--listen", "127.0.0.1:0"]] {
            let output = binary().args(args).arg("--data-dir").arg(dir.path().join("db")).env("MSTORE_DATABASE", url).output().unwrap();
            silent("serve", &(String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()), &secrets);
        }
    }
    let log = dir.path().join("broker.log");
    let args = ["--broker", "mqtt://127.0.0.1:1", "--broker-username", "backend", "--broker-password-file", &password];
    let server = Logged::start(dir.path(), &log, &args);
    silent("ps", &arguments(server.child.id()), &secrets);
    // Ready only with a broker: the reason is told, and the way to it was tried.
    let answer = http(server.http(), "GET", "/readyz", None, "");
    assert_eq!(answer.status, 503, "{}", answer.body);
    silent("readyz", &answer.body, &secrets);
    server.end();
    silent("the log", &fs::read_to_string(&log).unwrap(), &secrets);
}
