//! Hundreds of seeds, each a run in good or bad weather; a failing seed prints its last events.

use mstore_sim::{Outcome, Weather, run};

fn check(weather: Weather, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
    seeds
        .map(|seed| match run(seed, weather) {
            Ok(outcome) => outcome,
            Err(failure) => panic!("seed {}: {}\n{}", failure.seed, failure.what, failure.trace.join("\n")),
        })
        .collect()
}

#[test]
fn calm() {
    let outcomes = check(Weather::CALM, 0..150);
    assert!(outcomes.iter().all(|outcome| outcome.operations > 5 && outcome.commits > 20));
    assert!(outcomes.iter().all(|outcome| outcome.took_ms < 21_500), "without trouble all is quiet within a second");
}

#[test]
fn storm() {
    check(Weather::STORM, 1_000..1_300);
}

#[test]
fn disaster() {
    check(Weather::DISASTER, 2_000..2_200);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..5 {
        assert_eq!(run(seed, Weather::STORM).ok(), run(seed, Weather::STORM).ok());
    }
}
