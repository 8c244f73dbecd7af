//! NATS with MQTT: its users are lines of a file that the server writes.

use mstore_rig::{Nats, Program, have};

use crate::{
    matrix::{self, Account, figure, until},
    support::{Server, binary},
};

/// NATS 2.9 binds no client id to a user; retained messages and the rest are as they should be.
const EXCEPTIONS: &[&str] = &["C05"];

#[test]
fn nats_answers_every_case_as_expected_but_for_the_client_id() {
    if !have(&[Program::Nats]) {
        return;
    }
    let said = binary().args(["broker", "setup", "nats", "--env", "dev"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    // Exactly the file that the operator is told to write, with a user of his own in it.
    let users = said[said.find("accounts {").unwrap()..said.find("\n# 3.").unwrap()]
        .replace("# your own users of this account", "{user: observer, password: pw-observer}");
    let nats = Nats::start(&users);
    let secrets = tempfile::tempdir().unwrap();
    let [backend, canary] =
        ["mstore-backend-dev", "mstore-canary-dev"].map(|name| Account::new(secrets.path(), name, &format!("pw-{name}")));
    let (users_file, pid_file) = (nats.users_file(), nats.pid_file());
    let server = Server::start_with(
        &[
            &["--broker", &nats.url(), "--broker-kind", "nats", "--broker-admin-url", &nats.monitor_url()][..],
            &["--broker-users-file", users_file.to_str().unwrap(), "--broker-pid-file", pid_file.to_str().unwrap()],
            &["--broker-username", backend.name, "--broker-password-file", backend.path()],
            &["--broker-canary-username", canary.name, "--broker-canary-password-file", canary.path()],
        ]
        .concat(),
    );
    until("the broker is up", || figure(&server, "mstore_broker_up") == 1 && figure(&server, "mstore_broker_canary") == 1);
    let asked = ["--broker-admin-url", &nats.monitor_url()];
    matrix::check(&server, "nats", &asked, &backend, &Account::new(secrets.path(), "observer", "pw-observer"), EXCEPTIONS);
    let written = std::fs::read_to_string(nats.users_file()).unwrap();
    assert!(written.contains("{user: observer, password: pw-observer}") && !written.contains("mst_"), "{written}");
}
