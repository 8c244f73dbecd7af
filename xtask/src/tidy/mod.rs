//! `cargo xtask tidy`: the rules about the sources that no compiler knows, each a function that names what breaks it.
//!
//! It reads files and the manifests, and runs nothing else, so that it stays a matter of a second.

mod code;
mod dependencies;
mod golden;
mod paths;
mod project;
mod promises;
mod purity;
mod ratchet;
mod shape;
mod words;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use project::{Finding, Project};
use ratchet::Ratchet;

use crate::cargo;

/// One rule: what it is called, why it exists, and what finds the places that break it.
struct Rule {
    name: &'static str,
    why: &'static str,
    check: fn(&Project) -> Vec<Finding>,
    /// Whether the ratchet may tolerate a number of findings that shrinks with time; otherwise none is tolerated.
    ratcheted: bool,
}

impl Rule {
    const fn hard(name: &'static str, check: fn(&Project) -> Vec<Finding>, why: &'static str) -> Self {
        Self { name, why, check, ratcheted: false }
    }

    const fn ratcheted(name: &'static str, check: fn(&Project) -> Vec<Finding>, why: &'static str) -> Self {
        Self { name, why, check, ratcheted: true }
    }
}

const RULES: &[Rule] = &[
    Rule::hard("dependency-list", dependencies::outside_list, "what everything rests on stays light"),
    Rule::hard("library-owner", dependencies::library_elsewhere, "one crate knows a library, so one crate changes when it does"),
    Rule::hard("two-sides", dependencies::sides_see_each_other, "client and server share the wire contract, nothing else"),
    Rule::hard("simulator-on-top", dependencies::depends_on_simulator, "the simulator attacks the whole, so nothing rests on it"),
    Rule::hard("rig-for-tests", dependencies::rig_outside_tests, "what starts foreign servers and panics without them ships nothing"),
    Rule::hard("one-tls-provider", dependencies::second_tls_provider, "two providers in one process: rustls refuses to choose"),
    Rule::hard("no-io-no-clock", purity::impurities, "the same input gives the same run, on a till and in the simulator"),
    Rule::hard("machine-words", words::machine_words, "what names one machine is wrong on every other"),
    Rule::hard("golden-parses", golden::unreadable, "every language replays these files"),
    Rule::hard("named-tests", promises::missing_tests, "a table of tests that do not exist proves nothing"),
    Rule::hard("file-size-median", shape::median_budget, "most files can be read in one sitting"),
    Rule::hard("file-size-p90", shape::p90_budget, "a long file is the exception"),
    Rule::ratcheted("file-too-long", shape::long_files, "nobody reads it whole, so nobody knows what is in it"),
    Rule::ratcheted("function-too-long", shape::long_functions, "a function does one thing"),
    Rule::ratcheted("trait-too-wide", shape::wide_traits, "every implementation and every fake pays for each method"),
    Rule::ratcheted("first-line", shape::missing_first_line, "a reader learns first why the file exists"),
    Rule::ratcheted("drawer-file", shape::drawers, "a type lives with its concept"),
    Rule::ratcheted("unexplained-todo", words::unexplained_todos, "without a reason nobody can tell when it is due"),
];

/// Checks all rules and prints the outcome; with `bless`, writes improvements into the ratchet.
pub(crate) fn run(bless: bool) -> Result<ExitCode> {
    let passed = if bless { bless_improvements()? } else { passes()? };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks all rules and prints the outcome.
pub(crate) fn passes() -> Result<bool> {
    let started = Instant::now();
    let project = Project::load(cargo::root())?;
    let ratchet = Ratchet::load(cargo::root())?;
    let mut broken = 0;
    for rule in RULES {
        let findings = (rule.check)(&project);
        let tolerated = if rule.ratcheted { ratchet.tolerated(rule.name) } else { 0 };
        if findings.len() > tolerated {
            broken += 1;
            report(rule, &findings, tolerated);
        } else if findings.len() < tolerated {
            println!("tidy: {} fell from {tolerated} to {}: keep it with --bless", rule.name, findings.len());
        }
    }
    let outcome = if broken == 0 { "ok".to_owned() } else { format!("{broken} broken") };
    println!(
        "tidy: {} rules, {} files, {}: {outcome} ({} ms)",
        RULES.len(),
        project.files.len(),
        shape::summary(&project),
        started.elapsed().as_millis()
    );
    Ok(broken == 0)
}

fn report(rule: &Rule, findings: &[Finding], tolerated: usize) {
    println!("tidy: {}: {} found, {tolerated} tolerated; {}", rule.name, findings.len(), rule.why);
    for finding in findings {
        println!("  {finding}");
    }
}

fn bless_improvements() -> Result<bool> {
    let project = Project::load(cargo::root())?;
    let mut ratchet = Ratchet::load(cargo::root())?;
    for rule in RULES.iter().filter(|rule| rule.ratcheted) {
        ratchet.lower(rule.name, (rule.check)(&project).len())?;
    }
    ratchet.save(cargo::root())?;
    passes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_distinct_names() {
        let mut names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
    }

    #[test]
    fn the_ratchet_names_only_rules_that_it_may_tolerate() {
        let ratchet = Ratchet::load(cargo::root()).expect("the ratchet file is readable");
        for name in ratchet.names() {
            assert!(RULES.iter().any(|rule| rule.ratcheted && rule.name == name), "{name}");
        }
    }
}
