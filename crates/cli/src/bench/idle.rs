//! What it costs when nothing happens: bytes of a poll, CPU and memory of the server, memory per connected till.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use mstore_client::{Client, Options};
use serde_json::json;

use super::{
    Outcome,
    relay::Relay,
    rig::{GIVE_UP_AFTER, Rig, until_at},
    rounded,
};
use crate::failure::Failure;

/// Polls that the bytes are averaged over.
const POLLS: u64 = 5;

pub(super) async fn run(devices: usize, seconds: u64, database: Option<&str>) -> Result<Outcome, Failure> {
    let rig = Rig::start(1_000, database).await?;
    let bytes_per_poll = bytes_per_poll(&rig).await?;
    let base = rig.server.usage();
    let tills = rig.live_tills(devices).await?;
    let connected = rig.server.usage();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = rig.server.usage();
    drop(tills);
    Ok(Outcome::new(
        "idle",
        json!({ "devices": devices, "seconds": seconds, "polls": POLLS, "bytes": "request and response, above TCP" }),
        json!({
            "bytes_per_poll": bytes_per_poll,
            "cpu_percent": rounded((after.cpu_ms - connected.cpu_ms) as f64 / 10.0 / seconds.max(1) as f64),
            "memory_kb": base.memory_kb,
            "memory_kb_per_device": rounded(after.memory_kb.saturating_sub(base.memory_kb) as f64 / devices.max(1) as f64),
        }),
    ))
}

/// A till polls through a relay that counts.
async fn bytes_per_poll(rig: &Rig) -> Result<u64, Failure> {
    let gone = |error: std::io::Error| Failure::unavailable(format!("relay: {error}"));
    let target: SocketAddr =
        rig.server.ready.http.trim_start_matches("http://").parse().map_err(|_| Failure::usage("the server's address"))?;
    let relay = Relay::start(target).await.map_err(gone)?;
    let options = Options { report_interval: None, ..Options::default() };
    let till = rig.till("p1", &format!("http://{}", relay.addr), options).await?;
    until_at(&till, rig.head().await?.seq).await?;
    poll(&till).await?;
    let (before, not_modified) = (relay.bytes(), till.stats().engine.not_modified);
    for _ in 0..POLLS {
        poll(&till).await?;
    }
    let answered = till.stats().engine.not_modified - not_modified;
    let bytes = (relay.bytes() - before) / answered.max(1);
    till.close().await;
    if answered == POLLS { Ok(bytes) } else { Err(Failure::check(format!("{answered} answers 304 to {POLLS} polls"))) }
}

/// Asks once and waits for the answer, which is a 304.
async fn poll(till: &Client) -> Result<(), Failure> {
    let before = till.stats().engine.not_modified;
    till.sync_now().await;
    let deadline = Instant::now() + GIVE_UP_AFTER;
    while till.stats().engine.not_modified == before {
        if Instant::now() > deadline {
            return Err(Failure::check("a poll was not answered 304"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
