//! Mosquitto with its dynamic-security plugin: `broker setup` once, then the server keeps the accounts.

use std::process::Command;

use mstore_rig::{Mosquitto, Program, have};
use tempfile::TempDir;

use crate::{
    matrix::{self, Account, figure, until},
    support::{Server, binary, subscriber::Subscriber},
};

const UPDATES: &str = "dev/m1/b1/product/updates";

struct Rig {
    mosquitto: Mosquitto,
    secrets: TempDir,
}

impl Rig {
    fn start() -> Self {
        Self::prepare(Mosquitto::with_dynamic_security(), &[])
    }

    /// A Mosquitto that `broker setup --apply` prepared, over TLS if so.
    fn prepare(mosquitto: Mosquitto, trust: &[&str]) -> Self {
        let rig = Self { mosquitto, secrets: tempfile::tempdir().unwrap() };
        let admin = Account::new(rig.secrets.path(), "admin", "pw-admin");
        let output = binary()
            .args(["broker", "setup", "mosquitto", "--apply", "--env", "dev", "--url", &rig.mosquitto.url()])
            .args(trust)
            .args(["--admin-username", "admin", "--admin-password-file", admin.path(), "--secrets-dir"])
            .arg(rig.secrets.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        rig
    }

    fn account<'a>(&self, name: &'a str) -> Account<'a> {
        Account { name, file: self.secrets.path().join(format!("{name}.password")) }
    }

    /// A server that keeps its accounts.
    fn server(&self) -> Server {
        self.server_at(&self.mosquitto.url(), &[])
    }

    fn server_at(&self, url: &str, more: &[&str]) -> Server {
        let server = self.server_without_waiting(url, more);
        until("the broker is up", || figure(&server, "mstore_broker_up") == 1 && figure(&server, "mstore_broker_canary") == 1);
        server
    }

    fn server_without_waiting(&self, url: &str, more: &[&str]) -> Server {
        let [backend, canary, accounts] = ["mstore-backend-dev", "mstore-canary-dev", "mstore-accounts-dev"].map(|name| self.account(name));
        Server::start_with(
            &[
                &["--broker", url, "--broker-kind", "mosquitto"][..],
                more,
                &["--broker-username", backend.name, "--broker-password-file", backend.path()],
                &["--broker-canary-username", canary.name, "--broker-canary-password-file", canary.path()],
                &["--broker-admin-username", accounts.name, "--broker-admin-password-file", accounts.path()],
            ]
            .concat(),
        )
    }

    /// Has the plugin's administrator do something that nobody told the server about.
    fn meddle(&self, command: &[&str]) {
        let port = self.mosquitto.port().to_string();
        let mut control = Command::new("mosquitto_ctrl");
        control.args(["-h", "127.0.0.1", "-p", &port, "-u", "admin", "-P", "pw-admin", "dynsec"]).args(command);
        let output = control.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.contains("Error"), "{command:?}: {said}");
    }

    /// How a foreign client's login is answered: the exit code of one that has nothing to say once it is in.
    fn login(&self, device: &str, token: &str) -> Option<i32> {
        let port = self.mosquitto.port().to_string();
        let mut client = Command::new("mosquitto_sub");
        client.args(["-h", "127.0.0.1", "-p", &port, "-i", device, "-u", device, "-P", token, "-t", UPDATES, "-E"]);
        client.output().unwrap().status.code()
    }

    fn observer(&self) -> Account<'static> {
        self.meddle(&["createRole", "observer"]);
        for topic in ["#", "$SYS/#", "$CONTROL/#"] {
            for kind in ["publishClientSend", "publishClientReceive", "subscribePattern"] {
                self.meddle(&["addRoleACL", "observer", kind, topic, "allow"]);
            }
        }
        self.meddle(&["createClient", "observer", "-p", "pw-observer"]);
        self.meddle(&["addClientRole", "observer", "observer"]);
        Account::new(self.secrets.path(), "observer", "pw-observer")
    }
}

fn in_step(server: &Server) -> bool {
    figure(server, "mstore_broker_accounts_differing") == 0
}

#[test]
fn mosquitto_answers_every_case_as_expected() {
    if !have(&[Program::Mosquitto]) {
        return;
    }
    let rig = Rig::start();
    let server = rig.server();
    matrix::check(&server, "mosquitto", &[], &rig.account("mstore-backend-dev"), &rig.observer(), &[]);
}

