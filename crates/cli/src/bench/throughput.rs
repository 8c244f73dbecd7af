//! Changes per second to one till: a busy back office.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mstore_protocol::Quantity;
use mstore_store::MoveKind;
use serde_json::json;

use super::{
    Outcome,
    rig::{Rig, per_second, timed},
    rounded,
};
use crate::{
    failure::Failure,
    shop::{ShopWriter, stock_move},
};

/// Changes per request; a request is one commit, sent as frames.
const CHANGES_PER_COMMIT: usize = 100;
/// Requests under way at one time.
const WRITERS: usize = 4;

pub(super) async fn run(changes: usize) -> Result<Outcome, Failure> {
    let rig = Rig::start(5_000).await?;
    let tills = rig.live_tills(1).await?;
    let writer = ShopWriter::new(&rig.api);
    let before = rig.server.usage();
    let ((), took) = timed(async {
        let (writer, rig) = (&writer, &rig);
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
        rig.all_at_head(&tills).await
    })
    .await?;
    let used = rig.server.usage().cpu_ms - before.cpu_ms;
    let stats = tills[0].stats();
    Ok(Outcome::new(
        "throughput",
        json!({ "changes": changes, "changes_per_request": CHANGES_PER_COMMIT, "writers": WRITERS, "devices": 1, "via": "api" }),
        json!({
            "changes_per_s": rounded(per_second(changes, took)),
            "server_cpu_ms_per_update": rounded(used as f64 / changes as f64),
            "changes_by_mqtt": stats.changes_mqtt,
            "changes_by_http": stats.changes_http,
        }),
    ))
}
