//! A till that comes back after many changes.

use mstore_protocol::Quantity;
use mstore_store::MoveKind;
use serde_json::json;

use super::{
    Outcome, ms,
    rig::{Rig, timed, until_at},
};
use crate::{
    failure::Failure,
    shop::{ShopWriter, stock_move},
};

pub(super) async fn run(changes: usize, database: Option<&str>) -> Result<Outcome, Failure> {
    let rig = Rig::start(changes, database).await?;
    let tills = rig.live_tills(1).await?;
    let till = &tills[0];
    till.set_online(false).await;
    let moves: Vec<_> = rig.products.iter().map(|id| stock_move(id, MoveKind::Delta, Quantity::from_units(1), "bench")).collect();
    ShopWriter::new(&rig.api).move_stock(&rig.key, &moves).await?;
    let head = rig.head().await?;
    let bytes = till.stats().http_bytes_in;
    let ((), took) = timed(async {
        till.set_online(true).await;
        until_at(till, head.seq).await
    })
    .await?;
    Ok(Outcome::new(
        "catchup",
        json!({ "changes": changes, "measured": "from the network's return, connecting included" }),
        json!({ "ms": ms(took), "bytes": till.stats().http_bytes_in - bytes }),
    ))
}
