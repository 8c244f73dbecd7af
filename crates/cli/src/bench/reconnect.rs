//! The embedded broker goes and comes again under a whole fleet: its process is killed and started anew. How soon are all tills live, and what did
//! they ask for?

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mstore_protocol::{BranchKey, Currency, Enrolment, Money};
use serde_json::json;

use super::{
    Outcome,
    fleet::{FILES_PER_TILL, Fleet, Returned, TILLS_PER_PROCESS},
    rig::{enrol, furnish, timed},
    rounded,
};
use crate::{
    api::AdminApi,
    data::Dataset,
    descriptors,
    failure::Failure,
    server_process::ServerProcess,
    shop::{ShopWriter, now, product},
};

/// Files that the server has open for one till at a time: its MQTT connection and an HTTP one.
const FILES_PER_CONNECTED: usize = 2;
/// And for itself.
const FILES_OF_SERVER: usize = 256;
/// Tills that are enrolled at one time.
const ENROLLED_AT_ONCE: usize = 16;
/// What tells how often something was asked, and with what outcome.
const ASKED: &str = "mstore_http_request_seconds_count{";

pub(super) async fn run(devices: usize, branches: usize, rows: usize, database: Option<&str>) -> Result<Outcome, Failure> {
    let (devices, branches, rows) = (devices.max(1), branches.max(1), rows.max(1));
    let files = (devices.min(TILLS_PER_PROCESS) * FILES_PER_TILL).max(devices * FILES_PER_CONNECTED + FILES_OF_SERVER);
    descriptors::need(files)?;
    let dir = tempfile::tempdir().map_err(|error| Failure::unavailable(format!("no temporary directory: {error}")))?;
    let data: PathBuf = dir.path().join("server");
    let server = ServerProcess::start_on(&data, None, database).await?;
    let shop = Shop::furnish(server.admin()?, branches, rows).await?;
    let (mut fleets, first) = timed(shop.fleets(devices, &server.ready.http, dir.path())).await?;
    for fleet in &mut fleets {
        fleet.watch().await?;
    }

    let (killed, killed_ms) = (Instant::now(), now().as_ms());
    let ready = server.kill().await?;
    let server = ServerProcess::start_on(&data, Some(&ready), database).await?;
    let (away, up_ms) = (killed.elapsed(), now().as_ms());
    // Whoever is not back by then has missed it.
    shop.change_everywhere().await?;
    let mut all = Returned::default();
    for fleet in fleets {
        let Returned { at_ms, snapshots, catch_ups, changes_http, changes_mqtt } = fleet.returned().await?;
        all.at_ms.extend(at_ms);
        all.snapshots += snapshots;
        all.catch_ups += catch_ups;
        all.changes_http += changes_http;
        all.changes_mqtt += changes_mqtt;
    }
    let usage = server.usage();
    let asked = asked(&shop.api).await?;
    all.at_ms.sort_unstable();
    let after = |since_ms: i64, percent: usize| {
        let at = all.at_ms[(all.at_ms.len() - 1) * percent / 100];
        rounded((at - since_ms) as f64 / 1000.0)
    };
    let of_tills: u64 = asked.iter().filter(|(what, _)| what.starts_with("GET /v1/{merchant}/{branch}")).map(|(_, count)| count).sum();
    let setup = json!({
        "devices": devices, "branches": branches, "rows": rows, "first_copies_s": rounded(first.as_secs_f64()),
        "server": "killed with SIGKILL, started again at once; every branch has one commit as soon as it listens",
        "measured": "until a till is live again and shows that commit",
    });
    let figures = json!({
        "away_s": rounded(away.as_secs_f64()),
        "live_p50_s": after(up_ms, 50), "live_p99_s": after(up_ms, 99), "live_all_s": after(up_ms, 100),
        "live_all_since_kill_s": after(killed_ms, 100),
        "requests_per_device": rounded(of_tills as f64 / devices as f64),
        "requests": asked, "snapshots": all.snapshots, "catch_ups": all.catch_ups,
        "changes_http": all.changes_http, "changes_mqtt": all.changes_mqtt,
        "server_cpu_ms": usage.cpu_ms, "server_memory_peak_kb": usage.memory_peak_kb,
    });
    Ok(Outcome::new("reconnect", setup, figures))
}

/// A merchant with some branches.
struct Shop {
    api: AdminApi,
    branches: Vec<BranchKey>,
    currency: Currency,
}

impl Shop {
    async fn furnish(api: AdminApi, branches: usize, rows: usize) -> Result<Self, Failure> {
        let key = |n: usize| BranchKey::parse("m1", &format!("b{n}")).map_err(|error| Failure::usage(error.to_string()));
        let branches = (1..=branches).map(key).collect::<Result<Vec<_>, _>>()?;
        furnish(&api, &branches[0], rows).await?;
        let writer = ShopWriter::new(&api);
        for key in &branches[1..] {
            writer.branch(key, "bench").await?;
        }
        Ok(Self { api, branches, currency: Dataset::load(None, 1, 60)?.currency })
    }

    /// All tills, live, in as many processes as they need.
    async fn fleets(&self, devices: usize, server: &str, dir: &Path) -> Result<Vec<Fleet>, Failure> {
        let enrolling =
            stream::iter(0..devices).map(async |n| enrol(&self.api, &self.branches[n % self.branches.len()], &format!("t{n}")).await);
        let enrolled: Vec<Enrolment> = enrolling.buffer_unordered(ENROLLED_AT_ONCE).try_collect().await?;
        let mut fleets = Vec::new();
        for tills in enrolled.chunks(TILLS_PER_PROCESS) {
            fleets.push(Fleet::start(server, dir, tills.to_vec()).await?);
        }
        for fleet in &mut fleets {
            fleet.live().await?;
        }
        Ok(fleets)
    }

    /// One product more: a commit in every branch.
    async fn change_everywhere(&self) -> Result<(), Failure> {
        let price = Money::new(1_500_000, self.currency).map_err(|error| Failure::check(error.to_string()))?;
        ShopWriter::new(&self.api).products(&self.branches[0].merchant, &[product("SKU-AFTER", "Kopi Susu", price)]).await
    }
}

/// What the server was asked since its start, by route and status.
async fn asked(api: &AdminApi) -> Result<BTreeMap<String, u64>, Failure> {
    let answer = api.stream("/metrics").await?;
    let metrics = answer.text().await.map_err(|error| Failure::unavailable(format!("/metrics: {error}")))?;
    let mut asked = BTreeMap::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix(ASKED)) {
        let Some((labels, count)) = line.rsplit_once("} ") else { continue };
        let label = |name: &str| labels.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let what = format!("{} {} {}", label("method"), label("route"), label("status"));
        asked.insert(what, count.parse().unwrap_or(0));
    }
    Ok(asked)
}
