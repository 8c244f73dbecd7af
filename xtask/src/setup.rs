//! What the tests need beside Rust: found by their commands, installed as Debian packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// One Debian package that some tests need.
struct Package {
    name: &'static str,
    /// A command of this package, or the absolute path of one of its files: whoever has it needs no package.
    command: &'static str,
    needed_for: &'static str,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "mosquitto-clients",
        command: "mosquitto_sub",
        needed_for: "MQTT clients that are not ours, against the embedded broker",
    },
    Package { name: "mosquitto", command: "mosquitto", needed_for: "an external broker that is not ours, to publish to and to kill" },
    Package {
        name: "rabbitmq-server",
        command: "/usr/lib/rabbitmq/bin/rabbitmq-server",
        needed_for: "an external broker that asks the server who may do what",
    },
    Package { name: "nats-server", command: "nats-server", needed_for: "an external broker whose users are lines of a file" },
    Package { name: "sqlite3", command: "sqlite3", needed_for: "a writer that is not ours, on the server's tables while it runs" },
    Package { name: "postgresql", command: "initdb", needed_for: "a PostgreSQL of the tests' own, with replicas, to write to and to kill" },
    Package {
        name: "python3-psycopg2",
        command: "/usr/lib/python3/dist-packages/psycopg2/__init__.py",
        needed_for: "a writer in Python on PostgreSQL tables that are captured",
    },
    Package { name: "golang-go", command: "go", needed_for: "a writer in Go on PostgreSQL tables that are captured" },
    Package {
        name: "golang-github-lib-pq-dev",
        command: "/usr/share/gocode/src/github.com/lib/pq/conn.go",
        needed_for: "the driver of the writer in Go",
    },
    Package { name: "prometheus", command: "promtool", needed_for: "the check of the alert rules in deploy/" },
    Package { name: "iproute2", command: "ip", needed_for: "tills in networks of their own, whose links are set down" },
    Package { name: "nodejs", command: "node", needed_for: "the client in TypeScript and the web till" },
    Package { name: "npm", command: "npm", needed_for: "the packages that they are built with" },
    Package { name: "chromium", command: "chromium", needed_for: "the web till in a real browser" },
    Package { name: "curl", command: "curl", needed_for: "the HTTP calls that the guides show" },
];

/// Where Debian keeps commands; servers are in directories that a user's PATH may leave out.
const SYSTEM_DIRECTORIES: &str = "/usr/sbin:/sbin:/usr/local/sbin";
/// Debian keeps each version of PostgreSQL in `VERSION/bin` below this, and only some of its commands where a PATH looks.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// Installs the packages whose commands are missing; does nothing, quickly, if none is.
pub(crate) fn install_missing() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    print_missing(&missing);
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    ensure!(is_on_path("apt-get"), "this is no Debian: install what is named above your own way, or run with --no-install");
    let runner = Privilege::find().with_context(|| {
        format!("installing needs root: run `sudo apt-get install {}`, or run with --no-install to skip those tests", names.join(" "))
    })?;
    runner.run(&["apt-get", "update", "-q"])?;
    // The tests start servers of their own; one of the system would hold their ports and eat the machine.
    let install = ["sh", "-c", WITHOUT_SERVICES, "install", POLICY, "apt-get", "install", "-q", "-y", "--no-install-recommends"];
    runner.run(&[&install[..], &names].concat())
}

/// Debian's packages ask this program whether they may start their services (invoke-rc.d(8)); 101 is no.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// `$1` that program, left as it is if there is one; the rest a command during which the answer is no.
const WITHOUT_SERVICES: &str = r#"
policy=$1; shift
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi
"$@"
"#;

/// Says what is missing and what that leaves out; true if anything is. In CI that is an error: a skipped test proves nothing.
pub(crate) fn report_missing() -> Result<bool> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(false);
    }
    print_missing(&missing);
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        bail!("in CI nothing may be skipped: run without --no-install");
    }
    println!("xtask: the tests that need them are skipped and say so");
    Ok(true)
}

