//! A Mosquitto of the tests' own: on a free port, letting everybody in unless told otherwise.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    account, certificate,
    port::free_port,
    program,
    server_process::{Log, ServerProcess, lock},
};

/// Another process may take the port between our look and the broker's.
const PORTS_TRIED: usize = 5;
/// The plugin's own file.
const DYNAMIC_SECURITY: &str = "dynamic-security.json";

/// A running Mosquitto; ended and removed when dropped.
#[derive(Debug)]
pub struct Mosquitto {
    process: Option<ServerProcess>,
    port: u16,
    /// Where TLS alone is spoken: the listener that asks for a certificate.
    certified_port: Option<u16>,
    log: Log,
    directory: TempDir,
}

impl Mosquitto {
    /// Lets anybody in; `more` are further lines of its configuration.
    #[must_use]
    pub fn start(more: &str) -> Self {
        Self::launch(directory(), &format!("allow_anonymous true\n{more}"))
    }

    /// Has accounts whose passwords are `pw-` and their name, and access rules as in an `acl_file`.
    ///
    /// # Panics
    /// When an account cannot be made.
    #[must_use]
    pub fn with_accounts(names: &[&str], acl: &str) -> Self {
        let directory = directory();
        let (passwords, rules) = (directory.path().join("passwords"), directory.path().join("acl"));
        write(&passwords, "");
        write(&rules, acl);
        for name in names {
            let made = Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args([name, &format!("pw-{name}").as_str()]).status();
            assert!(made.is_ok_and(|status| status.success()), "mosquitto_passwd failed");
        }
        let (passwords, rules) = (passwords.display(), rules.display());
        Self::launch(directory, &format!("allow_anonymous false\npassword_file {passwords}\nacl_file {rules}\n"))
    }

    /// Has the dynamic-security plugin and its administrator, `admin` with the password `pw-admin`, who may do everything. Nobody else is known.
    ///
    /// # Panics
    /// When the plugin's file cannot be made.
    #[must_use]
    pub fn with_dynamic_security() -> Self {
        let directory = directory();
        let plugin = dynamic_security(&directory);
        Self::launch(directory, &plugin)
    }

    /// The same over TLS alone: the port of all others is for devices, and a second one asks for a certificate.
    ///
    /// # Panics
    /// When the files cannot be made.
    #[must_use]
    pub fn with_dynamic_security_over_tls() -> Self {
        let directory = directory();
        certificate::make(directory.path(), |_file| {});
        let [authority, own, key] =
            [certificate::authority, certificate::certificate, certificate::key].map(|file| file(directory.path()).display().to_string());
        let tls = format!("cafile {authority}\ncertfile {own}\nkeyfile {key}\n");
        let certified_port = free_port();
        let second = format!("listener {certified_port} 127.0.0.1\n{tls}require_certificate true\n");
        let plugin = dynamic_security(&directory);
        Self { certified_port: Some(certified_port), ..Self::launch(directory, &format!("{plugin}{tls}{second}")) }
    }

    /// Whom to trust over TLS; and for the listener that asks: a certificate and its key.
    #[must_use]
    pub fn certificates(&self) -> [PathBuf; 3] {
        [certificate::authority, certificate::certificate, certificate::key].map(|file| file(self.directory.path()))
    }

    /// The address of the listener that asks for a certificate.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn certified_url(&self) -> String {
        format!("mqtts://localhost:{}", self.certified_port.expect("it speaks TLS"))
    }

    /// What the plugin has on disk.
    ///
    /// # Panics
    /// When there is no plugin.
    #[must_use]
    pub fn accounts(&self) -> Vec<u8> {
        fs::read(self.directory.path().join(DYNAMIC_SECURITY)).expect("the plugin has a file")
    }

    /// After a kill: a backup of the plugin's file comes back, and the broker with it.
    ///
    /// # Panics
    /// When it cannot.
    pub fn restore(&mut self, accounts: &[u8]) {
        fs::write(self.directory.path().join(DYNAMIC_SECURITY), accounts).expect("the directory is ours");
        self.restart();
    }

    fn launch(directory: TempDir, more: &str) -> Self {
        let log = Log::default();
        for _ in 0..PORTS_TRIED {
            let port = free_port();
            // Run by root it would become another user, who may not read the directory.
            let user = account::own_name();
            let fixed = "set_tcp_nodelay true\nmax_queued_messages 100000\nlog_dest stderr\n";
            let text = format!("per_listener_settings false\nlistener {port} 127.0.0.1\n{fixed}user {user}\n{more}");
            write(&directory.path().join("mosquitto.conf"), &text);
            match run(directory.path(), &log) {
                Ok(process) => return Self { process: Some(process), port, certified_port: None, log, directory },
                Err(said) => assert!(said.contains("Address already in use"), "{said}"),
            }
        }
        panic!("{PORTS_TRIED} ports were taken by others: {}", lock(&log));
    }

    /// The TCP port on loopback; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its address as `--broker` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        match self.certified_port {
            // The name that is in the certificate.
            Some(_) => format!("mqtts://localhost:{}", self.port),
            None => format!("mqtt://127.0.0.1:{}", self.port),
        }
    }

    /// Everything that it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        lock(&self.log).clone()
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        self.process.take().expect("the broker was killed").kill();
    }

    /// After a kill: again, on the same port.
    ///
    /// # Panics
    /// When it cannot.
    pub fn restart(&mut self) {
        self.process = Some(run(self.directory.path(), &self.log).unwrap_or_else(|why| panic!("{why}")));
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        self.running().signal(name);
    }

    /// SIGSTOP: connections stay open, and nobody answers.
    pub fn pause(&self) {
        self.running().pause();
    }

    /// After [`Self::pause`].
    pub fn resume(&self) {
        self.running().resume();
    }

    /// Other access rules, at once.
    pub fn set_acl(&self, acl: &str) {
        write(&self.directory.path().join("acl"), acl);
        self.signal("HUP");
    }

    fn running(&self) -> &ServerProcess {
        self.process.as_ref().expect("the broker was killed")
    }
}

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("mstore-rig-").tempdir().expect("the temporary directory is writable")
}

/// The lines of the configuration that load the plugin, whose file is made.
fn dynamic_security(directory: &TempDir) -> String {
    let file = directory.path().join(DYNAMIC_SECURITY);
    let made = Command::new("mosquitto_ctrl").args(["dynsec", "init"]).arg(&file).args(["admin", "pw-admin"]).output();
    assert!(made.is_ok_and(|made| made.status.success()), "mosquitto_ctrl failed");
    let plugin = program::mosquitto_plugin().expect("Debian's package mosquitto has its plugin");
    let (plugin, file) = (plugin.display(), file.display());
    format!("allow_anonymous false\nplugin {plugin}\nplugin_opt_config_file {file}\n")
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the directory is ours");
}

fn run(directory: &Path, log: &Log) -> Result<ServerProcess, String> {
    let program = program::mosquitto().expect("Mosquitto is not installed: `cargo xtask setup` installs Debian's package mosquitto");
    let mut command = Command::new(program);
    command.arg("-c").arg(directory.join("mosquitto.conf"));
    ServerProcess::start(&mut command, " running", "KILL", directory, log)
}
