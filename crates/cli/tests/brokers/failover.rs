//! A cluster of NATS nodes of which first the one dies that the tills use, and then the one that we publish to: what arrives, and how soon.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use mstore_client::{Client, Options, Stats, Status};
use mstore_protocol::{DeviceState, Head};
use mstore_rig::{NatsCluster, Program, have};
use serde_json::json;
use tokio::{sync::watch, time::timeout};

use crate::{
    matrix::{figure, until},
    support::{Server, http},
};

const TILLS: u64 = 8;
const NODES: u64 = 3;
/// Stock movements that are made after the kill: so many that it is over before they are.
const MOVES_AFTER: u64 = 400;
/// A fifth of the poll interval: a poll cannot have helped.
const DEADLINE: Duration = Duration::from_secs(60);
const SKU: &str = "SKU-00003";

struct Shop {
    cluster: NatsCluster,
    server: Arc<Server>,
    tills: Vec<Client>,
    /// Of the product that is delivered, before anything was.
    stock: i64,
    moves: Arc<AtomicU64>,
    _files: tempfile::TempDir,
}

impl Shop {
    /// The server publishes to node 0, and all tills listen at node 1.
    async fn start() -> Self {
        let cluster = NatsCluster::start();
        let server = Server::start_with(&["--broker", &cluster.url_from(0)]);
        server.admin(&["trigger", "shop", "m1/b1"]);
        until("the broker is up", || figure(&server, "mstore_broker_up") == 1);
        let files = tempfile::tempdir().unwrap();
        let mut tills = Vec::new();
        for n in 0..TILLS {
            let options = Options { seed: Some(n * NODES), mqtt_url: Some(cluster.url_from(1)), ..Options::default() };
            let (name, path) = (format!("till-{n}"), files.path().join(format!("till-{n}.db")));
            tills.push(Client::enrol(path, server.http(), &server.claim("m1/b1", &name), options).await.unwrap());
        }
        let mut shop = Self { cluster, server: Arc::new(server), tills, stock: 0, moves: Arc::default(), _files: files };
        shop.each("live", async |mut till| till.is(DeviceState::Live).await).await;
        shop.stock = shop.tills[0].product(SKU).unwrap().unwrap().stock.to_string().parse().unwrap();
        shop
    }

    /// Does the same on all tills at once; how long that took.
    async fn each(&self, what: &str, work: impl AsyncFn(Watched)) {
        let all = join_all(self.tills.iter().map(|till| work(Watched(till.watch_status()))));
        let done = timeout(DEADLINE, all).await.is_ok();
        assert!(done, "not within {DEADLINE:?}: every till {what}: {:?}", self.tills.iter().map(Client::status).collect::<Vec<_>>());
    }

    /// One delivery after the other until told to stop.
    fn trade(&self, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
        let (server, moves) = (self.server.clone(), self.moves.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                move_one(&server, moves.fetch_add(1, Ordering::Relaxed));
            }
        })
    }

    fn head(&self) -> Head {
        let token = self.server.admin_token();
        let answer = http(self.server.http(), "GET", "/v1/m1/b1/head", Some(&token), "");
        Head::parse(answer.body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
    }

    fn sum(&self, count: impl Fn(&Stats) -> u64) -> u64 {
        self.tills.iter().map(|till| count(&till.stats())).sum()
    }

    /// Every delivery is on every till, and every digest is the server's.
    async fn same_everywhere(&self) {
        let head = self.head();
        self.each("at the head", async |mut till| till.reaches(head.seq).await).await;
        let stock = (self.stock + i64::try_from(self.moves.load(Ordering::Relaxed)).unwrap()).to_string();
        for till in &self.tills {
            let (cursor, digests) = till.digests();
            assert_eq!(cursor.unwrap(), head.cursor());
            for (collection, digest) in &head.digests {
                assert_eq!(digests.get(collection).copied().unwrap_or_default(), *digest, "{collection}");
            }
            assert_eq!(till.product(SKU).unwrap().unwrap().stock.to_string(), stock);
        }
        until("nothing waits for the broker", || figure(&self.server, "mstore_outbox_entries") == 0);
    }
}

