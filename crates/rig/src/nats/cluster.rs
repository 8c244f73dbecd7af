//! Three NATS nodes that keep what MQTT needs three times: one may be killed, and the other two go on.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use crate::{
    port::free_port,
    program,
    server_process::{Log, ServerProcess, lock},
};

/// Nodes of a cluster: the smallest number of which one can be missed.
pub const NATS_NODES: usize = 3;
/// What a node says when it takes connections, and when the cluster has a majority.
const LISTENS: &str = "Server is ready";
const HAS_LEADER: &str = "metadata leader";

/// A running cluster that lets everybody in; ended and removed when dropped.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<Node>,
    _directory: TempDir,
}

#[derive(Debug)]
struct Node {
    process: Option<ServerProcess>,
    mqtt: u16,
    directory: std::path::PathBuf,
    log: Log,
}

impl NatsCluster {
    /// Starts the nodes and waits until they are one cluster.
    ///
    /// # Panics
    /// When they do not become one.
    #[must_use]
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("mstore-rig-").tempdir().expect("the temporary directory is writable");
        let routes: [u16; NATS_NODES] = std::array::from_fn(|_| free_port());
        let mut nodes: Vec<Node> = (0..NATS_NODES).map(|number| Node::prepare(directory.path(), number, &routes)).collect();
        for (number, node) in nodes.iter_mut().enumerate() {
            // The last one waits until all of them have agreed on a leader.
            node.run(if number + 1 == NATS_NODES { HAS_LEADER } else { LISTENS });
        }
        Self { nodes, _directory: directory }
    }

    /// Where a node speaks MQTT.
    #[must_use]
    pub fn addr(&self, node: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.nodes[node].mqtt).into()
    }

    /// All nodes as `--broker` takes them, beginning with one of them.
    #[must_use]
    pub fn url_from(&self, first: usize) -> String {
        let nodes: Vec<String> = (first..first + NATS_NODES).map(|node| self.addr(node % NATS_NODES).to_string()).collect();
        format!("mqtt://{}", nodes.join(","))
    }

    /// SIGKILL to one node.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].process.take().expect("the node was killed").kill();
    }

    /// After a kill: again, on the same ports and files.
    ///
    /// # Panics
    /// When it cannot.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].run(LISTENS);
    }

    /// Everything that a node said so far.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        lock(&self.nodes[node].log).clone()
    }
}

impl Node {
    fn prepare(parent: &Path, number: usize, routes: &[u16; NATS_NODES]) -> Self {
        let directory = parent.join(format!("node-{number}"));
        fs::create_dir(&directory).expect("the directory is ours");
        let [mqtt, core] = [(); 2].map(|()| free_port());
        let others: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let configuration = format!(
            "server_name: node-{number}\nlisten: 127.0.0.1:{core}\n\
             jetstream {{ store_dir: \"{}/js\", max_mem: 64M, max_file: 256M }}\n\
             mqtt {{ listen: 127.0.0.1:{mqtt}, ack_wait: 30s, max_ack_pending: 100 }}\nmax_payload: 262144\n\
             cluster {{ name: rig, listen: 127.0.0.1:{}, routes: [{}] }}\n",
            directory.display(),
            routes[number],
            others.join(", ")
        );
        fs::write(directory.join("nats.conf"), configuration).expect("the directory is ours");
        Self { process: None, mqtt, directory, log: Log::default() }
    }

    fn run(&mut self, ready: &'static str) {
        let program = program::nats().expect("NATS is not installed: `cargo xtask setup` installs Debian's package nats-server");
        let mut command = Command::new(program);
        command.arg("-c").arg(self.directory.join("nats.conf")).current_dir(&self.directory);
        // Nothing of it is wanted any more at the end, and a node that leaves in order takes its time.
        let process = ServerProcess::start(&mut command, ready, "KILL", &self.directory, &self.log);
        self.process = Some(process.unwrap_or_else(|why| panic!("{why}")));
    }
}
