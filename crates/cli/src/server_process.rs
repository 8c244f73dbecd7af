//! A server in a process of its own, for benchmarks (whose memory and CPU are told apart) and for killing.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{api::AdminApi, failure::Failure};

/// How long a server may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The line that `serve --ready-json` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) http: String,
    pub(crate) mqtt: String,
    pub(crate) ws: String,
    /// The database's file, or its URL without the password.
    pub(crate) database: String,
    pub(crate) admin_token_file: PathBuf,
}

/// A running server process; it dies with its owner.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) ready: Ready,
}

impl ServerProcess {
    /// Starts `serve` on free ports (or, after a kill, on the ports of `again`) and waits until it is ready.
    pub(crate) async fn start(data_dir: &Path, again: Option<&Ready>) -> Result<Self, Failure> {
        Self::start_on(data_dir, again, None).await
    }

    /// The same, on the PostgreSQL database at a URL if there is one.
    pub(crate) async fn start_on(data_dir: &Path, again: Option<&Ready>, database: Option<&str>) -> Result<Self, Failure> {
        let exe = std::env::current_exe().map_err(|error| Failure::unavailable(format!("this program's own path: {error}")))?;
        let authority = |url: &str| url.split("://").nth(1).unwrap_or(url).split('/').next().unwrap_or_default().to_owned();
        let address = |pick: fn(&Ready) -> &String| again.map_or_else(|| "127.0.0.1:0".to_owned(), |ready| authority(pick(ready)));
        let mut command = Command::new(exe);
        if let Some(url) = database {
            // It may hold a password, and a command line is public.
            command.env("MSTORE_DATABASE", url);
        }
        let mut child = command
            // All tills of a demo or a benchmark have the address of this machine; those of a chain have one each.
            .env("MSTORE_REQUESTS_PER_ADDRESS_MAX", "4096")
            .args(["serve", "--ready-json", "--log", "warn", "--data-dir"])
            .arg(data_dir)
            .args(["--listen", &address(|ready| &ready.http)])
            .args(["--mqtt-listen", &address(|ready| &ready.mqtt)])
            .args(["--ws-listen", &address(|ready| &ready.ws)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::unavailable(format!("the server process did not start: {error}")))?;
        let stdout = child.stdout.take().expect("piped above");
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(READY_WITHIN, lines.next_line()).await;
        let Ok(Ok(Some(line))) = first else {
            return Err(Failure::unavailable("the server process ended or hung before it was ready"));
        };
        let ready =
            serde_json::from_str(&line).map_err(|error| Failure::unavailable(format!("the server process said {line:?}: {error}")))?;
        Ok(Self { child, ready })
    }

    /// An administrator of this server.
    pub(crate) fn admin(&self) -> Result<AdminApi, Failure> {
        let token = std::fs::read_to_string(&self.ready.admin_token_file)
            .map_err(|error| Failure::unavailable(format!("{}: {error}", self.ready.admin_token_file.display())))?;
        AdminApi::new(&self.ready.http, &token)
    }

    /// SIGKILL: no clean-up, no goodbye.
    pub(crate) async fn kill(mut self) -> Result<Ready, Failure> {
        self.child.kill().await.map_err(|error| Failure::unavailable(format!("the server process could not be killed: {error}")))?;
        Ok(self.ready.clone())
    }

    /// What the process has used so far.
    pub(crate) fn usage(&self) -> Usage {
        self.child.id().map(Usage::of).unwrap_or_default()
    }
}

/// CPU time and memory of a process, from `/proc` (zero where there is none).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu_ms: u64,
    pub(crate) memory_kb: u64,
    /// The most that it ever had.
    pub(crate) memory_peak_kb: u64,
}

impl Usage {
    /// Clock ticks are 10 ms on every Linux that this runs on (`getconf CLK_TCK` = 100).
    const TICK_MS: u64 = 10;

    pub(crate) fn of(pid: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Fields after the command's closing parenthesis: utime and stime are the 12th and 13th.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kb = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Self { cpu_ms: (ticks(11) + ticks(12)) * Self::TICK_MS, memory_kb: kb("VmRSS:"), memory_peak_kb: kb("VmHWM:") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(std::process::id());
        assert!(usage.memory_kb > 1_000 && usage.memory_peak_kb >= usage.memory_kb);
    }
}
