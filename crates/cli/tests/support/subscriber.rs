//! A foreign MQTT client that listens.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use super::Server;

/// A `mosquitto_sub` process.
pub(crate) struct Subscriber {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Subscriber {
    /// Subscribes and returns when the broker has answered; the answer's codes.
    pub(crate) fn start(server: &Server, device: &str, token: &str, topics: &[&str]) -> (Self, String) {
        let (host, port) = server.mqtt();
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub", "-d", "-v", "-q", "1", "-h", &host, "-p", &port, "-i", device, "-u", device, "-P", token]);
        for topic in topics {
            command.args(["-t", topic]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let answer =
            read_until(&mut lines, |line| line.starts_with("Subscribed") || line.contains("denied") || line.contains("not authorised"));
        (Self { child, lines }, answer)
    }

    /// The next message on a topic.
    pub(crate) fn next(&mut self, topic: &str) -> Value {
        let line = read_until(&mut self.lines, |line| line.starts_with(&format!("{topic} {{")));
        serde_json::from_str(line.split_once(' ').unwrap().1).unwrap()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the first line that is wanted.
pub(crate) fn read_until(lines: &mut impl BufRead, wanted: impl Fn(&str) -> bool) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the client ended; it said:\n{seen}");
        if wanted(&line) {
            return line;
        }
        seen.push_str(&line);
    }
}
