//! The packages in TypeScript: built into the directory that the server embeds, checked, and tested against real servers and a real browser.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// What the build tools need of Node.
const NODE_MIN: (u32, u32) = (20, 19);
/// Tells the tests with real processes which program to start.
const PROGRAM: &str = "SYNC_PROGRAM";

/// Installs the packages that the lock file names.
pub(crate) fn fetch() -> Result<()> {
    let found = node_version().context("no Node here: install Debian's nodejs and npm, or another Node")?;
    let (major, minor) = NODE_MIN;
    ensure!(found >= NODE_MIN, "Node {}.{} is too old: {major}.{minor} or later is needed", found.0, found.1);
    run(&["ci", "--no-audit", "--no-fund"])
}

/// Builds the pages that the server embeds.
pub(crate) fn build() -> Result<()> {
    run(&["run", "build", "--workspaces"])?;
    println!("xtask: the pages are in crates/server/web; the next build of the server embeds them");
    Ok(())
}

/// Whether the packages can be built here.
pub(crate) fn can_build() -> bool {
    node_version().is_some_and(|found| found >= NODE_MIN)
}

/// The packages' own tests: what they print is for [`crate::totals`].
pub(crate) fn unit_tests() -> Command {
    npm(&["run", "test", "--workspace", "@mstore/client"])
}

/// The types of every package.
pub(crate) fn check() -> Result<()> {
    run(&["run", "check", "--workspaces"])
}

/// Tests in a browser, against the server of the last debug build.
pub(crate) fn live_tests() -> Command {
    let mut command = npm(&["run", "test:live", "--workspace", "@mstore/web"]);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| cargo::root().join("target"), std::path::PathBuf::from);
    command.env(PROGRAM, target.join("debug/mstore-sync"));
    command
}

fn npm(args: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(args).current_dir(cargo::root()).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Result<()> {
    let status = cargo::status(&mut npm(args))?;
    if !status.success() {
        bail!("`npm {}` failed with {status}", args.join(" "));
    }
    Ok(())
}

fn node_version() -> Option<(u32, u32)> {
    let output = Command::new("node").arg("--version").stdin(Stdio::null()).output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Major and minor of `v20.19.5`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix('v')?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parse_version("v20.19.5\n"), Some((20, 19)));
        assert!(parse_version("v9.30.0") < Some(NODE_MIN) && parse_version("v22.1.0") > Some(NODE_MIN));
        assert_eq!(parse_version("20"), None);
    }
}
