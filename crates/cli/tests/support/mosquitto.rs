//! A real Mosquitto on a free port that lets everybody in; killed when dropped.

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

pub(crate) struct Mosquitto {
    child: Child,
    pub(crate) port: u16,
    dir: TempDir,
}

impl Mosquitto {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        // Run by root it would become another user, who may not read the directory.
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nuser {}\n", user.trim());
        std::fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
        let child = run(&dir);
        Self { child, port, dir }
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After a kill: again, on the same port.
    pub(crate) fn restart(&mut self) {
        self.child = run(&self.dir);
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts it and returns when it says that it listens.
fn run(dir: &TempDir) -> Child {
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("mosquitto");
    command.env("PATH", path).arg("-c").arg(dir.path().join("mosquitto.conf")).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.ends_with(" running")), "mosquitto ended");
    // It goes on talking: somebody must listen, or it ends at a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    child
}
