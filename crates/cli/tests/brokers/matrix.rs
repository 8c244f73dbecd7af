//! Runs `broker verify` and compares what went wrong with what the docs admit.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Server, http};

/// Everything here is a matter of seconds.
const DEADLINE: Duration = Duration::from_secs(60);

/// An account whose password lies in a file.
pub(crate) struct Account<'a> {
    pub(crate) name: &'a str,
    pub(crate) file: PathBuf,
}

impl<'a> Account<'a> {
    /// Writes the file.
    pub(crate) fn new(dir: &Path, name: &'a str, password: &str) -> Self {
        let file = dir.join(format!("{name}.password"));
        std::fs::write(&file, password).unwrap();
        Self { name, file }
    }

    pub(crate) fn path(&self) -> &str {
        self.file.to_str().unwrap()
    }
}

/// All 65 cases as expected, but for those that the docs name; each of these must really fail.
pub(crate) fn check(server: &Server, kind: &str, more: &[&str], backend: &Account<'_>, observer: &Account<'_>, exceptions: &[&str]) {
    let accounts = [
        ["--backend-username", backend.name, "--backend-password-file", backend.path()],
        ["--observer-username", observer.name, "--observer-password-file", observer.path()],
    ];
    let args = [&["broker", "verify", kind, "--json"][..], accounts.as_flattened(), more].concat();
    let output = server.try_admin(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 65, "the matrix has lost or won cases");
    let wrong: Vec<String> = cases.iter().filter(|case| case["ok"] != true).map(ToString::to_string).collect();
    let names: Vec<&str> = cases.iter().filter(|case| case["ok"] != true).map(|case| case["case"].as_str().unwrap()).collect();
    assert_eq!(names, exceptions, "{}", wrong.join("\n"));
    assert_eq!(report["unseen"], 0);
    assert!(report["version"].as_str().is_some_and(|version| version.starts_with(|digit: char| digit.is_ascii_digit())), "{report}");
    assert_eq!(output.status.code(), Some(i32::from(!exceptions.is_empty())), "{said}");
}

/// A figure of `/metrics`.
pub(crate) fn figure(server: &Server, name: &str) -> u64 {
    let text = http(server.http(), "GET", "/metrics", None, "").body;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Asks again and again: every question is a request, so nobody spins.
pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
    }
}
