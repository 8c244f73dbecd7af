//! A certificate is replaced while a till is connected: the till notices nothing, new connections see the new one, a broken one is not shown.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    handshake::{get, shown},
    support::{Server, binary},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// A `device run --json` process that goes on until it is dropped.
struct Till {
    child: Child,
    _input: ChildStdin,
    events: Receiver<Value>,
}

impl Till {
    fn start(server: &Server, ca: &Path, db: &Path, claim: &str) -> Self {
        let mut child = binary()
            .args(["device", "run", "--json", "--server", server.http(), "--db"])
            .arg(db)
            .env("MSTORE_CA", ca)
            .env("MSTORE_CLAIM", claim)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, events) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = said.send(serde_json::from_str(&line).unwrap());
            }
        });
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "sync").unwrap();
        Self { child, _input: input, events }
    }

    /// Waits for a status that `holds`; all that came until then.
    fn until(&self, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
        let (end, mut seen) = (Instant::now() + DEADLINE, Vec::new());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("only {seen:?}"));
            seen.push(event.clone());
            if event["event"] == "status" && holds(&event) {
                return seen;
            }
        }
    }
}

impl Drop for Till {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn certificates(dir: &Path) -> (PathBuf, String, String) {
    let tls = dir.join("tls");
    let output = binary().args(["tls", "dev", "--dir"]).arg(&tls).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("next: mstore-sync serve --tls-cert"), "{said}");
    let file = |name: &str| tls.join(name).to_str().unwrap().to_owned();
    (tls.join("ca.pem"), file("server.pem"), file("server.key"))
}

fn reload(server: &Server) {
    assert!(Command::new("kill").args(["-HUP", &server.pid().to_string()]).status().unwrap().success());
}

/// Looks again until it holds: a look is a connection, which takes its time.
fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
    }
}

#[test]
fn a_connected_till_does_not_notice_a_new_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, cert, key) = certificates(dir.path());
    let server = Server::start_with(&["--tls-cert", &cert, "--tls-key", &key]).trusting(&ca);
    let urls = ["http", "mqtt", "ws"].map(|name| server.url(name).to_owned());
    for (url, scheme) in urls.iter().zip(["https://", "mqtts://", "wss://"]) {
        assert!(url.starts_with(scheme), "{url}");
    }
    server.admin(&["trigger", "shop", "m1/b1"]);
    let till = Till::start(&server, &ca, &dir.path().join("till.db"), &server.claim("m1/b1", "till"));
    let live = till.until(|status| status["state"] == "live").pop().unwrap();

    let first = urls.each_ref().map(|url| shown(url, &ca));
    certificates(dir.path());
    reload(&server);
    until("new connections see the new certificate", || shown(&urls[0], &ca) != first[0]);
    for (url, first) in urls.iter().zip(&first) {
        assert_ne!(&shown(url, &ca), first, "{url}");
    }
    server.admin(&["trigger", "stock", "m1/b1", "SKU-00001", "-5"]);
    let after = till.until(|status| status["cursor"] != live["cursor"]);
    assert!(after.iter().all(|event| event["event"] != "status" || event["state"] == "live"), "{after:?}");

    let second = shown(&urls[0], &ca);
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n").unwrap();
    reload(&server);
    until("the broken one is noticed", || get(&urls[0], "/metrics", &ca).contains("mstore_tls_certificate_broken 1"));
    assert!(urls.iter().all(|url| shown(url, &ca) == second), "the old one is shown on");
    let metrics = get(&urls[0], "/metrics", &ca);
    let expires = metrics.lines().find_map(|line| line.strip_prefix("mstore_tls_certificate_expires_seconds ")).unwrap();
    let days = expires.parse::<f64>().unwrap() / 86_400.0;
    assert!((89.0..=91.0).contains(&days), "{days}");
}