#[test]
fn over_tls_with_a_certificate_of_the_servers_own() {
    if !have(&[Program::Mosquitto]) {
        return;
    }
    let mosquitto = Mosquitto::with_dynamic_security_over_tls();
    let [authority, certificate, key] = mosquitto.certificates().map(|file| file.to_str().unwrap().to_owned());
    let rig = Rig::prepare(mosquitto, &["--broker-ca", &authority]);
    let certified = ["--broker-ca", &authority, "--broker-cert", &certificate, "--broker-key", &key];
    // Devices have no certificate; they use the other listener.
    let told = ["--public-mqtt-url", &rig.mosquitto.url()];
    let server = rig.server_at(&rig.mosquitto.certified_url(), &[&certified[..], &told].concat());
    server.admin(&["trigger", "shop", "m1/b1"]);
    until("everything is published", || figure(&server, "mstore_outbox_entries") == 0);
    let backend = rig.account("mstore-backend-dev");
    let verify = ["broker", "verify", "mosquitto", "--json", "--case", "C", "--case", "L01", "--case", "L05"];
    let account = ["--backend-username", backend.name, "--backend-password-file", backend.path()];
    let output = server.try_admin(&[&verify[..], &account, &["--broker-ca", &authority]].concat());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert!(report["url"].as_str().unwrap().starts_with("mqtts://localhost:") && report["ok"].as_u64().unwrap() >= 5, "{report:#}");
    // Without that authority, and without a certificate where one is asked for, nobody gets in.
    let distrusted = server.try_admin(&[&verify[..], &account].concat());
    assert_eq!(distrusted.status.code(), Some(1), "{}", String::from_utf8_lossy(&distrusted.stderr));
    let uncertified = rig.server_without_waiting(&rig.mosquitto.certified_url(), &["--broker-ca", &authority]);
    until("it is refused for want of a certificate", || {
        let ready = crate::support::http(uncertified.http(), "GET", "/readyz", None, "").body;
        ready.to_lowercase().contains("certificate")
    });
}

#[test]
fn accounts_come_back_in_step_whatever_is_restored_or_changed() {
    if !have(&[Program::Mosquitto]) {
        return;
    }
    let mut rig = Rig::start();
    let server = rig.server();
    server.admin(&["trigger", "shop", "m1/b1"]);
    server.admin(&["trigger", "shop", "m1/b2"]);
    let (revoked, moved) = (server.token("m1/b1", "revoked"), server.token("m1/b1", "moved"));
    let backup = rig.mosquitto.accounts();
    let late = server.token("m1/b1", "late");
    server.admin(&["device", "revoke", "revoked"]);
    server.admin(&["device", "move", "moved", "m1/b2"]);

    // The broker comes back as it was before: one device too many, one missing, one at its old branch.
    let starts = figure(&server, "mstore_broker_starts");
    let changed = figure(&server, "mstore_broker_accounts_changed");
    rig.mosquitto.kill();
    rig.mosquitto.restore(&backup);
    until("the broker is back", || figure(&server, "mstore_broker_starts") > starts);
    until("three accounts are mended", || figure(&server, "mstore_broker_accounts_changed") == changed + 3 && in_step(&server));
    let (_watcher, answer) = Subscriber::start(&server, "late", &late, &[UPDATES]);
    assert!(answer.starts_with("Subscribed"), "{answer}");
    assert_eq!(rig.login("revoked", &revoked), Some(5), "not authorised");
    let (_watcher, answer) = Subscriber::start(&server, "moved", &moved, &[UPDATES]);
    assert!(answer.contains("128"), "{answer}");

    // Somebody changes things at the broker, and one account is of a device that the registry does not know any more.
    rig.meddle(&["deleteClient", "late"]);
    rig.meddle(&["addRoleACL", "mstore:dev/m1/b2", "subscribePattern", "#", "allow"]);
    rig.meddle(&["setDefaultACLAccess", "publishClientReceive", "allow"]);
    rig.mosquitto.kill();
    let changed = figure(&server, "mstore_broker_accounts_changed");
    rig.mosquitto.restart();
    until("a client and a role are mended", || figure(&server, "mstore_broker_accounts_changed") == changed + 2 && in_step(&server));
    let (_watcher, answer) = Subscriber::start(&server, "late", &late, &[UPDATES]);
    assert!(answer.starts_with("Subscribed"), "{answer}");
    let (_watcher, answer) = Subscriber::start(&server, "moved", &moved, &["#"]);
    assert!(answer.contains("128"), "{answer}");
    let accounts: serde_json::Value = serde_json::from_slice(&rig.mosquitto.accounts()).unwrap();
    assert_eq!(accounts["defaultACLAccess"]["publishClientReceive"], false, "{accounts}");

    // Another server's registry knows none of these devices: they go. What others made stays.
    drop(server);
    let server = rig.server();
    until("strangers are gone", || figure(&server, "mstore_broker_accounts_changed") >= 2 && in_step(&server));
    let accounts: serde_json::Value = serde_json::from_slice(&rig.mosquitto.accounts()).unwrap();
    let mut names: Vec<&str> = accounts["clients"].as_array().unwrap().iter().map(|client| client["username"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["admin", "mstore-accounts-dev", "mstore-backend-dev", "mstore-canary-dev"]);
}

#[test]
fn an_account_that_others_made_is_left_alone() {
    if !have(&[Program::Mosquitto]) {
        return;
    }
    let rig = Rig::start();
    let server = rig.server();
    server.admin(&["trigger", "shop", "m1/b1"]);
    server.token("m1/b1", "admin");
    assert_eq!(figure(&server, "mstore_broker_accounts_differing"), 1, "a device that is called like the administrator");
    // It still has its password and its rights.
    rig.meddle(&["getClient", "admin"]);
}
