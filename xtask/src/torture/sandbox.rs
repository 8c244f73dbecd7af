//! Walls around a run: it calls itself again in namespaces of its own. Whatever it makes there (links, bridge, small disk, processes) the kernel takes
//! away when the run is over, however it ends: done, panicked, Ctrl-C or killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{TortureArgs, process};
use crate::setup;

/// What a run has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Walls {
    /// A network and mounts.
    Network,
    /// Mounts.
    Disk,
}

/// What a run is told when it is called again inside its walls.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Inside {
    /// The walls that stand
    #[arg(long, hide = true, required = false)]
    pub(super) walls: Walls,
    /// The program that was built outside
    #[arg(long, hide = true, required = false)]
    pub(super) program: PathBuf,
    /// Where the run keeps its files
    #[arg(long, hide = true, required = false)]
    pub(super) directory: PathBuf,
}

/// All that a run makes inside, tried once; mounted over the directory `$1`, which nobody outside sees.
const TRY_DISK: &str = "mount -t tmpfs -o size=1m tmpfs \"$1\"";
const TRY_NETWORK: &str = "mount -t tmpfs -o size=1m tmpfs \"$1\"; ip link set lo up; ip link add name shop type bridge; \
    ip link add till type veth peer name cable; unshare --net true";

impl Walls {
    /// The best walls that this machine allows; what it does not allow, and why, is printed.
    pub(super) fn find(directory: &Path) -> Option<Self> {
        match Self::Network.try_out(directory) {
            Ok(()) => return Some(Self::Network),
            Err(why) => println!("torture: no network namespaces, so proxies alone cut tills off: {why:#}"),
        }
        match Self::Disk.try_out(directory) {
            Ok(()) => Some(Self::Disk),
            Err(why) => {
                println!("torture: no small disk, so a limit on the size of files makes it full: {why:#}");
                None
            }
        }
    }

    fn try_out(self, directory: &Path) -> Result<()> {
        let script = match self {
            Self::Network => TRY_NETWORK,
            Self::Disk => TRY_DISK,
        };
        process::output(self.enter()?.args(["sh", "-ec", script, "sh"]).arg(directory)).map(drop)
    }

    /// Runs the torture inside; whether it was endured.
    pub(super) fn run(self, args: &TortureArgs, seed: u64, program: &Path, directory: &Path) -> Result<bool> {
        // A copy: cargo may put another build in this program's place while it runs.
        let ourselves = directory.join("xtask");
        fs::copy("/proc/self/exe", &ourselves).context("this program cannot be copied")?;
        let mut command = self.enter()?;
        command.arg(&ourselves).args(["torture", "--seconds", &args.seconds.to_string(), "--kills", &args.kills.to_string()]);
        command.args(["--seed", &seed.to_string(), "--walls", self.name()]);
        command.arg("--program").arg(program).arg("--directory").arg(directory);
        let status = command.stdin(Stdio::null()).status().context("the torture did not start inside its namespaces")?;
        Ok(status.success())
    }

    /// A command that runs what follows inside: as its first process, so that all others end with it, and it ends with us.
    pub(super) fn enter(self) -> Result<Command> {
        let user = process::output(Command::new("id").arg("-u"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"]);
        if user.trim() != "0" {
            command.args(["--user", "--map-root-user"]);
        }
        if self == Self::Network {
            command.arg("--net");
        }
        command.env("PATH", setup::search_path());
        Ok(command)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Disk => "disk",
        }
    }
}

/// Called again by a user instead of by itself, it would rearrange the machine's own network.
pub(super) fn ensure_inside() -> Result<()> {
    ensure!(std::process::id() == 1, "--walls, --program and --directory are for the torture's own use");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::ValueEnum as _;

    #[test]
    fn walls_are_called_as_they_are_read() {
        for walls in Walls::value_variants() {
            assert_eq!(Walls::from_str(walls.name(), false), Ok(*walls));
        }
    }

    #[test]
    fn nothing_that_was_made_inside_is_seen_outside() {
        let directory = std::env::temp_dir().join(format!("walls-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        if let Some(walls) = Walls::find(&directory) {
            let made = "mount -t tmpfs tmpfs \"$1\" && echo made > \"$1/there\" && cat \"$1/there\"";
            let said = process::output(walls.enter().unwrap().args(["sh", "-c", made, "sh"]).arg(&directory)).unwrap();
            assert_eq!(said, "made\n");
            assert!(!directory.join("there").exists());
        }
        fs::remove_dir(directory).unwrap();
    }
}
