//! A NATS of the tests' own with MQTT and JetStream, on free ports; its users are a file that others write.

mod cluster;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
};

use tempfile::TempDir;

pub use self::cluster::{NATS_NODES, NatsCluster};
use crate::{
    port::free_port,
    program,
    server_process::{Log, ServerProcess},
};

/// A running NATS; ended and removed when dropped.
#[derive(Debug)]
pub struct Nats {
    _server: ServerProcess,
    mqtt: u16,
    monitor: u16,
    directory: TempDir,
}

impl Nats {
    /// Starts one whose users are these, in its own language.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(users: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("mstore-rig-").tempdir().expect("the temporary directory is writable");
        let path = directory.path();
        let [mqtt, monitor, core] = [(); 3].map(|()| free_port());
        let shown = path.display();
        let configuration = format!(
            "server_name: rig\nlisten: 127.0.0.1:{core}\nhttp: 127.0.0.1:{monitor}\npid_file: \"{shown}/nats.pid\"\n\
             jetstream {{ store_dir: \"{shown}/js\", max_mem: 64M, max_file: 256M }}\n\
             mqtt {{ listen: 127.0.0.1:{mqtt}, ack_wait: 30s, max_ack_pending: 100 }}\nmax_payload: 262144\ninclude \"users.conf\"\n"
        );
        fs::write(path.join("nats.conf"), configuration).expect("the directory is ours");
        fs::write(path.join("users.conf"), users).expect("the directory is ours");
        let program = program::nats().expect("NATS is not installed: `cargo xtask setup` installs Debian's package nats-server");
        let mut command = Command::new(program);
        command.arg("-c").arg(path.join("nats.conf")).current_dir(path);
        let server = ServerProcess::start(&mut command, "Server is ready", "TERM", path, &Log::default());
        Self { _server: server.unwrap_or_else(|why| panic!("{why}")), mqtt, monitor, directory }
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

    /// Its monitoring.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }

    /// The file of its users.
    #[must_use]
    pub fn users_file(&self) -> PathBuf {
        self.directory.path().join("users.conf")
    }

    /// The file of its process id.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.directory.path().join("nats.pid")
    }
}
