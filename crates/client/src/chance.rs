//! Trouble made on purpose, reproducible from a seed.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::options::Faults;

/// Throws the dice for one connection or call.
#[derive(Debug, Clone)]
pub(crate) struct Chance {
    faults: Faults,
    dice: StdRng,
}

impl Chance {
    pub(crate) fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, dice: StdRng::seed_from_u64(seed) }
    }

    fn hits(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.dice.random_bool(probability.min(1.0))
    }

    pub(crate) fn drop_frame(&mut self) -> bool {
        self.hits(self.faults.drop_frame)
    }

    pub(crate) fn delay_frame(&mut self) -> Option<Duration> {
        self.hits(self.faults.delay_frame).then(|| self.faults.delay_max.mul_f64(self.dice.random::<f64>()))
    }

    pub(crate) fn fail_http(&mut self) -> bool {
        self.hits(self.faults.fail_http)
    }

    pub(crate) fn lose_answer(&mut self) -> bool {
        self.hits(self.faults.lose_answer)
    }
}
