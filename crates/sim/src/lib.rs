//! The whole sync under seeded faults: real sessions and real sequencing over a model of network, broker, storage and time.
//!
//! One seed is one run, and the same seed is the same run. It is no benchmark: time here is a number.

mod device;
mod server;
mod world;

pub use world::{Failure, Outcome, Weather, run};
