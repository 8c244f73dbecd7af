//! `cargo xtask test`: every test of the workspace and the torture of real processes in one run, closed by one line of totals.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::torture::{self, TortureArgs};
use crate::totals::Totals;
use crate::{cargo, setup, web};

/// Tells the tests that a missing foreign program is a reason to skip themselves, not to fail.
const SKIP_MISSING: &str = "MSTORE_TEST_SKIP_MISSING";

/// Documentation examples first: cargo leaves them out when targets are named, and the last binary of the run should be
/// one that has tests. Both passes share every compiled crate. Benchmarks and runnable examples are compiled by
/// `lint`; they hold no tests.
const PASSES: [&[&str]; 2] = [&["--doc"], &["--lib", "--bins", "--tests"]];

/// Prepares the machine, runs the tests whose name contains `filter`, prints the totals last.
pub(crate) fn run(no_install: bool, filter: Option<&str>) -> Result<ExitCode> {
    let skip_missing = if no_install {
        setup::report_missing()?
    } else {
        setup::install_missing()?;
        false
    };
    let mut totals = Totals::default();
    // Before anything is compiled: the server embeds what it finds.
    let web = prepare_web()?;
    let mut all_good = web != Web::Broken;
    if web == Web::LeftOut {
        totals.skip();
    }
    for pass in PASSES {
        let mut command = test_command(pass, filter);
        if skip_missing {
            command.env(SKIP_MISSING, "1");
        }
        all_good &= stream(&mut command, &mut std::io::stdout(), &mut totals)?;
    }
    if filter.is_none() && web == Web::Ready {
        for mut command in [web::unit_tests(), web::live_tests()] {
            all_good &= stream(command.stdout(Stdio::piped()), &mut std::io::stdout(), &mut totals)?;
        }
    }
    if filter.is_none() {
        all_good &= endure(skip_missing, &mut totals)?;
    }
    let verdict = verdict(all_good, &totals);
    if !all_good && totals.failed == 0 {
        // Whoever reads only the last line must see that something did.
        totals.failed = 1;
    }
    if let Err(why) = verdict {
        println!("xtask: {why}");
    }
    println!("\n{totals}");
    Ok(if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What became of the packages in TypeScript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Web {
    Ready,
    Broken,
    LeftOut,
}

/// Builds and checks the packages in TypeScript. A machine whose Node is too old (that of Debian 12 is) or which reaches no npm leaves them out, and says so:
/// everything else can be tested without.
fn prepare_web() -> Result<Web> {
    if !web::can_build() {
        println!("skipped: web: Node is missing or too old");
        return Ok(Web::LeftOut);
    }
    if let Err(error) = web::fetch() {
        println!("skipped: web: the packages cannot be fetched: {error:#}");
        return Ok(Web::LeftOut);
    }
    if let Err(error) = web::build().and_then(|()| web::check()) {
        println!("xtask: {error:#}");
        return Ok(Web::Broken);
    }
    Ok(Web::Ready)
}

/// The torture of real processes, counted as one more test; as skipped where a program for it is missing.
fn endure(skip_missing: bool, totals: &mut Totals) -> Result<bool> {
    if skip_missing && !torture::can_run() {
        println!("skipped: torture: a program that it needs is not installed");
        totals.skip();
        return Ok(true);
    }
    // A harness that broke down proves nothing either.
    let endured = torture::run(&TortureArgs::in_ci()).unwrap_or_else(|error| {
        println!("torture: {error:#}");
        ExitCode::FAILURE
    });
    let is_good = endured == ExitCode::SUCCESS;
    totals.count(is_good);
    Ok(is_good)
}

fn test_command(pass: &[&str], filter: Option<&str>) -> Command {
    let mut command = cargo::cargo("test");
    command.args(["--workspace", "--no-fail-fast"]).args(pass);
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Passes the output through while it comes, and sums it; true if the command succeeded.
fn stream(command: &mut Command, out: &mut impl Write, totals: &mut Totals) -> Result<bool> {
    let mut child = command.spawn().context("cannot start the tests")?;
    let output = child.stdout.take().expect("stdout was asked for");
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(out, "{line}").context("cannot write")?;
        totals.read(&line);
    }
    Ok(child.wait()?.success())
}

/// Whether the run proves anything: no failure, no binary that died without counting, at least one test.
fn verdict(all_good: bool, totals: &Totals) -> Result<(), &'static str> {
    match (all_good, totals.failed, totals.passed()) {
        (false, 0, _) => Err("something did not compile, or died before it could count its tests"),
        (false, ..) | (true, 1.., _) => Err("tests failed"),
        (true, 0, 0) => Err("no test ran"),
        (true, 0, 1..) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(line: &str) -> Totals {
        let mut totals = Totals::default();
        totals.read(line);
        totals
    }

    #[test]
    fn a_run_without_tests_is_no_success() {
        assert_eq!(verdict(true, &Totals::default()), Err("no test ran"));
        assert!(verdict(false, &Totals::default()).is_err());
        let some = totals("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(verdict(true, &some), Ok(()));
        assert!(verdict(false, &some).is_err(), "a crashed binary leaves no count");
    }

    #[test]
    fn a_failure_is_one_even_if_cargo_does_not_say_so() {
        let one = totals("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(verdict(true, &one), Err("tests failed"));
    }

    #[test]
    fn output_is_summed_while_it_streams() {
        let mut printing = Command::new("printf");
        printing.arg("noise\\ntest result: ok. 7 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out").stdout(Stdio::piped());
        let mut totals = Totals::default();
        let mut out = Vec::new();
        assert!(stream(&mut printing, &mut out, &mut totals).expect("printf runs"));
        assert!(out.starts_with(b"noise\n"));
        assert_eq!(totals.to_string(), "7 passed, 0 failed, 2 skipped");
    }
}
