//! A shop that goes on whatever becomes of its servers.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use mstore_client::{Client, NewReceipt, Quantity};
use tokio::task::JoinHandle;

use super::until;

/// Between two writes of the customer's program, and between two sales of a till.
const PACE: Duration = Duration::from_millis(40);

/// One receipt; its id.
pub(crate) async fn sell(till: &Client) -> String {
    till.commit_sale(NewReceipt::of([("P", Quantity::from_units(1))])).await.unwrap().id.to_string()
}

/// A program of the customer's writes to the branches, and tills sell.
pub(crate) struct Trade {
    stopped: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writer: JoinHandle<()>,
    seller: JoinHandle<Vec<BTreeSet<String>>>,
}

impl Trade {
    pub(crate) fn begin(sql_url: &str, tills: &Arc<Vec<(String, Client)>>) -> Self {
        let (stopped, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let branches: Vec<String> = tills.iter().map(|(branch, _)| branch.clone()).collect();
        let writer = tokio::spawn(write(sql_url.to_owned(), branches, Arc::clone(&stopped), Arc::clone(&written)));
        let (tills, until) = (Arc::clone(tills), Arc::clone(&stopped));
        let seller = tokio::spawn(async move {
            let mut sold = vec![BTreeSet::new(); tills.len()];
            while !until.load(Ordering::Relaxed) {
                for ((_, till), sold) in tills.iter().zip(&mut sold) {
                    sold.insert(sell(till).await);
                }
                tokio::time::sleep(PACE).await;
            }
            sold
        });
        Self { stopped, written, writer, seller }
    }

    /// Until so many more writes are done.
    pub(crate) async fn goes_on(&self, more: u64) {
        let wanted = self.written.load(Ordering::Relaxed) + more;
        until("the writer goes on", async || {
            assert!(!self.writer.is_finished() && !self.seller.is_finished(), "the shop stands still");
            self.written.load(Ordering::Relaxed) >= wanted
        })
        .await;
    }

    /// The receipts, by till.
    pub(crate) async fn end(self) -> Vec<BTreeSet<String>> {
        self.stopped.store(true, Ordering::Relaxed);
        self.writer.await.unwrap();
        self.seller.await.unwrap()
    }
}

/// Transactions of several rows, some of which touch every branch at once. A database that is away is waited for.
async fn write(url: String, branches: Vec<String>, stopped: Arc<AtomicBool>, written: Arc<AtomicU64>) {
    let mut client: Option<tokio_postgres::Client> = None;
    let mut n = 0_u64;
    while !stopped.load(Ordering::Relaxed) {
        if client.is_none() {
            client = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.ok().map(|(client, connection)| {
                tokio::spawn(connection);
                client
            });
        }
        if let Some(connected) = &client {
            n += 1;
            match connected.batch_execute(&statements(&branches, n)).await {
                Ok(()) => written.fetch_add(1, Ordering::Relaxed),
                Err(error) if error.code().is_none_or(|code| code.code().starts_with("57P")) => {
                    client = None;
                    0
                }
                Err(error) => panic!("{error:?}"),
            };
        }
        tokio::time::sleep(PACE).await;
    }
}

fn statements(branches: &[String], n: u64) -> String {
    let mut sql = String::from("BEGIN;");
    for branch in branches {
        sql.push_str(&format!(
            "INSERT INTO mstore.stock_move (merchant_id, branch_id, id, collection, item_id, quantity_milli, effect_milli, reason)
             VALUES ('m1', '{branch}', '{branch}-{n}', 'product', 'Q', 1000, 1000, 'delivery');"
        ));
    }
    if n.is_multiple_of(10) {
        sql.push_str(&format!("UPDATE mstore.product SET name = 'name {n}' WHERE merchant_id = 'm1' AND id = 'P';"));
    }
    sql + "COMMIT"
}
