//! Which foreign programs tests use, where they are found, and what a test does without one.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    thread,
};

/// Lets tests that lack a program skip themselves; without it they fail.
const SKIP_MISSING: &str = "MSTORE_TEST_SKIP_MISSING";
/// Debian keeps servers where a user's PATH may not look.
const SERVER_DIRECTORIES: &str = "/usr/sbin:/usr/local/sbin";
/// Debian keeps each version of PostgreSQL in `VERSION/bin` below this.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// A foreign program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// A PostgreSQL server with its tools.
    Postgres,
    /// The Mosquitto broker.
    Mosquitto,
    /// The RabbitMQ broker.
    RabbitMq,
    /// The NATS server.
    Nats,
    /// Debian's Python with psycopg2.
    Psycopg2,
    /// Go with Debian's copy of the driver lib/pq.
    GoPq,
    /// The tool that checks Prometheus' rules.
    Promtool,
}

impl Program {
    /// The Debian packages that bring it.
    #[must_use]
    pub fn packages(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Mosquitto => "mosquitto",
            Self::RabbitMq => "rabbitmq-server",
            Self::Nats => "nats-server",
            Self::Psycopg2 => "python3-psycopg2",
            Self::GoPq => "golang-go and golang-github-lib-pq-dev",
            Self::Promtool => "prometheus",
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::Postgres => postgres_directory().is_some(),
            Self::Mosquitto => mosquitto().is_some(),
            Self::RabbitMq => rabbitmq().is_some(),
            Self::Nats => nats().is_some(),
            Self::Psycopg2 => Path::new("/usr/lib/python3/dist-packages/psycopg2").is_dir(),
            Self::GoPq => Path::new("/usr/share/gocode/src/github.com/lib/pq").is_dir() && on_path("go").is_some(),
            Self::Promtool => on_path("promtool").is_some(),
        }
    }
}

/// Whether these programs are here. When one is not, says which package brings it: as the reason why the calling test is skipped where that
/// is allowed (`cargo xtask test --no-install`), as a panic otherwise.
///
/// # Panics
/// When a program is missing and nothing may be skipped.
#[must_use]
pub fn have(programs: &[Program]) -> bool {
    let Some(missing) = programs.iter().find(|program| !program.is_installed()) else { return true };
    let what = format!("not installed: {}; `cargo xtask setup` installs it", missing.packages());
    assert!(std::env::var_os(SKIP_MISSING).is_some(), "{what}");
    // The test harness names its threads after the tests; it captures `println!`, and this line must get through.
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let mut out = std::io::stdout().lock();
    let _nobody_reads = writeln!(out, "\nskipped: {test}: {what}");
    false
}

/// The directory of the newest PostgreSQL's programs.
pub(crate) fn postgres_directory() -> Option<PathBuf> {
    if let Some(chosen) = std::env::var_os("MSTORE_TEST_POSTGRES_BIN") {
        return Some(chosen.into());
    }
    let versions = std::fs::read_dir(POSTGRES_VERSIONS).into_iter().flatten().flatten();
    let numbered = versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))));
    let debian = numbered.filter(|(_version, bin)| bin.join("initdb").is_file()).max().map(|(_version, bin)| bin);
    debian.or_else(|| on_path("initdb")?.parent().map(Path::to_path_buf))
}

pub(crate) fn mosquitto() -> Option<PathBuf> {
    on_path("mosquitto")
}

/// The program itself: Debian's own command in a PATH changes its account and asks the system's node.
pub(crate) fn rabbitmq() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/rabbitmq/lib").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("sbin/rabbitmq-server")).filter(|file| file.is_file()).max()
}

pub(crate) fn nats() -> Option<PathBuf> {
    on_path("nats-server")
}

/// Debian keeps libraries in a directory per architecture.
pub(crate) fn mosquitto_plugin() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    directories.map(|directory| directory.join("mosquitto_dynamic_security.so")).find(|file| file.is_file())
}

fn on_path(command: &str) -> Option<PathBuf> {
    let path = format!("{}:{SERVER_DIRECTORIES}", std::env::var("PATH").unwrap_or_default());
    std::env::split_paths(&path).map(|directory| directory.join(command)).find(|file| file.is_file())
}