/// Whether these commands are here.
pub(crate) fn have(commands: &[&str]) -> bool {
    commands.iter().all(|command| is_on_path(command))
}

fn missing() -> Vec<&'static Package> {
    PACKAGES.iter().filter(|package| !is_on_path(package.command)).collect()
}

fn print_missing(missing: &[&Package]) {
    for package in missing {
        println!("xtask: missing {} ({}): {}", package.command, package.name, package.needed_for);
    }
}

/// The user's `PATH` and the system's directories.
pub(crate) fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:{SYSTEM_DIRECTORIES}")
}

fn is_on_path(command: &str) -> bool {
    find_in(&search_path(), command) || postgres_directories().any(|directory| directory.join(command).is_file())
}

fn postgres_directories() -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(POSTGRES_VERSIONS).into_iter().flatten().flatten().map(|version| version.path().join("bin"))
}

fn find_in(path: &str, command: &str) -> bool {
    path.split(':').filter(|directory| !directory.is_empty()).any(|directory| Path::new(directory).join(command).is_file())
}

/// How a command comes to run as root here.
#[derive(Clone, Copy)]
enum Privilege {
    Root,
    /// sudo that asks for no password: nobody is there to type one.
    Sudo,
}

impl Privilege {
    fn find() -> Option<Self> {
        let id = Command::new("id").arg("-u").output().ok()?;
        if id.stdout.trim_ascii() == b"0" {
            return Some(Self::Root);
        }
        let sudo = Command::new("sudo").args(["-n", "true"]).stdin(Stdio::null()).stderr(Stdio::null()).status();
        sudo.is_ok_and(|status| status.success()).then_some(Self::Sudo)
    }

    fn command(self, words: &[&str]) -> Command {
        let (prefix, environment) = (["sudo", "-n"], ["env", "DEBIAN_FRONTEND=noninteractive"]);
        let words: Vec<&str> = match self {
            Self::Root => [&environment[..], words].concat(),
            Self::Sudo => [&prefix[..], &environment, words].concat(),
        };
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
    }

    fn run(self, words: &[&str]) -> Result<()> {
        println!("xtask: {}", words.join(" "));
        let status = cargo::status(&mut self.command(words))?;
        ensure!(status.success(), "`{}` failed with {status}", words.join(" "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_command_is_found_only_where_it_is() {
        let root = cargo::root();
        assert!(find_in(&format!("/nowhere:{}", root.display()), "Cargo.toml"));
        assert!(!find_in("/nowhere::", "Cargo.toml"));
        assert!(!find_in(&root.display().to_string(), "xtask"), "a directory is no command");
        let absolute = root.join("Cargo.toml").display().to_string();
        assert!(find_in("/nowhere", &absolute) && !find_in("/nowhere", &format!("{absolute}.lost")), "a file of a package");
    }

    #[test]
    fn services_are_not_started_and_what_others_decided_about_that_stays() {
        let directory = std::env::temp_dir().join(format!("xtask-policy-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let policy = directory.join("policy-rc.d");
        let run = |command: &str| {
            let script = Command::new("sh")
                .args(["-c", WITHOUT_SERVICES, "install"])
                .arg(&policy)
                .args(["sh", "-c", command, "x"])
                .arg(&policy)
                .status();
            script.unwrap().code()
        };
        assert_eq!(run(r#""$1" || exit $?"#), Some(101), "a package that asks is told no");
        assert!(!policy.exists(), "and nobody else afterwards");
        std::fs::write(&policy, "somebody's own").unwrap();
        assert_eq!(run("exit 3"), Some(3), "the command's outcome is ours");
        assert_eq!(std::fs::read_to_string(&policy).unwrap(), "somebody's own");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn sudo_never_asks() {
        let command = Privilege::Sudo.command(&["apt-get", "update"]);
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(command.get_program(), "sudo");
        assert_eq!(args, ["-n", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "update"]);
    }
}
