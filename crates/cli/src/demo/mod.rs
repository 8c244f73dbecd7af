//! `demo`: a shop whose tills stay true, from one command, and the verdict that says so.

mod backend;
mod figures;
mod latency;
mod progress;
mod sizes;
mod story;
mod till;
mod truth;
mod verdict;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use mstore_client::Faults as ClientFaults;
use mstore_protocol::{BranchKey, MerchantId};

pub(crate) use latency::LatencyLog;

use crate::{
    args::{DemoArgs, Faults},
    data::Dataset,
    failure::Failure,
    logging,
};
use backend::Backend;
use figures::{Bytes, Figures, Latency, Publish};
use progress::Progress;
use sizes::FrameSizes;
use story::Shop;
use till::Till;
use truth::Truth;
use verdict::Verdict;

/// How long the tills may take to settle after closing time.
const SETTLE_WITHIN: Duration = Duration::from_secs(90);
/// Trouble of a flaky till: the radio of a cheap phone behind a freezer.
const FLAKY: ClientFaults =
    ClientFaults { drop_frame: 0.05, delay_frame: 0.05, delay_max: Duration::from_millis(400), fail_http: 0.05, lose_answer: 0.05 };
/// What a till without delta sync would do: fetch everything this often.
const FULL_POLL_S: u64 = 300;

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    logging::start(&std::env::var("MSTORE_LOG").unwrap_or_else(|_| "error".into()), false)?;
    let dir = tempfile::tempdir().map_err(|error| Failure::unavailable(format!("no temporary directory: {error}")))?;
    let open_for = Duration::from_secs(args.seconds);
    let shop_seconds = args.seconds.saturating_mul(args.speed);
    let data = Dataset::load(args.data.as_deref(), args.seed, shop_seconds)?;
    let progress = Progress::new(open_for, args.json);
    let started = Instant::now();
    let mut shop = set_up(&args, data, dir.path(), &progress).await?;
    let sizes = FrameSizes::watch(&shop.admin()?).await?;
    shop.open(open_for, args.speed, &dir.path().join("server"), &progress).await?;
    progress.done();
    progress.say("closing time: tills send what is left and settle");
    let backend = shop.backend.take().expect("set up above");
    let (api, ready) = (backend.admin()?, backend.ready());
    shop.backend = Some(backend);
    let verdict = verdict::judge(&shop, &api, &ready.http, SETTLE_WITHIN).await?;
    let published = published(&api).await?.and(shop.published_before);
    let figures = figures(&shop, verdict, published, sizes.p50(), shop_seconds, started.elapsed());
    if args.json {
        println!("{}", serde_json::to_string(&figures).map_err(|error| Failure::check(error.to_string()))?);
    } else {
        println!("{}", figures.page());
    }
    if args.stay {
        progress.say(&format!("still open: {}   Ctrl-C closes", ready.http));
        let _ = tokio::signal::ctrl_c().await;
    }
    close(shop).await;
    if figures.is_good() {
        Ok(())
    } else {
        Err(Failure::check("the tills and the server do not agree").next("run it again with --seed and MSTORE_LOG=debug"))
    }
}

async fn set_up(args: &DemoArgs, data: Dataset, dir: &Path, progress: &Progress) -> Result<Shop, Failure> {
    let parse = |error: mstore_protocol::SegmentError| Failure::usage(error.to_string());
    let merchant = MerchantId::parse("toko").map_err(parse)?;
    let branches: Vec<BranchKey> =
        (1..=args.branches).map(|n| BranchKey::parse("toko", &format!("b{n}"))).collect::<Result<_, _>>().map_err(parse)?;
    let backend = Backend::start(&dir.join("server"), !args.kill_server).await?;
    let ready = backend.ready();
    progress.say(&data.source);
    progress.say(&format!("server {}   mqtt {}   ws {}", ready.http, ready.mqtt, ready.ws));
    let api = backend.admin()?;
    let mut shop = Shop {
        backend: Some(backend),
        data,
        merchant,
        branches,
        tills: Vec::new(),
        truth: Truth::default(),
        published_before: Publish::default(),
        seed: args.seed,
    };
    shop.furnish(args.seconds.saturating_mul(args.speed)).await?;
    for n in 0..args.devices {
        let key = shop.branches[n as usize % shop.branches.len()].clone();
        let faults = (args.faults == Faults::Flaky).then(|| (FLAKY, args.seed.wrapping_add(u64::from(n))));
        let till = Till::enrol(&api, &ready.http, &key, &format!("till-{:02}", n + 1), dir, faults).await?;
        shop.tills.push(till);
    }
    progress.say(&format!(
        "{} tills in {} branches are open, {} products each",
        shop.tills.len(),
        shop.branches.len(),
        shop.data.catalogue.len()
    ));
    Ok(shop)
}

/// Frames attempted and acknowledged, as the server has counted them since its process started.
pub(crate) async fn published(api: &crate::api::AdminApi) -> Result<Publish, Failure> {
    let metrics = api.stream("/metrics").await?.text().await.map_err(|error| Failure::unavailable(error.to_string()))?;
    let sum = |name: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        // Counters are whole numbers, and written so.
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let (attempted, acknowledged) = (sum("mstore_publish_attempted_total"), sum("mstore_publish_acknowledged_total"));
    Ok(Publish::of(attempted, acknowledged))
}

fn figures(shop: &Shop, verdict: Verdict, publish: Publish, per_update_p50: u64, shop_seconds: u64, took: Duration) -> Figures {
    let mut latency = LatencyLog::histogram();
    let (mut changes, mut fallback, mut online_s, mut fresh_s) = (0u64, 0u64, 0.0, 0.0);
    let mut bytes = Bytes::default();
    for till in &shop.tills {
        till.latency.add_to(&mut latency);
        let stats = till.client.stats();
        changes += stats.changes_mqtt + stats.changes_fallback;
        fallback += stats.changes_fallback;
        online_s += stats.online_s;
        fresh_s += stats.fresh_s;
        bytes.mqtt += stats.mqtt_bytes;
        bytes.http += stats.http_bytes_in + stats.http_bytes_out;
    }
    bytes.per_update_p50 = per_update_p50;
    bytes.full_polling_would_be = verdict.snapshot_bytes_of_all * (shop_seconds / FULL_POLL_S).max(1);
    let ms = |us: u64| us as f64 / 1000.0;
    Figures {
        converged: verdict.converged,
        devices: shop.tills.len(),
        branches: shop.branches.len(),
        rows: verdict.rows,
        commits: verdict.commits,
        frames: publish.acknowledged,
        operations: verdict.operations,
        latency_ms: Latency { p50: ms(latency.value_at_quantile(0.5)), p99: ms(latency.value_at_quantile(0.99)), max: ms(latency.max()) },
        publish,
        fallback_rate: if changes == 0 { 0.0 } else { fallback as f64 / changes as f64 },
        freshness: if online_s > 0.0 { fresh_s / online_s } else { 1.0 },
        bytes,
        duration_s: took.as_secs_f64(),
        faults: verdict.faults,
    }
}

async fn close(shop: Shop) {
    for till in shop.tills {
        till.client.close().await;
    }
    if let Some(backend) = shop.backend {
        backend.shutdown().await;
    }
}
