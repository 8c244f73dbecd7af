//! How the other commands call cargo: the one that called us, on this workspace, wherever the user stands.

use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};

/// The root of the workspace, known since this program was compiled in it.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a directory of the workspace")
}

/// `cargo SUBCOMMAND` on our workspace, in the user's current directory.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.arg(subcommand).arg("--manifest-path").arg(root().join("Cargo.toml"));
    command
}

/// Runs a command to its end; an error only if it could not be started.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot start {}", command.get_program().display()))
}
