//! A RabbitMQ of the tests' own, with MQTT: a node without a cluster, on free ports, with a name server of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use crate::{
    account::Account,
    port::free_port,
    program,
    server_process::{Log, ServerProcess, lock},
};

/// Debian's package makes it.
const ACCOUNT: &str = "rabbitmq";

/// A running RabbitMQ; ended and removed when dropped. It asks over HTTP who a user is whom it does not know.
///
/// Its own accounts are `mstore-admin`, which may close connections and delete devices' queues, and `observer`, which may everything; passwords
/// are `pw-` and the name.
#[derive(Debug)]
pub struct RabbitMq {
    /// Killed before the name server goes: nothing of it is wanted any more, and in order it takes its time.
    server: Option<ServerProcess>,
    _names: ServerProcess,
    mqtt: u16,
    management: u16,
    _directory: TempDir,
}

impl RabbitMq {
    /// Starts one; `settings` are further lines of its configuration.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(settings: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("mstore-rig-").tempdir().expect("the temporary directory is writable");
        let account = Account::instead_of_root(ACCOUNT);
        let path = directory.path();
        let [mqtt, management, names_port, distribution] = [(); 4].map(|()| free_port());
        let definitions = path.join("definitions.json");
        let configuration = format!(
            "listeners.tcp = none\nmqtt.listeners.tcp.1 = 127.0.0.1:{mqtt}\nmqtt.allow_anonymous = false\nmqtt.tcp_listen_options.nodelay = true\n\
             management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\nload_definitions = {}\nlog.console = true\nlog.file = false\n{settings}",
            definitions.display()
        );
        for (name, text) in [
            ("rabbitmq.conf", configuration.as_str()),
            ("enabled_plugins", "[rabbitmq_mqtt,rabbitmq_auth_backend_http,rabbitmq_management].\n"),
            ("definitions.json", DEFINITIONS),
        ] {
            fs::write(path.join(name), text).expect("the directory is ours");
            if let Some(account) = account {
                account.own(&path.join(name));
            }
        }
        if let Some(account) = account {
            account.own(path);
        }
        let log = Log::default();
        let prepare = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(path);
            environment(&mut command, path, names_port, distribution);
            if let Some(account) = account {
                account.apply(&mut command);
            }
            command
        };
        // What they say goes to stdout; a shell that says a word first stands for a name server that never speaks.
        let mut names = prepare("echo names >&2; exec epmd -port $ERL_EPMD_PORT -address 127.0.0.1 >&2");
        let names = ServerProcess::start(&mut names, "names", "KILL", path, &log).unwrap_or_else(|why| panic!("{why}"));
        let program =
            program::rabbitmq().expect("RabbitMQ is not installed: `cargo xtask setup` installs Debian's package rabbitmq-server");
        let mut server = prepare(&format!("exec {} >&2", program.display()));
        let server = ServerProcess::start(&mut server, "Server startup complete", "TERM", path, &log);
        let server = server.unwrap_or_else(|why| panic!("{why}; before: {}", lock(&log)));
        Self { server: Some(server), _names: names, mqtt, management, _directory: directory }
    }

    /// Where MQTT is spoken.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.mqtt).into()
    }

    /// Its address as `--broker` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.mqtt)
    }

    /// The management API.
    #[must_use]
    pub fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.management)
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }
}

const DEFINITIONS: &str = r#"{
 "users": [{"name": "mstore-admin", "password": "pw-mstore-admin", "tags": ["administrator"]}, {"name": "observer", "password": "pw-observer", "tags": []}],
 "vhosts": [{"name": "/"}],
 "permissions": [
  {"user": "mstore-admin", "vhost": "/", "configure": "^mqtt-subscription-.*", "write": "^$", "read": "^$"},
  {"user": "observer", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}]
}"#;

/// Nothing of the system's own node is read or written.
fn environment(command: &mut Command, path: &Path, names_port: u16, distribution: u16) {
    let file = |name: &str| path.join(name);
    command
        .env("HOME", path)
        .env("ERL_EPMD_PORT", names_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("mstore-{names_port}@localhost"))
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", file("mnesia"))
        .env("RABBITMQ_LOG_BASE", file("log"))
        .env("RABBITMQ_LOGS", "-");
}
