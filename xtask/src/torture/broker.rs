//! A real Mosquitto that is killed and paused; it lets every till in, so that a run tests the data and not the accounts.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    process::{self, Process},
    wait::until,
};
use crate::setup;

pub(super) struct Mosquitto {
    pub(super) port: u16,
    directory: PathBuf,
    pub(super) process: Option<Process>,
}

impl Mosquitto {
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let port = super::free_port()?;
        // Run by root it would become another user, who may not read the directory.
        let user = process::output(Command::new("id").arg("-un"))?;
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nuser {}\n", user.trim());
        fs::write(directory.join("mosquitto.conf"), text)?;
        let mut mosquitto = Self { port, directory: directory.to_owned(), process: None };
        mosquitto.restart()?;
        let listens = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        until("mosquitto listening", listens)?;
        Ok(mosquitto)
    }

    pub(super) fn restart(&mut self) -> Result<()> {
        let mut command = Command::new("mosquitto");
        command.env("PATH", setup::search_path()).arg("-c").arg(self.directory.join("mosquitto.conf"));
        let process = Process::start(&mut command, &self.directory.join("mosquitto.log"), |_line| {});
        self.process = Some(process.context("mosquitto: cargo xtask setup installs it")?);
        Ok(())
    }
}
