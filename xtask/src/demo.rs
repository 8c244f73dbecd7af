//! `cargo xtask demo`: a shop with several tills from one command.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cargo;

/// Builds `mstore-sync` and runs its demo with `args`; its exit code becomes ours.
pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    become_child(demo_command(args))
}

fn demo_command(args: &[String]) -> Command {
    let mut command = cargo::cargo("run");
    command.args(["--package", "mstore-sync", "--bin", "mstore-sync", "--", "demo"]).args(args);
    command
}

/// Replaces this process, so that Ctrl-C reaches the demo alone and nobody returns to the prompt before it has closed.
#[cfg(unix)]
fn become_child(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(anyhow::Error::new(error).context("cannot start cargo"))
}

#[cfg(not(unix))]
fn become_child(mut command: Command) -> Result<ExitCode> {
    let status = cargo::status(&mut command)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_demo_untouched() {
        let command = demo_command(&["--devices".into(), "3".into(), "--json".into()]);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let after = args.iter().position(|arg| arg == "--").expect("cargo's own arguments end at --");
        assert_eq!(args[after + 1..], ["demo", "--devices", "3", "--json"]);
    }
}
