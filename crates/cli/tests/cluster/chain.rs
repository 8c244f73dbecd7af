//! The whole of it: three servers, a broker, a database, and tills of all three.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::Arc;

use mstore_client::Client;
use mstore_rig::{Mosquitto, Postgres, Program, have};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Cluster, DEADLINE, Node, Sql,
    books::{self, Frames, Numbering},
    fill,
    trade::Trade,
};

/// One at a time: what is measured is how long servers take, not how many fit on the machine.
static TURN: Mutex<()> = Mutex::const_new(());

/// Whether the test can run.
pub(crate) fn rig_is_there() -> bool {
    have(&[Program::Postgres, Program::Mosquitto])
}

/// Three servers, and for each a till that calls it and whose branch it sequences; a fourth till shares the branch of the first and calls another.
pub(crate) struct Chain {
    pub(crate) sql: Sql,
    pub(crate) frames: Frames,
    pub(crate) nodes: [Node; 3],
    pub(crate) tills: Arc<Vec<(String, Client)>>,
    pub(crate) beside: Client,
    pub(crate) database_url: String,
    /// Its files go when the servers are gone.
    pub(crate) cluster: Cluster,
    _mosquitto: Mosquitto,
    _turn: MutexGuard<'static, ()>,
}

impl Chain {
    pub(crate) async fn open(postgres: &Postgres) -> Self {
        Self::open_at(postgres.url(&postgres.database("chain").keep())).await
    }

    pub(crate) async fn open_at(database_url: String) -> Self {
        let turn = TURN.lock().await;
        let mosquitto = Mosquitto::start("");
        let (cluster, sql) = (Cluster::new(database_url.clone(), &mosquitto), Sql::new(database_url.clone()));
        let frames = Frames::listen(&mosquitto, &cluster.path("frames")).await;
        let nodes = cluster.three(&sql).await;
        fill(&nodes[1]).await;
        let mut tills = Vec::new();
        for (node, device) in nodes.iter().zip(["till-a", "till-b", "till-c"]) {
            let branch = sql.branch_of(node).await;
            tills.push((branch.clone(), cluster.till(node, &branch, device).await));
        }
        let beside = cluster.till(&nodes[1], &tills[0].0, "till-d").await;
        Self { cluster, sql, frames, nodes, tills: Arc::new(tills), beside, database_url, _mosquitto: mosquitto, _turn: turn }
    }

    pub(crate) fn trade(&self) -> Trade {
        Trade::begin(&self.database_url, &self.tills)
    }

    /// Until everything sold is sent and answered.
    pub(crate) async fn drain(&self) {
        for (_, till) in self.tills.iter() {
            till.drain(DEADLINE).await.unwrap_or_else(|error| panic!("{error}: {:?}", till.status()));
        }
    }

    /// Nothing was lost, doubled or put in another order; every till and every server has the same.
    pub(crate) async fn adds_up(&self, before: &Numbering, trade: Trade) {
        let sold = trade.end().await;
        self.drain().await;
        for ((branch, till), sold) in self.tills.iter().zip(&sold) {
            for node in &self.nodes {
                books::same(till, node, &self.sql, branch).await;
            }
            books::receipts(&self.sql, branch, sold).await;
            let engine = till.stats().engine;
            assert_eq!((engine.renumberings, engine.snapshots, engine.digest_mismatches), (0, 1, 0), "{branch}: {engine:?}");
        }
        books::same(&self.beside, &self.nodes[2], &self.sql, &self.tills[0].0).await;
        before.goes_on_as(&Numbering::read(&self.sql).await);
        self.frames.are_in_order_and_the_same_each_time();
        assert_eq!(self.sql.one("SELECT count(*) FROM mstore.alarm").await, "0");
    }
}
