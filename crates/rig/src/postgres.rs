//! A PostgreSQL of the tests' own: a cluster in a temporary directory, with a superuser, an ordinary role, and replicas.

mod cluster;
mod database;
mod psql;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

use crate::{
    certificate, program,
    server_process::{Log, ServerProcess, lock},
};
use cluster::Cluster;
pub use database::Database;
pub use psql::{psql, try_psql};

/// The superuser's name, and its password over TCP.
const SUPERUSER: &str = "postgres";
/// The ordinary role that owns the databases, and its password.
const OWNER: &str = "shop";

/// How a PostgreSQL is started. The default forgets everything when the machine fails and is quick; a killed server forgets nothing.
#[derive(Debug, Clone, Default)]
pub struct Options {
    settings: Vec<(String, String)>,
    is_synced: bool,
    has_tls: bool,
}

impl Options {
    /// A server setting, as in `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With fsync: for measurements, where a commit must cost what it costs.
    #[must_use]
    pub fn synced(mut self) -> Self {
        self.is_synced = true;
        self
    }

    /// With TLS and a certificate for `localhost` of an authority of its own, [`Postgres::authority`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.has_tls = true;
        self
    }
}

/// A running PostgreSQL; ended and removed when dropped.
#[derive(Debug)]
pub struct Postgres {
    process: Option<ServerProcess>,
    cluster: Cluster,
    log: Log,
    /// Last, so that it goes when the server has ended.
    directory: TempDir,
}

impl Postgres {
    /// The one of this process, for tests that do it no harm; each has a [`Database`] of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A new one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&Options::default())
    }

    /// A new one with these options.
    #[must_use]
    pub fn start_with(options: &Options) -> Self {
        let directory = Cluster::directory();
        let cluster = Cluster::make(directory.path(), options);
        let postgres = Self::launch(cluster, directory);
        postgres.superuser_psql(
            "postgres",
            &format!("ALTER ROLE {SUPERUSER} PASSWORD '{SUPERUSER}'; CREATE ROLE {OWNER} LOGIN PASSWORD '{OWNER}'"),
        );
        postgres
    }

    /// A streaming replica of this one, read-only until it is promoted. It has what this one has when it is ready to answer; later commits
    /// follow on their own.
    #[must_use]
    pub fn replica(&self) -> Self {
        let directory = Cluster::directory();
        let cluster = self.cluster.copy(directory.path());
        Self::launch(cluster, directory)
    }

    fn launch(mut cluster: Cluster, directory: TempDir) -> Self {
        let log = Log::default();
        let process = cluster.start_on_a_free_port(directory.path(), &log);
        Self { process: Some(process), cluster, log, directory }
    }

    /// A replica becomes a server that takes writes; returns when it does.
    pub fn promote(&self) {
        self.superuser_psql("postgres", "SELECT pg_promote(true, 60)");
    }

    /// A new database that belongs to the ordinary role; its name begins with `name`.
    #[must_use]
    pub fn database(&self, name: &str) -> Database<'_> {
        Database::create(self, name)
    }

    /// The address of a database for the ordinary role that owns the databases of the tests.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_as(OWNER, OWNER, database)
    }

    /// The address of a database for the superuser.
    #[must_use]
    pub fn superuser_url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, SUPERUSER, database)
    }

    /// The address of a database for some role.
    #[must_use]
    pub fn url_as(&self, role: &str, password: &str, database: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// Host and port of the first, then of the second: where clients look for whoever takes writes, before and after a failover.
    #[must_use]
    pub fn failover_url(&self, replica: &Self, database: &str) -> String {
        let (first, second) = (self.port(), replica.port());
        format!("postgres://{OWNER}:{OWNER}@127.0.0.1:{first},127.0.0.1:{second}/{database}?target_session_attrs=read-write")
    }

    /// The TCP port on loopback; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// The directory of its Unix socket; whoever may enter it needs no password.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// The authority's certificate, for clients that verify; there only with [`Options::tls`].
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        certificate::authority(self.directory.path())
    }

    /// Its major version: 15.
    #[must_use]
    pub fn major_version(&self) -> u32 {
        let number: u32 = self.superuser_psql("postgres", "SHOW server_version_num").parse().expect("a number");
        number / 10_000
    }

    /// Everything that it said so far, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        lock(&self.log).clone()
    }

    /// The process id of the running server.
    ///
    /// # Panics
    /// When it is not running.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.running().id()
    }

    /// Changes a setting for good; takes effect at once if it can do without a restart.
    pub fn set(&self, name: &str, value: &str) {
        // ALTER SYSTEM refuses company.
        self.superuser_psql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.superuser_psql("postgres", "SELECT pg_reload_conf()");
    }

    /// Ends every session and stops (`fast`).
    pub fn stop(&mut self) {
        self.take().stop("INT");
    }

    /// SIGKILL to all of its processes, as when the machine loses its power.
    pub fn kill_9(&mut self) {
        self.take().kill();
    }

    /// After [`Self::stop`] or [`Self::kill_9`]: again, on the same port.
    ///
    /// # Panics
    /// When it runs, or cannot.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let process = self.cluster.start(self.directory.path(), &self.log).unwrap_or_else(|why| panic!("{why}"));
        self.process = Some(process);
    }

    /// Ends every session, and comes back on the same port.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// SIGSTOP to all of its processes: connections stay open, and nobody answers.
    pub fn pause(&self) {
        self.running().pause();
    }

    /// After [`Self::pause`].
    pub fn resume(&self) {
        self.running().resume();
    }

    /// Runs statements as superuser; what they print, unaligned.
    pub(crate) fn superuser_psql(&self, database: &str, sql: &str) -> String {
        let socket = self.directory.path().display();
        psql(&format!("host={socket} port={} user={SUPERUSER} dbname={database}", self.port()), sql)
    }

    fn running(&self) -> &ServerProcess {
        self.process.as_ref().expect("the server was stopped")
    }

    fn take(&mut self) -> ServerProcess {
        self.process.take().expect("the server was stopped")
    }
}

/// One of PostgreSQL's programs, untouched by how the environment would have it behave.
fn tool(name: &str) -> Command {
    let directory =
        program::postgres_directory().expect("PostgreSQL is not installed: `cargo xtask setup` installs Debian's package postgresql");
    let mut command = Command::new(directory.join(name));
    for (name, _value) in std::env::vars_os().filter(|(name, _value)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C");
    command
}
