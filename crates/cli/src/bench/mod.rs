//! `bench`: what was measured, with what, as one JSON object or a short table. Server and tills are separate processes.

mod capture;
mod catchup;
mod fanout;
mod fleet;
mod foreign;
mod growth;
mod idle;
mod latency;
mod reconnect;
mod relay;
mod rig;
mod scratch;
mod snapshot;
mod storm;
mod throughput;

use serde_json::{Map, Value, json};

use crate::{
    args::{BenchArgs, BenchName},
    failure::Failure,
    logging,
};
use scratch::Scratch;

/// What a benchmark found.
pub(crate) struct Outcome {
    name: &'static str,
    setup: Map<String, Value>,
    figures: Map<String, Value>,
}

impl Outcome {
    fn new(name: &'static str, setup: Value, figures: Value) -> Self {
        let object = |value: Value| if let Value::Object(map) = value { map } else { Map::new() };
        let mut setup = object(setup);
        setup.insert("cores".into(), std::thread::available_parallelism().map_or(0, usize::from).into());
        setup.insert("build".into(), if cfg!(debug_assertions) { "debug: figures mean little" } else { "release" }.into());
        Self { name, setup, figures: object(figures) }
    }
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: BenchArgs) -> Result<(), Failure> {
    logging::start(&std::env::var("MSTORE_LOG").unwrap_or_else(|_| "error".into()), false)?;
    if matches!(args.name, BenchName::Fleet { .. }) {
        return fleet::run().await;
    }
    let common = args.name.common().clone();
    let scratch = match &common.database {
        Some(url) => Some(Scratch::make(url).await?),
        None => None,
    };
    let measured = measure(args.name, scratch.as_ref().map(Scratch::url)).await;
    if let Some(scratch) = scratch {
        scratch.remove().await?;
    }
    let result = measured?;
    if common.json {
        println!("{}", json!({ "bench": result.name, "setup": result.setup, "figures": result.figures }));
        return Ok(());
    }
    println!("{}", result.name);
    for (title, map) in [("with", &result.setup), ("measured", &result.figures)] {
        println!("  {title}");
        for (key, value) in map {
            println!("    {key:<28} {value}");
        }
    }
    Ok(())
}

async fn measure(name: BenchName, database: Option<&str>) -> Result<Outcome, Failure> {
    match name {
        BenchName::Latency { devices, rate, seconds, via, .. } => latency::run(devices, rate, seconds, via, database).await,
        BenchName::Throughput { changes, via, .. } => throughput::run(changes, via, database).await,
        BenchName::Fanout { devices, commits, .. } => fanout::run(devices, commits, database).await,
        BenchName::Snapshot { rows, .. } => snapshot::run(rows, database).await,
        BenchName::Storm { devices, rows, .. } => storm::run(devices, rows, database).await,
        BenchName::Catchup { changes, .. } => catchup::run(changes, database).await,
        BenchName::Capture { writers, seconds, attached, .. } => capture::run(writers, seconds, attached, database).await,
        BenchName::Growth { branches, rows, commits, .. } => growth::run(branches, rows, commits, database).await,
        BenchName::Reconnect { devices, branches, rows, .. } => reconnect::run(devices, branches, rows, database).await,
        BenchName::Fleet { .. } => Err(Failure::usage("this is a part of reconnect")),
        BenchName::Idle { devices, seconds, .. } => idle::run(devices, seconds, database).await,
    }
}

/// Milliseconds with three places.
fn ms(duration: std::time::Duration) -> Value {
    rounded(duration.as_secs_f64() * 1000.0)
}

/// Three places are more than these machines can promise.
fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}
