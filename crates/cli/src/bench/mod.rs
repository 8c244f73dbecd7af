//! `bench`: what was measured, with what, as one JSON object or a short table. Server and tills are separate processes.

mod catchup;
mod fanout;
mod idle;
mod latency;
mod relay;
mod rig;
mod snapshot;
mod storm;
mod throughput;

use serde_json::{Map, Value, json};

use crate::{
    args::{BenchArgs, BenchName},
    failure::Failure,
    logging,
};

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
    let (json_only, result) = match args.name {
        BenchName::Latency { devices, rate, seconds, via, common } => (common.json, latency::run(devices, rate, seconds, via).await?),
        BenchName::Throughput { changes, via, common } => (common.json, throughput::run(changes, via).await?),
        BenchName::Fanout { devices, commits, common } => (common.json, fanout::run(devices, commits).await?),
        BenchName::Snapshot { rows, common } => (common.json, snapshot::run(rows).await?),
        BenchName::Storm { devices, rows, common } => (common.json, storm::run(devices, rows).await?),
        BenchName::Catchup { changes, common } => (common.json, catchup::run(changes).await?),
        BenchName::Idle { devices, seconds, common } => (common.json, idle::run(devices, seconds).await?),
    };
    if json_only {
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

/// Milliseconds with three places.
fn ms(duration: std::time::Duration) -> Value {
    rounded(duration.as_secs_f64() * 1000.0)
}

/// Three places are more than these machines can promise.
fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}
