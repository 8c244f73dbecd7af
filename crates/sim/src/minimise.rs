//! Makes a failing run smaller: leaves out what is not needed to break the same promise.

use crate::{
    bug::Bug,
    failure::Failure,
    plan::Plan,
    promise::{Broken, Promise},
    world::World,
};

/// Runs tried at most.
const TRIES_MAX: usize = 400;

struct Search {
    bug: Option<Bug>,
    promise: Promise,
    tries: usize,
}

impl Search {
    fn still_breaks(&mut self, plan: &Plan) -> bool {
        self.tries += 1;
        World::new(plan, self.bug, false).live().is_err_and(|broken| broken.promise == self.promise)
    }

    /// Leaves steps out, in ever smaller groups, as long as the promise stays broken.
    fn fewer_steps(&mut self, plan: &mut Plan) {
        let mut size = plan.steps.len().div_ceil(2).max(1);
        loop {
            let mut from = 0;
            while from < plan.steps.len() && self.tries < TRIES_MAX {
                let to = (from + size).min(plan.steps.len());
                let mut smaller = plan.clone();
                smaller.steps.drain(from..to);
                if self.still_breaks(&smaller) {
                    *plan = smaller;
                } else {
                    from = to;
                }
            }
            if size == 1 || self.tries >= TRIES_MAX {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    /// A network that loses nothing, if that is enough.
    fn better_weather(&mut self, plan: &mut Plan) {
        for (message, call) in [(0.0, 0.0), (0.0, plan.weather.call), (plan.weather.message, 0.0)] {
            let mut calmer = plan.clone();
            calmer.weather.message = message;
            calmer.weather.call = call;
            if calmer.weather != plan.weather && self.still_breaks(&calmer) {
                *plan = calmer;
                return;
            }
        }
    }
}

/// The smallest run found that breaks the same promise, with its trace.
pub(crate) fn minimise(plan: Plan, bug: Option<Bug>, broken: Broken) -> Failure {
    let planned = plan.steps.len();
    let mut search = Search { bug, promise: broken.promise, tries: 0 };
    let mut smallest = plan;
    search.better_weather(&mut smallest);
    search.fewer_steps(&mut smallest);
    search.better_weather(&mut smallest);
    let mut world = World::new(&smallest, bug, true);
    let what = world.live().err().map_or(broken.what, |broken| broken.what);
    Failure {
        seed: smallest.seed,
        weather: smallest.weather,
        promise: search.promise,
        what,
        steps: smallest.steps.iter().map(ToString::to_string).collect(),
        planned,
        trace: world.into_trace(),
    }
}
