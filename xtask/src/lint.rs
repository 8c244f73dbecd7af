//! `cargo xtask lint`: everything that can be said about the sources without running them.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;

use crate::{cargo, tidy};

/// Runs formatting, tidy, clippy and cargo-deny, the quickest first; stops at the first that complains.
pub(crate) fn run() -> Result<ExitCode> {
    if !step("formatting", cargo::cargo("fmt").args(["--all", "--check"]))? {
        eprintln!("xtask: `cargo fmt --all` mends it");
        return Ok(ExitCode::FAILURE);
    }
    println!("── tidy");
    if !tidy::passes()? {
        return Ok(ExitCode::FAILURE);
    }
    let mut clippy = cargo::cargo("clippy");
    clippy.args(["--workspace", "--all-targets", "--", "--deny", "warnings"]);
    if !step("clippy", &mut clippy)? {
        return Ok(ExitCode::FAILURE);
    }
    if !has_cargo_deny() {
        println!("── dependencies: skipped, cargo-deny is not installed (`cargo install cargo-deny --locked`)");
        return Ok(ExitCode::SUCCESS);
    }
    let mut deny = Command::new("cargo-deny");
    deny.current_dir(cargo::root()).args(["--log-level", "error", "check", "licenses", "bans", "sources"]);
    Ok(if step("dependencies", &mut deny)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn step(name: &str, command: &mut Command) -> Result<bool> {
    println!("── {name}");
    Ok(cargo::status(command)?.success())
}

fn has_cargo_deny() -> bool {
    Command::new("cargo-deny").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
