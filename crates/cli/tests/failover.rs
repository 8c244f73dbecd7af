//! The database of three servers goes away and comes back, or a replica takes its place: they heal by themselves, and what the replica had not received comes
//! back from the tills.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::BTreeSet;

use cluster::{
    Sql,
    books::{self, Numbering},
    chain::{Chain, rig_is_there},
    live,
    trade::sell,
    until,
};
use mstore_rig::Postgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_or_restarted_is_taken_up_again() {
    if !rig_is_there() {
        return;
    }
    let mut postgres = Postgres::start();
    let chain = Chain::open(&postgres).await;
    let before = Numbering::read(&chain.sql).await;
    let trade = chain.trade();
    for restart in [|postgres: &mut Postgres| postgres.kill_9(), |postgres: &mut Postgres| postgres.stop()] {
        trade.goes_on(10).await;
        restart(&mut postgres);
        postgres.start_again();
        trade.goes_on(10).await;
        chain.sql.until_shared_by(&chain.nodes).await;
        for node in &chain.nodes {
            until("it is ready", async || node.is_ready().await).await;
        }
    }
    chain.adds_up(&before, trade).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_had_everything_takes_over_unnoticed() {
    if !rig_is_there() {
        return;
    }
    let mut primary = Postgres::start();
    let shop = primary.database("shop").keep();
    let replica = primary.replica();
    primary.set("synchronous_standby_names", "*");
    let chain = Chain::open_at(primary.failover_url(&replica, &shop)).await;
    let before = Numbering::read(&chain.sql).await;
    let trade = chain.trade();
    trade.goes_on(10).await;
    primary.kill_9();
    replica.promote();
    trade.goes_on(10).await;
    chain.sql.until_shared_by(&chain.nodes).await;
    chain.adds_up(&before, trade).await;
}

/// How many commits there are.
async fn commits(sql: &Sql) -> String {
    sql.one("SELECT sum(seq) FROM mstore.head").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_had_not_received_comes_back_from_the_tills() {
    if !rig_is_there() {
        return;
    }
    let mut primary = Postgres::start();
    let shop = primary.database("shop").keep();
    let replica = primary.replica();
    let chain = Chain::open_at(primary.failover_url(&replica, &shop)).await;
    let [(branch, till), (other, quiet), _] = &chain.tills[..] else { panic!("three tills") };
    let mut sold = BTreeSet::from([sell(till).await]);
    till.drain(cluster::DEADLINE).await.unwrap();
    let behind = Sql::new(replica.url(&shop));
    until("the replica has it", async || commits(&behind).await == commits(&chain.sql).await).await;
    replica.set("primary_conninfo", "");
    let follows = Sql::new(replica.superuser_url(&shop));
    until("it follows no more", async || follows.one("SELECT count(*) FROM pg_stat_wal_receiver").await == "0").await;
    let before = Numbering::read(&chain.sql).await;

    // Accepted, committed, shown on both tills of the branch; and many transactions whose numbers will be given out again.
    for _ in 0..5 {
        sold.insert(sell(till).await);
    }
    till.drain(cluster::DEADLINE).await.unwrap();
    books::same(till, &chain.nodes[1], &chain.sql, branch).await;
    books::same(&chain.beside, &chain.nodes[1], &chain.sql, branch).await;
    chain.sql.rows("DO $$ BEGIN FOR i IN 1..2000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$").await;
    primary.kill_9();
    replica.promote();

    chain.sql.until_shared_by(&chain.nodes).await;
    let write = format!(
        "INSERT INTO mstore.stock_move (merchant_id, branch_id, id, collection, item_id, quantity_milli, effect_milli, reason)
         VALUES ('m1', '{other}', 'after', 'product', 'Q', 7000, 7000, 'delivery')"
    );
    chain.sql.rows(&write).await;
    until("a write of after the failover reaches its till", async || quiet.product("Q").unwrap().unwrap().stock.to_string() == "7").await;
    let count = format!("SELECT count(*) FROM mstore.transactions WHERE branch_id = '{branch}'");
    until("the sales are handed in again", async || chain.sql.one(&count).await == sold.len().to_string()).await;
    chain.drain().await;
    books::receipts(&chain.sql, branch, &sold).await;
    for (branch, till) in chain.tills.iter() {
        live(till).await;
        books::same(till, &chain.nodes[2], &chain.sql, branch).await;
    }
    books::same(&chain.beside, &chain.nodes[0], &chain.sql, branch).await;
    assert_eq!(till.product("P").unwrap().unwrap().stock.to_string(), format!("-{}", sold.len()));
    let after = Numbering::read(&chain.sql).await;
    assert_ne!(before.epoch(branch), after.epoch(branch), "its newest commits were lost");
    assert_eq!(before.epoch(other), after.epoch(other), "nothing of it was lost");
    let alarms = chain.sql.rows("SELECT kind, branch_id FROM mstore.alarm").await;
    assert_eq!(alarms, [["restored_from_backup".to_owned(), branch.clone()]]);
}
