//! Several `serve` processes on one PostgreSQL and one Mosquitto, tills of theirs, and a look at everything that must not change.
#![allow(clippy::unwrap_used, dead_code)]

pub(crate) mod books;
pub(crate) mod chain;
pub(crate) mod node;
pub(crate) mod trade;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mstore_client::{Client, DeviceState, Options};
use mstore_rig::Mosquitto;
use mstore_server::DataDir;
use serde_json::json;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use self::node::Node;

/// Nothing here takes this long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// A dead or frozen server's branches have moved after this time.
pub(crate) const MOVED_WITHIN: Duration = Duration::from_secs(5);
/// Enough for each of three servers to hold some.
const BRANCHES: usize = 12;

/// What the servers share.
pub(crate) struct Cluster {
    dir: TempDir,
    database_url: String,
    broker_url: String,
}

impl Cluster {
    pub(crate) fn new(database_url: String, mosquitto: &Mosquitto) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let cluster = Self { dir: tempfile::tempdir().unwrap(), database_url, broker_url: mosquitto.url() };
        drop(DataDir::open(cluster.data_dir("secrets")).unwrap());
        cluster
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data_dir(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.data"))
    }

    /// A server with the secrets that all of them have.
    pub(crate) fn node(&self, name: &str) -> Node {
        let dir = self.data_dir(name);
        std::fs::create_dir_all(&dir).unwrap();
        for secret in ["master.key", "admin.token"] {
            std::fs::copy(self.data_dir("secrets").join(secret), dir.join(secret)).unwrap();
        }
        let args = ["--database", &self.database_url, "--broker", &self.broker_url];
        Node::start(&dir, &self.path(&format!("{name}.log")), &args)
    }

    /// Three of them, each with its share of the branches.
    pub(crate) async fn three(&self, sql: &Sql) -> [Node; 3] {
        let nodes = ["a", "b", "c"].map(|name| self.node(name));
        sql.until_shared_by(&nodes).await;
        nodes
    }

    /// A till that was told to call a certain server.
    pub(crate) async fn till(&self, at: &Node, branch: &str, device: &str) -> Client {
        let claim = at.claim(branch, device).await;
        // No reports: what a till does besides is not looked at here.
        let options = Options { seed: Some(7), report_interval: None, ..Options::default() };
        let till = Client::enrol(self.path(&format!("{device}.db")), &at.http(), &claim, options).await.unwrap();
        live(&till).await;
        till
    }
}

/// A merchant with its branches, and two products that all of them sell.
pub(crate) async fn fill(node: &Node) {
    node.put("/merchants/m1", json!({"name": "Kopi", "currency": "IDR"})).await;
    for n in 1..=BRANCHES {
        node.put(&format!("/merchants/m1/branches/b{n}"), json!({"name": format!("Branch {n}")})).await;
    }
    for sku in ["P", "Q"] {
        node.put(&format!("/merchants/m1/products/{sku}"), json!({"sku": sku, "name": sku, "price": {"amount": 1_000, "currency": "IDR"}}))
            .await;
    }
}

pub(crate) async fn live(till: &Client) {
    let mut status = till.watch_status();
    let waited = tokio::time::timeout(DEADLINE, status.wait_for(|status| status.state == DeviceState::Live)).await;
    assert!(waited.is_ok(), "not live: {:?} {:?}", till.status(), till.stats());
}

/// What a till was, one state after the other, until it is dropped.
pub(crate) struct Noticed(tokio::task::JoinHandle<()>, Arc<Mutex<BTreeSet<&'static str>>>);

impl Noticed {
    pub(crate) fn by(till: &Client) -> Self {
        let (mut status, noticed) = (till.watch_status(), Arc::new(Mutex::new(BTreeSet::new())));
        let seen = Arc::clone(&noticed);
        let watch = async move {
            while status.changed().await.is_ok() {
                seen.lock().unwrap().insert(status.borrow_and_update().state.as_str());
            }
        };
        Self(tokio::spawn(watch), noticed)
    }

    /// Nothing but that connections were made again.
    pub(crate) fn only_reconnects(self) {
        self.0.abort();
        let noticed = self.1.lock().unwrap();
        let is_reconnect = |state: &&&str| ["live", "catching_up", "polling", "offline"].contains(*state);
        assert_eq!(noticed.iter().find(|state| !is_reconnect(state)), None, "{noticed:?}");
    }
}

/// Asks again until it holds; every question is one to a server.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A program of the customer's that uses the database directly.
pub(crate) struct Sql {
    url: String,
}

impl Sql {
    pub(crate) fn new(url: String) -> Self {
        Self { url }
    }

    /// On a new connection each time: none of them outlives a server that is killed.
    pub(crate) async fn try_rows(&self, sql: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(sql).await;
        drop(client);
        let _ended = connection.await;
        let rows = messages?.into_iter().filter_map(|message| {
            let tokio_postgres::SimpleQueryMessage::Row(row) = message else { return None };
            Some((0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect())
        });
        Ok(rows.collect())
    }

    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_rows(sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"))
    }

    /// The first column of the first row.
    pub(crate) async fn one(&self, sql: &str) -> String {
        self.rows(sql).await[0][0].clone()
    }

    /// Which server, by its URL, sequences which branch.
    pub(crate) async fn branch_of(&self, node: &Node) -> String {
        let sql = format!(
            "SELECT h.branch_id FROM mstore.head h JOIN mstore.shard USING (shard) JOIN mstore.server USING (server_id)
             WHERE url = '{}' ORDER BY h.n LIMIT 1",
            node.http()
        );
        self.one(&sql).await
    }

    /// All shards are held by these servers, by each about as many.
    pub(crate) async fn are_shared_by(&self, nodes: &[&Node]) -> bool {
        let sql = "SELECT url, count(*) FROM mstore.shard LEFT JOIN mstore.server USING (server_id) GROUP BY url";
        let Ok(rows) = self.try_rows(sql).await else { return false };
        let most = 64_usize.div_ceil(nodes.len());
        let fair = |row: &Vec<String>| row[1].parse::<usize>().unwrap() <= most && nodes.iter().any(|node| node.http() == row[0]);
        rows.len() == nodes.len() && rows.iter().all(fair)
    }

    pub(crate) async fn until_shared_by<'a>(&self, nodes: impl IntoIterator<Item = &'a Node>) {
        let nodes: Vec<&Node> = nodes.into_iter().collect();
        until("the shards are shared", async || self.are_shared_by(&nodes).await).await;
    }

    /// Until no shard is a certain server's or nobody's; how long that took.
    pub(crate) async fn until_moved_from(&self, node: &Node) -> Duration {
        let begun = Instant::now();
        let sql = format!(
            "SELECT count(*) FROM mstore.shard LEFT JOIN mstore.server USING (server_id) WHERE url IS NULL OR url = '{}'",
            node.http()
        );
        until("the shards moved", async || self.one(&sql).await == "0").await;
        begun.elapsed()
    }
}
