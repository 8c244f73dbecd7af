//! A short run of every fuzz target, the same each time: the seeds, what was found before, and some thousand damaged inputs of each.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use mstore_fuzz::{Mutator, TARGETS, Target};

/// Damaged inputs of each target.
const ROUNDS: usize = 6_000;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// Inputs that broke a property once.
fn regressions(target: &Target) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(fuzz_dir().join("regressions").join(target.name)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs the inputs; the first that breaks a property.
fn find(run: fn(&[u8]), seeds: &[Vec<u8>], rounds: usize) -> Option<Vec<u8>> {
    let breaks = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| run(input))).is_err();
    if let Some(seed) = seeds.iter().find(|seed| breaks(seed)) {
        return Some(seed.clone());
    }
    let mut mutator = Mutator::new(1);
    (0..rounds).find_map(|_| {
        let (input, other) = (&seeds[mutator.below(seeds.len())], &seeds[mutator.below(seeds.len())]);
        let input = mutator.damage(input, other);
        breaks(&input).then_some(input)
    })
}

fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let mut seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{name} has nothing to begin with");
    seeds.extend(regressions(target));
    if let Some(input) = find(target.run, &seeds, ROUNDS) {
        panic!("{name} breaks on {:?}; its message is above", String::from_utf8_lossy(&input));
    }
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_target_has_its_test_and_its_program() {
            let tests = BTreeSet::from([$(stringify!($name).to_owned()),*]);
            let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
            let programs = fs::read_dir(fuzz_dir().join("fuzz_targets")).unwrap();
            let programs: BTreeSet<String> =
                programs.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
            assert_eq!(targets, tests);
            assert_eq!(targets, programs, "fuzz/fuzz_targets has a program for each");
        }
    };
}

targets! {
    answer, authorization, claim_code, config_file, csv_log, cursor, enrolment, event, frame, head, operation, problem, report, row, session,
    topic, upload, value,
}

/// Takes a sign for part of a number: what a careless parser does.
fn careless_number(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(number) = text.parse::<u64>() {
        assert_eq!(number.to_string(), text);
    }
}

/// Trusts that what can be added up does not overflow.
fn careless_sum(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let numbers = text.split(',').filter_map(|number| number.parse::<i64>().ok());
    assert!(numbers.map(i128::from).sum::<i128>() <= i128::from(i64::MAX));
}

#[test]
fn the_run_finds_planted_mistakes() {
    assert!(find(careless_number, &[b"41".to_vec()], ROUNDS).is_some());
    assert!(find(careless_sum, &[b"9223372036854775806,-5".to_vec(), b"7".to_vec()], ROUNDS).is_some());
}
