//! The naive methods under the full workload: each must be caught, or this workload would catch nobody.

use mstore_rig::{Program, have};

use crate::{
    naive::{self, Method, Reader, SCHEMA},
    observer::{Findings, Observer},
    stage,
    workload::Shop,
};

/// Transactions of each writer in a round.
const TRANSACTIONS: usize = 40;
/// A method that fails by chance gets so many chances.
const ROUNDS: usize = 5;

/// One round of a method against the writers.
async fn round(method: Method) -> Findings {
    let postgres = naive::server();
    let database = postgres.database("control");
    let shop = Shop { url: database.url(), schema: SCHEMA, has_merge: postgres.major_version() >= 15 };
    method.install(&shop.url).await;
    shop.prepare().await;
    let mut reader = Reader::start(method, &shop.url, SCHEMA).await;
    let mut observer = Observer::new(0);
    observer.begin_with(shop.source().await);
    let writers = shop.clone();
    let writing = tokio::spawn(async move { writers.write(TRANSACTIONS).await });
    let found = stage::watch(&mut reader, observer, &shop, &writing).await;
    writing.await.unwrap();
    found
}

/// Rounds until the method is caught at what it does wrong.
async fn must_be_caught(method: Method, at: impl Fn(&Findings) -> u64) {
    if !have(&[Program::Postgres]) {
        return;
    }
    for _ in 0..ROUNDS {
        let found = round(method).await;
        assert!(found.changes > 1_000, "{found:?}");
        if at(&found) > 0 {
            return;
        }
    }
    panic!("{method:?} was not caught in {ROUNDS} rounds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_cursor_loses_changes() {
    must_be_caught(Method::IdCursor, |found| found.lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_xmin_watermark_turns_changes_round() {
    must_be_caught(Method::XminWatermark, |found| found.inverted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_read_statement_by_statement_tear_commits() {
    must_be_caught(Method::MarksStatementByStatement, |found| found.torn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_read_in_one_snapshot_are_clean() {
    if have(&[Program::Postgres]) {
        round(Method::MarksInOneSnapshot).await.assert_clean();
    }
}
