//! `cargo xtask soak`: the simulation with ever new seeds, for as long as one likes. It judges nothing itself: the simulation does.

use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::cargo;

/// Runs seeds from `seed` on for `minutes`. Without a seed the clock gives one, so that no two soaks run the same.
pub(crate) fn run(minutes: u64, seed: Option<u64>) -> Result<ExitCode> {
    let seed = match seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs() * 1_000,
    };
    println!("soak for {minutes} min from seed {seed}");
    let status = cargo::status(&mut soak_command(minutes, seed))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn soak_command(minutes: u64, seed: u64) -> Command {
    let mut command = cargo::cargo("run");
    command.args(["--quiet", "--package", "mstore-sim", "--bin", "soak", "--"]);
    command.args([minutes.to_string(), seed.to_string()]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_come_before_the_seed() {
        let command = soak_command(5, 77);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert!(args.ends_with(&["--".into(), "5".into(), "77".into()]), "{args:?}");
    }
}
