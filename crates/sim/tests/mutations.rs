//! Plants one bug after the other and proves that the simulation finds each; a check that sees nothing is no check.

use mstore_sim::{Bug, Promise, Weather, breaks, run};

/// Seeds tried for a bug at most.
const SEEDS_MAX: u64 = 400;
const FIRST_SEED: u64 = 50_000;

/// Both kinds of bad weather: some bugs show only where a disk was put back.
fn weather_of(seed: u64) -> Weather {
    if seed.is_multiple_of(2) { Weather::DISASTER } else { Weather::STORM }
}

/// The first seed that finds a bug, and the promise that it breaks there. Without the bug the same seed keeps every promise.
fn first_found(bug: Bug) -> Option<(u64, Promise)> {
    let found = (FIRST_SEED..FIRST_SEED + SEEDS_MAX).find_map(|seed| breaks(seed, weather_of(seed), bug).map(|promise| (seed, promise)));
    if let Some((seed, _)) = found {
        assert!(run(seed, weather_of(seed)).is_ok(), "seed {seed} breaks a promise without any bug planted");
    }
    found
}

#[test]
fn every_planted_bug_is_found() {
    let mut unseen = Vec::new();
    for bug in Bug::ALL {
        match first_found(bug) {
            Some((seed, promise)) => println!("{bug:?}: seed {seed}, {promise}"),
            None => unseen.push(bug),
        }
    }
    assert!(unseen.is_empty(), "the simulation does not see {unseen:?}");
}

#[test]
fn a_failure_is_told_in_few_steps() {
    let failure = mstore_sim::run_planted(FIRST_SEED, weather_of(FIRST_SEED), Some(Bug::ClampAtZero)).expect_err("it is found");
    let told = failure.to_string();
    println!("{told}");
    assert_eq!(failure.promise, Promise::StockConserved, "{told}");
    assert!(failure.steps.len() <= 3 && failure.steps.len() < failure.planned, "{told}");
    assert!(told.contains(&format!("seed {FIRST_SEED}")) && told.contains("planned steps are enough"), "{told}");
}

#[test]
fn the_docs_list_every_bug() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/simulation.md")).expect("the page is there");
    for bug in Bug::ALL {
        assert!(page.contains(&format!("| `{bug:?}` |")), "{bug:?} is not in the list of planted bugs");
    }
}
