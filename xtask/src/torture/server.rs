//! The server process: its database on a disk that can be filled, its broker the real Mosquitto, its administrator the command line.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Ground,
    disk::Disk,
    process::{self, Process},
    wait::until,
};

pub(super) struct Server {
    program: PathBuf,
    directory: PathBuf,
    pub(super) port: u16,
    broker: SocketAddr,
    profile: &'static str,
    pub(super) disk: Disk,
    pub(super) process: Option<Process>,
    ready: Arc<AtomicBool>,
}

impl Server {
    pub(super) fn new(ground: &Ground, broker: u16) -> Result<Self> {
        let disk = Disk::make(&ground.directory.join("disk"), ground.has_walls)?;
        let port = super::free_port()?;
        let (program, directory) = (ground.program.clone(), ground.directory.clone());
        let broker = (Ipv4Addr::LOCALHOST, broker).into();
        Ok(Self { program, directory, port, broker, profile: ground.profile(), disk, process: None, ready: Arc::default() })
    }

    /// Starts it; `till_mqtt` is what tills which enrol now are told.
    pub(super) fn start(&mut self, till_mqtt: Option<SocketAddr>) -> Result<()> {
        self.ready = Arc::default();
        let ready = self.ready.clone();
        let mqtt = format!("mqtt://{}", till_mqtt.unwrap_or(self.broker));
        // A file that may not grow is an error to report, not a signal to die of.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(&self.program);
        command.args(["serve", "--ready-json", "--log", "warn", "--listen", &format!("127.0.0.1:{}", self.port), "--data-dir"]);
        command.arg(self.data_dir()).args(["--broker", &format!("mqtt://{}", self.broker), "--public-mqtt-url", &mqtt]);
        command.args(["--profile", self.profile]);
        super::without_settings(&mut command);
        let heard = move |_line: &str| ready.store(true, Ordering::Relaxed);
        self.process = Some(Process::start(&mut command, &self.log(), heard)?);
        Ok(())
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(super) fn wait_ready(&mut self) -> Result<()> {
        let ready = self.ready.clone();
        let mut ended = false;
        until("server", || {
            ended = self.process.as_mut().is_none_or(|process| process.has_ended().is_some());
            ended || ready.load(Ordering::Relaxed)
        })?;
        ensure!(!ended, "the server ended on its own; see {}", self.log().display());
        Ok(())
    }

    /// On the same small disk: a log that cannot be written is one of the faults.
    fn log(&self) -> PathBuf {
        self.directory.join("disk").join("server.log")
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.join("disk").join("shop")
    }

    pub(super) fn database(&self) -> PathBuf {
        self.data_dir().join("mstore.db")
    }

    /// Runs a command as administrator.
    pub(super) fn admin(&self) -> Command {
        let mut command = Command::new(&self.program);
        super::without_settings(&mut command);
        command.env("MSTORE_SERVER", format!("http://127.0.0.1:{}", self.port));
        command.env("MSTORE_ADMIN_TOKEN_FILE", self.data_dir().join("admin.token"));
        command
    }

    /// A claim code for a new till.
    pub(super) fn claim(&self, till: &str, branch: &str) -> Result<String> {
        let answer = process::output(self.admin().args(["device", "add", branch, "--id", till, "--json"]))?;
        let answer: Value = serde_json::from_str(&answer)?;
        answer["code"].as_str().map(str::to_owned).context("no claim code")
    }
}
