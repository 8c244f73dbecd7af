//! Many tills that start from nothing at the same moment: the morning after a migration.

use futures_util::future::try_join_all;
use serde_json::json;

use super::{
    Outcome,
    rig::{Rig, per_second, timed, until_at},
    rounded,
};
use crate::failure::Failure;

pub(super) async fn run(devices: usize, rows: usize, database: Option<&str>) -> Result<Outcome, Failure> {
    let rig = Rig::start(rows, database).await?;
    let head = rig.head().await?;
    let mut enrolled = Vec::new();
    for n in 0..devices {
        enrolled.push((format!("t{n}"), rig.enrolment(&format!("t{n}")).await?));
    }
    let before = rig.server.usage();
    let (tills, took) = timed(try_join_all(enrolled.into_iter().map(async |(name, enrolment)| {
        let till = rig.open(&name, enrolment).await?;
        until_at(&till, head.seq).await?;
        Ok::<_, Failure>(till)
    })))
    .await?;
    let after = rig.server.usage();
    for till in tills {
        till.close().await;
    }
    Ok(Outcome::new(
        "storm",
        json!({ "devices": devices, "rows": rows, "measured": "enrolled tills, from opening their empty files at one moment to everything shown on all" }),
        json!({
            "seconds": rounded(took.as_secs_f64()),
            "rows_per_s": rounded(per_second(devices * rows, took)),
            "server_cpu_ms": after.cpu_ms - before.cpu_ms,
            "server_memory_kb": after.memory_kb,
        }),
    ))
}