fn move_one(server: &Server, number: u64) {
    let token = server.admin_token();
    let id = format!("01970000-0000-7000-8000-{number:012x}");
    let one = json!({"id": id, "collection": "product", "item_id": SKU, "kind": "delta", "quantity": "1", "reason": "delivery"});
    let body = json!({ "moves": [one] }).to_string();
    let answer = http(server.http(), "POST", "/v1/admin/merchants/m1/branches/b1/stock-moves", Some(&token), &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// What a till says about itself.
struct Watched(watch::Receiver<Status>);

impl Watched {
    async fn is(&mut self, state: DeviceState) {
        self.0.wait_for(|status| status.state == state).await.unwrap();
    }

    async fn reaches(&mut self, seq: u64) {
        self.0.wait_for(|status| status.cursor.is_some_and(|cursor| cursor.seq >= seq)).await.unwrap();
    }
}

/// Looks again at every turn of the clock.
async fn eventually(what: &str, done: impl Fn() -> bool) {
    let looking = async {
        let mut turns = tokio::time::interval(Duration::from_millis(2));
        while !done() {
            turns.tick().await;
        }
    };
    assert!(timeout(DEADLINE, looking).await.is_ok(), "not within {DEADLINE:?}: {what}");
}

/// What one kill came to.
struct Failover {
    node: &'static str,
    live_after: Duration,
    fresh_after: Duration,
    by_http: u64,
    all: u64,
    calls: u64,
}

impl Failover {
    fn tell(&self) {
        let Self { node, live_after, fresh_after, by_http, all, calls } = self;
        let said = format!(
            "killed the node of {node}: all {TILLS} tills live after {live_after:.1?}, a change of after the kill on all of them after \
             {fresh_after:.1?}; {by_http} of {all} changes came by HTTP, in {calls} calls"
        );
        writeln!(std::io::stdout().lock(), "\n{said}").unwrap();
    }
}

/// Kills a node in the middle of trade; `noticed` ends when those who used it have noticed.
async fn kill(shop: &mut Shop, node: usize, name: &'static str, noticed: impl AsyncFn(&Shop)) -> Failover {
    let before = [shop.sum(|stats| stats.changes_http), shop.sum(|stats| stats.changes_mqtt), shop.sum(|stats| stats.engine.catch_ups)];
    let stop = Arc::new(AtomicBool::new(false));
    let trade = shop.trade(stop.clone());
    let first = shop.head().seq;
    shop.each("trades", async |mut till| till.reaches(first + 20).await).await;
    shop.cluster.kill(node);
    let killed = Instant::now();
    let seq = shop.head().seq;
    noticed(&*shop).await;
    shop.each("live", async |mut till| till.is(DeviceState::Live).await).await;
    let live_after = killed.elapsed();
    shop.each("fresh", async |mut till| till.reaches(seq + 1).await).await;
    let fresh_after = killed.elapsed();
    shop.each("goes on", async |mut till| till.reaches(seq + MOVES_AFTER).await).await;
    stop.store(true, Ordering::Relaxed);
    trade.join().unwrap();
    shop.same_everywhere().await;
    let by_http = shop.sum(|stats| stats.changes_http) - before[0];
    let all = by_http + shop.sum(|stats| stats.changes_mqtt) - before[1];
    let calls = shop.sum(|stats| stats.engine.catch_ups) - before[2];
    Failover { node: name, live_after, fresh_after, by_http, all, calls }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "fails in one run of two: after a kill the cluster hands frames on minutes late, and tills wait for their poll"]
async fn a_node_of_a_cluster_dies_and_nothing_is_lost() {
    if !have(&[Program::Nats]) {
        return;
    }
    let mut shop = Shop::start().await;
    let tills = kill(&mut shop, 1, "the tills", async |shop: &Shop| {
        eventually("every till is cut off", || shop.sum(|stats| stats.engine.disconnects) == TILLS).await;
    });
    tills.await.tell();

    shop.cluster.restart(1);
    let starts = figure(&shop.server, "mstore_broker_starts");
    let publisher = kill(&mut shop, 0, "the server", async |shop: &Shop| {
        until("the server has noticed", || figure(&shop.server, "mstore_broker_starts") > starts);
    });
    publisher.await.tell();
    assert_eq!(shop.sum(|stats| stats.engine.snapshots), TILLS, "the first ones alone");
    assert_eq!(shop.sum(|stats| stats.engine.digest_mismatches), 0);
}
