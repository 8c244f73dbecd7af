//! Thousands of seeds, each a run in good or bad weather; a failing one is made smaller and printed.

use mstore_sim::{Outcome, Weather, run};

fn check(weather: Weather, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
    seeds
        .map(|seed| match run(seed, weather) {
            Ok(outcome) => outcome,
            Err(failure) => panic!("{failure}"),
        })
        .collect()
}

#[test]
fn calm() {
    let outcomes = check(Weather::CALM, 0..400);
    assert!(outcomes.iter().all(|outcome| outcome.operations > 3 && outcome.commits > 15));
    assert!(outcomes.iter().any(|outcome| outcome.rejected > 0), "dead letters belong to it");
}

#[test]
fn storm() {
    let outcomes = check(Weather::STORM, 10_000..11_500);
    assert!(outcomes.iter().all(|outcome| outcome.commits > 15));
}

#[test]
fn disaster() {
    let outcomes = check(Weather::DISASTER, 20_000..20_700);
    assert!(outcomes.iter().any(|outcome| outcome.restores > 1));
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..10 {
        let again = || run(seed, Weather::DISASTER).ok();
        assert_eq!(again(), again());
    }
}
