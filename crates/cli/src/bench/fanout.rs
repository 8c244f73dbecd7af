//! Writes as fast as they go to a branch with many tills.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use super::{
    Outcome,
    rig::{Rig, per_second, timed},
    rounded,
};
use crate::failure::Failure;

/// Requests under way at one time.
const WRITERS: usize = 32;

pub(super) async fn run(devices: usize, commits: usize, database: Option<&str>) -> Result<Outcome, Failure> {
    let rig = Rig::start(1_000, database).await?;
    let tills = rig.live_tills(devices).await?;
    let first = rig.head().await?.seq;
    let before = rig.server.usage();
    let ((), took) = timed(async {
        let rig = &rig;
        stream::iter(0..commits).map(|n| rig.move_one(n)).buffer_unordered(WRITERS).try_collect::<Vec<_>>().await?;
        rig.all_at_head(&tills).await
    })
    .await?;
    let used = rig.server.usage().cpu_ms - before.cpu_ms;
    let by_mqtt: u64 = tills.iter().map(|till| till.stats().changes_mqtt).sum();
    Ok(Outcome::new(
        "fanout",
        json!({ "devices": devices, "writes": commits, "commits": rig.head().await?.seq - first, "writers": WRITERS, "delivery": "one change shown on one till" }),
        json!({
            "deliveries_per_s": rounded(per_second(commits * devices, took)),
            "writes_per_s": rounded(per_second(commits, took)),
            "server_cpu_ms_per_update": rounded(used as f64 / commits as f64),
            "changes_by_mqtt": by_mqtt,
        }),
    ))
}
