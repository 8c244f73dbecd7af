//! First sync of one till: from nothing to everything shown.

use serde_json::json;

use super::{
    Outcome, ms,
    rig::{Rig, per_second, timed, until_at},
    rounded,
};
use crate::failure::Failure;

pub(super) async fn run(rows: usize, database: Option<&str>) -> Result<Outcome, Failure> {
    let rig = Rig::start(rows, database).await?;
    let head = rig.head().await?;
    let mut runs = Vec::new();
    for name in ["cold", "w1", "w2", "w3"] {
        let enrolment = rig.enrolment(name).await?;
        let ((bytes, till), took) = timed(async {
            let till = rig.open(name, enrolment).await?;
            until_at(&till, head.seq).await?;
            Ok((till.stats().http_bytes_in, till))
        })
        .await?;
        till.close().await;
        runs.push((took, bytes));
    }
    let cold = runs[0];
    let mut warm: Vec<_> = runs[1..].iter().map(|run| run.0).collect();
    warm.sort();
    Ok(Outcome::new(
        "snapshot",
        json!({ "rows": rows, "runs": "the first till's snapshot is encoded for it; three more share it (median)", "measured": "an enrolled till, from opening its empty file to everything shown" }),
        json!({
            "rows_per_s": rounded(per_second(rows, warm[1])),
            "bytes_per_row": rounded(cold.1 as f64 / rows as f64),
            "ms": ms(warm[1]),
            "rows_per_s_cold": rounded(per_second(rows, cold.0)),
            "ms_cold": ms(cold.0),
        }),
    ))
}
