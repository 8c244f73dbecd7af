//! Three servers on one PostgreSQL and one Mosquitto: any of them answers anything, and one that is killed, frozen or restarted changes nothing but who does it.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::{io::Write as _, time::Duration};

use cluster::{
    Cluster, MOVED_WITHIN, Noticed, Sql,
    books::{self, Numbering},
    chain::{Chain, rig_is_there},
    live, node, until,
};
use mstore_protocol::{OperationId, Timestamp};
use mstore_rig::{Mosquitto, Postgres};
use reqwest::Method;
use serde_json::json;

/// Servers killed, one after the other.
const KILLS: usize = 12;
/// Rows of one import, which are one round.
const IMPORTED: usize = 8_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_server_answers_anything() {
    if !rig_is_there() {
        return;
    }
    let chain = Chain::open(Postgres::shared()).await;
    let [first, second, third] = &chain.nodes;
    let before = Numbering::read(&chain.sql).await;
    // Each server is asked to change a branch that another one sequences: when it answers, the commit is there on all of them.
    for (asked, (branch, till)) in [second, third, first].into_iter().zip(chain.tills.iter()) {
        let id = OperationId::from_parts(Timestamp::from_ms(1_795_000_000_000), rand::random());
        let moves = json!({"moves": [{"id": id, "collection": "product", "item_id": "P", "quantity": "10"}]});
        let (status, answer) = asked.admin(Method::POST, &format!("/merchants/m1/branches/{branch}/stock-moves"), moves).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        for node in &chain.nodes {
            assert_eq!(
                node.head(branch).await.unwrap()["seq"],
                chain.sql.one(&format!("SELECT seq FROM mstore.head WHERE branch_id = '{branch}'")).await.parse::<u64>().unwrap()
            );
            books::same(till, node, &chain.sql, branch).await;
        }
        assert_eq!(till.product("P").unwrap().unwrap().stock.to_string(), "10", "{branch}");
    }
    let trade = chain.trade();
    trade.goes_on(20).await;
    chain.adds_up(&before, trade).await;
    let (published, _) = chain.frames.are_in_order_and_the_same_each_time();
    assert!(published > 60, "{published} frames");
    // A device that one of them revokes is out on all.
    let (_, till) = &chain.tills[0];
    let (status, answer) = third.admin(Method::POST, "/devices/till-a/revoke", json!({})).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    // The others hear of it by a notification, so the till's next question may still be answered.
    until("revoked", async || {
        till.sync_now().await;
        format!("{:?}", till.status().state).contains("Blocked")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_branches_of_a_killed_server_move() {
    if !rig_is_there() {
        return;
    }
    let mut chain = Chain::open(Postgres::shared()).await;
    let before = Numbering::read(&chain.sql).await;
    let trade = chain.trade();
    let mut moved = Vec::new();
    for n in [0, 1, 2].into_iter().cycle().take(KILLS) {
        trade.goes_on(4).await;
        chain.nodes[n].kill_9();
        let took = chain.sql.until_moved_from(&chain.nodes[n]).await;
        assert!(took < MOVED_WITHIN, "{took:?}");
        moved.push(took);
        trade.goes_on(4).await;
        chain.nodes[n].start_again();
        chain.sql.until_shared_by(&chain.nodes).await;
    }
    moved.sort();
    writeln!(std::io::stderr().lock(), "\n{KILLS} kills: moved after {:?} (median), {:?} (most)", moved[KILLS / 2], moved[KILLS - 1])
        .unwrap();
    chain.adds_up(&before, trade).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_takes_what_it_had_when_it_comes_back() {
    if !rig_is_there() {
        return;
    }
    let database = Postgres::shared().database("back");
    let mosquitto = Mosquitto::start("");
    let cluster = Cluster::new(database.url(), &mosquitto);
    let (mut only, sql) = (cluster.node("only"), Sql::new(database.url()));
    for _ in 0..3 {
        only.kill_9();
        // However long its lease would have lasted.
        let before = sql.one("UPDATE mstore.lease SET until = 'infinity' RETURNING server_id").await;
        only.start_again();
        let held = sql.one(&format!("SELECT count(*) FROM mstore.shard WHERE server_id <> '{before}'")).await;
        assert_eq!(held, "64", "it is ready, and all branches are its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_that_wakes_up_late_changes_nothing() {
    if !rig_is_there() {
        return;
    }
    let chain = Chain::open(Postgres::shared()).await;
    let before = Numbering::read(&chain.sql).await;
    let trade = chain.trade();
    for frozen in &chain.nodes {
        trade.goes_on(10).await;
        frozen.signal("STOP");
        let took = chain.sql.until_moved_from(frozen).await;
        assert!(took < MOVED_WITHIN, "{took:?}");
        trade.goes_on(10).await;
        frozen.signal("CONT");
        chain.sql.until_shared_by(&chain.nodes).await;
        until("it is ready again", async || frozen.is_ready().await).await;
    }
    chain.adds_up(&before, trade).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_frozen_inside_a_transaction_holds_nobody_up() {
    frozen_inside(|branch| {
        format!(
            "INSERT INTO mstore.stock_move (merchant_id, branch_id, id, collection, item_id, quantity_milli, effect_milli, reason)
             VALUES ('m1', '{branch}', 'caught', 'product', 'Q', 1000, 1000, 'delivery')"
        )
    })
    .await;
}

/// More rows than the database waits for with its usual patience.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_frozen_inside_an_import() {
    frozen_inside(|branch| {
        format!(
            "INSERT INTO mstore.inventory (merchant_id, branch_id, id, name)
             SELECT 'm1', '{branch}', 'imported-' || n, 'Imported' FROM generate_series(1, {IMPORTED}) n"
        )
    })
    .await;
}

async fn frozen_inside(write: impl Fn(&str) -> String) {
    if !rig_is_there() {
        return;
    }
    let chain = Chain::open(Postgres::shared()).await;
    let before = Numbering::read(&chain.sql).await;
    let frozen = &chain.nodes[2];
    let branch = &chain.tills[2].0;
    let (customer, connection) = tokio_postgres::connect(&chain.database_url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // Nobody can write a commit while this lasts: its sequencer comes to a stop inside its transaction.
    customer.batch_execute("BEGIN; LOCK TABLE mstore.commit_log IN SHARE MODE").await.unwrap();
    chain.sql.rows(&write(branch)).await;
    let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'mstore.commit_log'::regclass AND NOT granted";
    until("it is inside its transaction", async || chain.sql.one(waits).await == "1").await;
    frozen.signal("STOP");
    customer.batch_execute("COMMIT").await.unwrap();
    let took = chain.sql.until_moved_from(frozen).await;
    assert!(took < MOVED_WITHIN, "{took:?}");
    until("another server made the commit", async || {
        chain.sql.one(&format!("SELECT count(*) FROM mstore.mark WHERE branch_id = '{branch}'")).await == "0"
    })
    .await;
    frozen.signal("CONT");
    chain.sql.until_shared_by(&chain.nodes).await;
    let trade = chain.trade();
    trade.goes_on(10).await;
    chain.adds_up(&before, trade).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_is_a_reconnect_and_nothing_more() {
    if !rig_is_there() {
        return;
    }
    let mut chain = Chain::open(Postgres::shared()).await;
    let before = Numbering::read(&chain.sql).await;
    let noticed: Vec<Noticed> = chain.tills.iter().map(|(_, till)| Noticed::by(till)).collect();
    let trade = chain.trade();
    for n in 0..3 {
        trade.goes_on(10).await;
        chain.nodes[n].stop().await;
        let took = chain.sql.until_moved_from(&chain.nodes[n]).await;
        assert!(took < Duration::from_secs(2), "it gave its branches away itself: {took:?}");
        trade.goes_on(5).await;
        chain.nodes[n].start_again();
        chain.sql.until_shared_by(&chain.nodes).await;
        until("it is ready", async || chain.nodes[n].is_ready().await).await;
    }
    chain.adds_up(&before, trade).await;
    for (_, till) in chain.tills.iter() {
        live(till).await;
    }
    noticed.into_iter().for_each(Noticed::only_reconnects);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_one_database_have_one_master_key_and_one_broker() {
    if !rig_is_there() {
        return;
    }
    let database = Postgres::shared().database("agree");
    let mosquitto = Mosquitto::start("");
    let cluster = Cluster::new(database.url(), &mosquitto);
    let _first = cluster.node("first");
    let refused = |args: &[&str], dir: &str| {
        let output = node::command(&cluster.path(dir), args)
            .args(["--listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0", "--ws-listen", "127.0.0.1:0"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused(&["--database", &database.url(), "--broker", &mosquitto.url()], "stranger");
    assert!(said.contains("another master key") && said.contains("copy master.key of the first server to"), "{said}");
    let same_key = cluster.path("embedded");
    std::fs::create_dir(&same_key).unwrap();
    std::fs::copy(cluster.path("secrets.data").join("master.key"), same_key.join("master.key")).unwrap();
    let said = refused(&["--database", &database.url()], "embedded");
    assert!(said.contains("a broker of its own") && said.contains("with the same --broker"), "{said}");
}
