//! The files of one PostgreSQL cluster, and the command that serves them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{Options, SUPERUSER, tool};
use crate::{
    account::Account,
    certificate,
    port::free_port,
    server_process::{Log, ServerProcess},
};

/// Another process may take the port between our look and the server's.
const PORTS_TRIED: usize = 5;
/// Read-write servers say this, and so do replicas, with `read-only` in the middle.
const READY: &str = "database system is ready to accept";
/// Ends a server at once, with all its processes and without a checkpoint: its files are removed next.
const IMMEDIATE: &str = "QUIT";

#[derive(Debug, Clone)]
pub(super) struct Cluster {
    data: PathBuf,
    sockets: PathBuf,
    port: u16,
    options: Options,
    account: Option<Account>,
}

impl Cluster {
    /// An empty directory that the server's account may use.
    pub(super) fn directory() -> TempDir {
        let directory = tempfile::Builder::new().prefix("mstore-rig-").tempdir().expect("the temporary directory is writable");
        if let Some(account) = Account::instead_of_root(SUPERUSER) {
            account.own(directory.path());
        }
        directory
    }

    /// A new cluster below `directory`.
    pub(super) fn make(directory: &Path, options: &Options) -> Self {
        let cluster = Self {
            data: directory.join("data"),
            sockets: directory.to_owned(),
            port: 0,
            options: options.clone(),
            account: Account::instead_of_root(SUPERUSER),
        };
        let mut initdb = tool("initdb");
        initdb.args([
            "--username",
            SUPERUSER,
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        // A password must be there before the host line with SCRAM is accepted; the real one is set when the server runs.
        let password = directory.join("password");
        fs::write(&password, SUPERUSER).expect("the directory is ours");
        if let Some(account) = cluster.account {
            account.own(&password);
        }
        initdb.arg("--pwfile").arg(&password).arg("--pgdata").arg(&cluster.data);
        cluster.run(&mut initdb);
        if options.has_tls {
            certificate::make(directory, |file| {
                if let Some(account) = cluster.account {
                    account.own(file);
                }
            });
        }
        cluster
    }

    /// A copy of the running cluster that will follow it.
    pub(super) fn copy(&self, directory: &Path) -> Self {
        let copy = Self { data: directory.join("data"), sockets: directory.to_owned(), port: 0, ..self.clone() };
        let mut basebackup = tool("pg_basebackup");
        basebackup.arg("--host").arg(&self.sockets).args(["--port", &self.port.to_string(), "--username", SUPERUSER]);
        basebackup.args(["--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf", "--no-sync", "--pgdata"]).arg(&copy.data);
        copy.run(&mut basebackup);
        if self.options.has_tls {
            certificate::share(&self.sockets, directory, |file| {
                if let Some(account) = self.account {
                    account.own(file);
                }
            });
        }
        copy
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn start_on_a_free_port(&mut self, directory: &Path, log: &Log) -> ServerProcess {
        let mut why = String::new();
        for _ in 0..PORTS_TRIED {
            self.port = free_port();
            match self.start(directory, log) {
                Ok(process) => return process,
                Err(said) if said.contains("Address already in use") => why = said,
                Err(said) => panic!("{said}"),
            }
        }
        panic!("{PORTS_TRIED} ports were taken by others: {why}");
    }

    /// On the port that it has; what the server said, if it ended.
    pub(super) fn start(&self, directory: &Path, log: &Log) -> Result<ServerProcess, String> {
        let mut postgres = tool("postgres");
        postgres.arg("-D").arg(&self.data).args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-k"]).arg(&self.sockets);
        for (name, value) in self.settings() {
            postgres.args(["-c", &format!("{name}={value}")]);
        }
        self.as_account(&mut postgres);
        ServerProcess::start(&mut postgres, READY, IMMEDIATE, directory, log)
    }

    /// Later ones win.
    fn settings(&self) -> Vec<(String, String)> {
        let mut settings = vec![("shared_buffers", "64MB"), ("max_connections", "500"), ("logging_collector", "off")];
        if !self.options.is_synced {
            settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
        }
        let mut settings: Vec<_> = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        if self.options.has_tls {
            settings.extend(certificate::settings(&self.sockets));
        }
        settings.extend(self.options.settings.iter().cloned());
        settings
    }

    fn as_account(&self, command: &mut Command) {
        // It would complain about a directory that its account may not enter.
        command.current_dir("/");
        if let Some(account) = self.account {
            account.apply(command);
        }
    }

    fn run(&self, command: &mut Command) {
        self.as_account(command);
        let output = command.output().unwrap_or_else(|error| panic!("cannot start {}: {error}", command.get_program().display()));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {complaint}", command.get_program().display());
    }
}
