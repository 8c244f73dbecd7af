//! Changes per second to one till: a busy back office.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mstore_client::Client;
use mstore_protocol::{BranchKey, Quantity};
use mstore_store::MoveKind;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::{
    Outcome,
    foreign::Foreign,
    rig::{GIVE_UP_AFTER, Rig, per_second, timed},
    rounded,
};
use crate::{
    args::Via,
    failure::Failure,
    shop::{ShopWriter, stock_move},
};

/// Changes per request, or per transaction: few enough to be sent as frames.
const CHANGES_PER_COMMIT: usize = 100;
/// Requests under way at one time.
const WRITERS: usize = 4;

pub(super) async fn run(changes: usize, via: Via, database: Option<&str>) -> Result<Outcome, Failure> {
    let changes = changes.max(1);
    // Two foreign transactions may become one commit: with a product for each change none of them is spared.
    let rig = Rig::start(if via == Via::Sql { changes } else { 5_000 }, database).await?;
    let tills = rig.live_tills(1).await?;
    let before = rig.server.usage();
    let ((), took) = timed(async {
        match via {
            Via::Api => move_stock(&rig, changes).await?,
            Via::Sql => {
                let (sql, key, products) = (Foreign::open(rig.database(), database).await?, rig.key.clone(), rig.products.clone());
                // On a thread of its own: SQLite's calls block.
                let runtime = tokio::runtime::Handle::current();
                let writing = tokio::task::spawn_blocking(move || runtime.block_on(reprice(sql, &key, &products, changes)));
                writing.await.map_err(|error| Failure::check(error.to_string()))??;
                until_priced(&tills[0], &rig.products[(changes - 1) % rig.products.len()], price(changes - 1)).await?;
            }
        }
        rig.all_at_head(&tills).await
    })
    .await?;
    let used = rig.server.usage().cpu_ms - before.cpu_ms;
    let stats = tills[0].stats();
    let (writers, how) = match via {
        Via::Api => (WRITERS, "stock movements, with their ledger, through the API"),
        Via::Sql => (1, "UPDATEs of prices by a foreign connection"),
    };
    Ok(Outcome::new(
        "throughput",
        json!({ "changes": changes, "changes_per_commit": CHANGES_PER_COMMIT, "writers": writers, "devices": 1, "via": how }),
        json!({
            "changes_per_s": rounded(per_second(changes, took)),
            "server_cpu_ms_per_update": rounded(used as f64 / changes as f64),
            "changes_by_mqtt": stats.changes_mqtt,
            "changes_by_http": stats.changes_http,
        }),
    ))
}

/// The price that change `n` sets: another one each time.
fn price(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(0) * 100 + 100
}

/// Waits until the till shows the last price that was written: commits come in order, so it has all the others then.
async fn until_priced(till: &Client, product: &str, amount: i64) -> Result<(), Failure> {
    let mut applied = till.applied();
    let deadline = tokio::time::Instant::now() + GIVE_UP_AFTER;
    loop {
        let shown = till.product(product).map_err(|error| Failure::check(error.to_string()))?;
        if shown.and_then(|product| product.price).is_some_and(|price| price.amount == amount) {
            return Ok(());
        }
        match tokio::time::timeout_at(deadline, applied.recv()).await {
            // A lagging receiver has missed events, not rows.
            Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
            Ok(Err(RecvError::Closed)) | Err(_) => return Err(Failure::check(format!("the till never showed {product} at {amount}"))),
        }
    }
}

async fn move_stock(rig: &Rig, changes: usize) -> Result<(), Failure> {
    let writer = &ShopWriter::new(&rig.api);
    stream::iter(0..changes.div_ceil(CHANGES_PER_COMMIT))
        .map(|commit| async move {
            let from = commit * CHANGES_PER_COMMIT;
            let moves: Vec<_> = (from..changes.min(from + CHANGES_PER_COMMIT))
                .map(|n| stock_move(&rig.products[n % rig.products.len()], MoveKind::Delta, Quantity::from_units(1), "bench"))
                .collect();
            writer.move_stock(&rig.key, &moves).await
        })
        .buffer_unordered(WRITERS)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(())
}

/// Gives every product of the round another price at the branch, a hundred in a transaction.
async fn reprice(mut sql: Foreign, key: &BranchKey, products: &[String], changes: usize) -> Result<(), Failure> {
    let all: Vec<usize> = (0..changes).collect();
    for commit in all.chunks(CHANGES_PER_COMMIT) {
        let prices: Vec<(&str, i64)> = commit.iter().map(|n| (products[n % products.len()].as_str(), price(*n))).collect();
        sql.set_prices(key, &prices).await?;
    }
    Ok(())
}
