//! The whole sync under seeded faults: real sessions, real sequencing, stock rule and overlay over a model of store, broker, network, disks and time.
//!
//! One seed is one run, and the same seed is the same run. It is no benchmark: time here is a number.

mod broker;
mod bug;
mod device;
mod failure;
mod minimise;
mod plan;
mod promise;
mod server;
mod shop;
mod trace;
mod truth;
mod weather;
mod world;

pub use bug::Bug;
pub use failure::Failure;
pub use promise::Promise;
pub use weather::Weather;
pub use world::Outcome;

use plan::Plan;
use world::World;

/// Runs one seed. A failing one is made smaller and run again for its trace.
pub fn run(seed: u64, weather: Weather) -> Result<Outcome, Box<Failure>> {
    run_planted(seed, weather, None)
}

/// The same with a bug in it.
pub fn run_planted(seed: u64, weather: Weather, bug: Option<Bug>) -> Result<Outcome, Box<Failure>> {
    let plan = Plan::new(seed, weather);
    match World::new(&plan, bug, false).live() {
        Ok(outcome) => Ok(outcome),
        Err(broken) => Err(Box::new(minimise::minimise(plan, bug, broken))),
    }
}

/// Whether a run with a bug in it breaks a promise: [`run_planted`] without the search for a smaller failing run.
pub fn breaks(seed: u64, weather: Weather, bug: Bug) -> Option<Promise> {
    World::new(&Plan::new(seed, weather), Some(bug), false).live().err().map(|broken| broken.promise)
}
