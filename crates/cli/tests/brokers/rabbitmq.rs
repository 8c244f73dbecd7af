//! RabbitMQ with its MQTT plugin: it asks the server about everybody, and the server ends the sessions of devices that change.

use std::net::TcpListener;

use mstore_rig::{Program, RabbitMq, have};
use tempfile::TempDir;

use crate::{
    matrix::{self, Account, figure, until},
    support::{Server, binary},
};

const SECRET: &str = "a-secret-for-hooks-only";

struct Rig {
    rabbitmq: RabbitMq,
    server: Server,
    secrets: TempDir,
}

impl Rig {
    fn start() -> Self {
        // Both must know the address before either starts.
        let hooks = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let secrets = tempfile::tempdir().unwrap();
        let secret = Account::new(secrets.path(), "hooks", SECRET);
        let said = binary()
            .args(["broker", "setup", "rabbitmq", "--env", "dev", "--hooks", &hooks, "--hooks-secret-file", secret.path()])
            .output()
            .unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let said = String::from_utf8(said.stdout).unwrap();
        // Exactly the lines that the operator is told to put into the file.
        let settings: Vec<&str> = said.lines().filter(|line| line.starts_with("auth_")).collect();
        assert!(settings.len() >= 7, "{said}");
        let rabbitmq = RabbitMq::start(&settings.join("\n"));
        let [backend, canary] =
            ["mstore-backend-dev", "mstore-canary-dev"].map(|name| Account::new(secrets.path(), name, &format!("pw-{name}")));
        let admin = Account::new(secrets.path(), "mstore-admin", "pw-mstore-admin");
        let server = Server::start_with(
            &[
                &["--broker", &rabbitmq.url(), "--broker-kind", "rabbitmq", "--broker-admin-url", &rabbitmq.management_url()][..],
                &["--hooks-listen", &hooks, "--hooks-secret-file", secret.path()],
                &["--broker-username", backend.name, "--broker-password-file", backend.path()],
                &["--broker-canary-username", canary.name, "--broker-canary-password-file", canary.path()],
                &["--broker-admin-username", admin.name, "--broker-admin-password-file", admin.path()],
            ]
            .concat(),
        );
        until("the broker is up", || figure(&server, "mstore_broker_up") == 1 && figure(&server, "mstore_broker_canary") == 1);
        Self { rabbitmq, server, secrets }
    }
}

#[test]
fn rabbitmq_answers_every_case_as_expected() {
    if !have(&[Program::RabbitMq]) {
        return;
    }
    let rig = Rig::start();
    let backend = Account::new(rig.secrets.path(), "mstore-backend-dev", "pw-mstore-backend-dev");
    let observer = Account::new(rig.secrets.path(), "observer", "pw-observer");
    let admin = Account::new(rig.secrets.path(), "mstore-admin", "pw-mstore-admin");
    let asked = ["--broker-admin-url", &rig.rabbitmq.management_url(), "--broker-admin-username", admin.name];
    let asked = [&asked[..], &["--broker-admin-password-file", admin.path()]].concat();
    matrix::check(&rig.server, "rabbitmq", &asked, &backend, &observer, &[]);
    drop(rig.rabbitmq);
}
