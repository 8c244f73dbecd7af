//! Runs seeds for as long as one likes: `cargo xtask soak`. Ends at the first that breaks a promise, and prints it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program talks through its terminal")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use mstore_sim::{Weather, run};

/// How often the progress is told.
const TELL: Duration = Duration::from_secs(30);

/// `minutes seed`; both checked by whoever starts this.
fn arguments() -> Option<(u64, u64)> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().ok());
    Some((arguments.next()??, arguments.next()??))
}

/// The weather of a seed: one in eight is calm, the others are divided between storms and disasters.
fn weather_of(seed: u64) -> Weather {
    match seed % 8 {
        0 => Weather::CALM,
        1..=4 => Weather::STORM,
        _ => Weather::DISASTER,
    }
}

fn main() -> ExitCode {
    let Some((minutes, first)) = arguments() else {
        eprintln!("usage: soak MINUTES SEED");
        return ExitCode::from(2);
    };
    let (began, mut told) = (Instant::now(), Instant::now());
    let (mut seeds, mut operations, mut restores) = (0_u64, 0_usize, 0_u64);
    for seed in first.. {
        match run(seed, weather_of(seed)) {
            Ok(outcome) => {
                seeds += 1;
                operations += outcome.operations;
                restores += u64::from(outcome.restores);
            }
            Err(failure) => {
                println!("{failure}");
                println!("again: cargo xtask soak --minutes 0 --seed {seed}");
                return ExitCode::FAILURE;
            }
        }
        let is_over = began.elapsed() >= Duration::from_secs(minutes * 60);
        if is_over || told.elapsed() >= TELL {
            told = Instant::now();
            println!("{seeds} seeds from {first}, {operations} operations, {restores} restored servers: every promise kept");
        }
        if is_over {
            break;
        }
    }
    ExitCode::SUCCESS
}
