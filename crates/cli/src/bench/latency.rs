//! Writer's commit → till's own commit, write by write: the next write waits until every till has shown the last.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use mstore_client::{AppliedCommit, Client};
use serde_json::json;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

use super::{
    Outcome,
    foreign::Foreign,
    rig::{GIVE_UP_AFTER, Rig},
    rounded,
};
use crate::{args::Via, demo::LatencyLog, failure::Failure};

/// How often the tills are asked whether they have shown a commit.
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub(super) async fn run(devices: usize, rate: u64, seconds: u64, via: Via, database: Option<&str>) -> Result<Outcome, Failure> {
    let rig = Rig::start(1_000, database).await?;
    let tills = rig.live_tills(devices).await?;
    let mut writer = match via {
        Via::Api => Writer::Api,
        Via::Sql => Writer::Sql(Foreign::open(rig.database(), database).await?),
    };
    let mut inboxes: Vec<_> = tills.iter().map(Client::applied).collect();
    let clock = Clock::now();
    let (mut histogram, mut writes) = (LatencyLog::histogram(), 0);
    let before = rig.server.usage();
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.max(1) as f64));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        pace.tick().await;
        let committed = writer.write(&rig, writes).await?;
        record(&mut inboxes, committed, &clock, &mut histogram).await?;
        writes += 1;
    }
    let used = rig.server.usage().cpu_ms - before.cpu_ms;
    let from = match via {
        Via::Api => "the server's COMMIT returning",
        Via::Sql => "the foreign writer's COMMIT returning",
    };
    let ms = |us: u64| rounded(us as f64 / 1000.0);
    Ok(Outcome::new(
        "latency",
        json!({ "devices": devices, "rate_per_s": rate, "writes": writes, "via": if via == Via::Api { "api" } else { "sql" }, "measured_from": from }),
        json!({
            "p50_ms": ms(histogram.value_at_quantile(0.5)),
            "p99_ms": ms(histogram.value_at_quantile(0.99)),
            "max_ms": ms(histogram.max()),
            "server_cpu_ms_per_update": rounded(used as f64 / f64::from(u32::try_from(writes).unwrap_or(u32::MAX)).max(1.0)),
        }),
    ))
}

/// The monotonic clock in terms of the wall clock: one machine, so one offset serves the whole run.
struct Clock {
    instant: Instant,
    wall_us: i64,
}

impl Clock {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), wall_us: i64::try_from(since.as_micros()).unwrap_or(i64::MAX) }
    }

    /// Microseconds since 1970.
    fn us(&self, at: Instant) -> i64 {
        self.wall_us + i64::try_from(at.saturating_duration_since(self.instant).as_micros()).unwrap_or(i64::MAX)
    }
}

/// Waits for the next commit on every till. The tills note the time themselves: being woken by each of a hundred would only take time from them.
async fn record(
    inboxes: &mut [Receiver<AppliedCommit>],
    committed_us: i64,
    clock: &Clock,
    histogram: &mut Histogram<u64>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + GIVE_UP_AFTER;
    for inbox in inboxes {
        let commit = loop {
            match inbox.try_recv() {
                Ok(commit) => break commit,
                Err(TryRecvError::Empty) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
                Err(_) => return Err(Failure::check("a till did not show a commit")),
            }
        };
        let took_us = clock.us(commit.applied_instant) - committed_us;
        // A till may be quicker than the writer is to notice that its COMMIT returned.
        histogram.saturating_record(u64::try_from(took_us).unwrap_or(0).max(1));
    }
    Ok(())
}

/// One of the two ways to write.
enum Writer {
    Api,
    Sql(Foreign),
}

impl Writer {
    /// Changes one stock figure; when that was durable, microseconds since 1970.
    async fn write(&mut self, rig: &Rig, n: usize) -> Result<i64, Failure> {
        match self {
            Self::Api => rig.move_one(n).await,
            Self::Sql(sql) => {
                let stock = i64::try_from(n + 1).unwrap_or(1) * 1000;
                sql.set_stock(&rig.key, &rig.products[n % rig.products.len()], stock).await?;
                Ok(Clock::now().wall_us)
            }
        }
    }
}
