//! What the rules look at: the text of every file that is or would be tracked, and the manifests as cargo reads them.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::code;
use crate::cargo;

/// The workspace as the rules see it.
pub(super) struct Project {
    pub(super) files: Vec<Source>,
    pub(super) packages: Vec<Package>,
}

/// One text file.
pub(super) struct Source {
    /// From the root of the workspace, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// Rust only: the same lines without comments and without the contents of literals.
    pub(super) code: String,
}

/// One crate of the workspace.
#[derive(Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) dependencies: Vec<Dependency>,
}

/// One line of a crate's manifest.
#[derive(Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// None: an ordinary one; `dev` or `build` otherwise.
    pub(super) kind: Option<String>,
    pub(super) optional: bool,
    pub(super) features: Vec<String>,
}

/// A place that breaks a rule.
#[derive(Debug)]
pub(super) struct Finding {
    place: String,
    /// Counted from 1; 0 if the place is more than a line.
    line: usize,
    what: String,
}

impl Project {
    /// Reads everything under `root`; needs git, to leave out what is ignored.
    pub(super) fn load(root: &Path) -> Result<Self> {
        Ok(Self { files: load_files(root)?, packages: load_packages()? })
    }

    /// The Rust files that are compiled into what we ship and run.
    pub(super) fn production(&self) -> impl Iterator<Item = &Source> {
        self.rust().filter(|file| file.is_production())
    }

    /// All Rust files.
    pub(super) fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { code::blank(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file stands under a `src` and holds more than tests.
    pub(super) fn is_production(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        let is_test = parts.iter().any(|part| matches!(*part, "tests" | "tests.rs" | "benches" | "examples"));
        parts.contains(&"src") && !is_test
    }

    pub(super) fn line_count(&self) -> usize {
        self.text.lines().count()
    }

    pub(super) fn extension(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(_stem, extension)| extension)
    }
}

impl Dependency {
    pub(super) fn is_for_tests(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

impl Finding {
    pub(super) fn at(place: &str, line: usize, what: impl Into<String>) -> Self {
        Self { place: place.to_owned(), line, what: what.into() }
    }

    pub(super) fn whole(place: &str, what: impl Into<String>) -> Self {
        Self::at(place, 0, what)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.what),
            line => write!(f, "{}:{line}: {}", self.place, self.what),
        }
    }
}

fn load_files(root: &Path) -> Result<Vec<Source>> {
    let listing = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"])
        .output()
        .context("cannot start git")?;
    ensure!(listing.status.success(), "git cannot list the files: {}", String::from_utf8_lossy(&listing.stderr).trim());
    let paths = String::from_utf8(listing.stdout).context("a file name is not UTF-8")?;
    let mut files = Vec::new();
    for path in paths.split('\0').filter(|path| !path.is_empty()) {
        // Deleted but not yet staged, or not text: neither has lines to look at.
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            files.push(Source::new(path, &text));
        }
    }
    Ok(files)
}

fn load_packages() -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let mut command = cargo::cargo("metadata");
    command.args(["--no-deps", "--format-version", "1"]);
    let output = command.output().context("cannot start cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata printed something else")?;
    Ok(metadata.packages)
}

#[cfg(test)]
pub(super) mod examples {
    //! Small projects that break one rule at a time.

    use super::*;

    /// A project of these files and no crates.
    pub(in crate::tidy) fn files(files: &[(&str, &str)]) -> Project {
        let files = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        Project { files, packages: Vec::new() }
    }

    /// A project of crates written as `name: dependency dependency`; a dependency is `[dev:|opt:]name[+feature…]`.
    pub(in crate::tidy) fn crates(lines: &[&str]) -> Project {
        let packages = lines.iter().map(|line| {
            let (name, dependencies) = line.split_once(':').expect("name: dependencies");
            let dependencies = dependencies.split_whitespace().map(dependency).collect();
            Package { name: name.to_owned(), dependencies }
        });
        Project { files: Vec::new(), packages: packages.collect() }
    }

    fn dependency(word: &str) -> Dependency {
        let kind = word.strip_prefix("dev:").map(|_rest| "dev".to_owned());
        let optional = word.starts_with("opt:");
        let mut parts = word.trim_start_matches("dev:").trim_start_matches("opt:").split('+').map(str::to_owned);
        let name = parts.next().expect("a name");
        Dependency { name, kind, optional, features: parts.collect() }
    }

    /// The findings as lines of text.
    pub(in crate::tidy) fn lines(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn production_is_what_is_shipped() {
        let is = |path: &str| Source::new(path, "").is_production();
        assert!(is("crates/engine/src/session/gap.rs"));
        assert!(!is("crates/engine/src/session/tests.rs"));
        assert!(!is("crates/server/tests/http.rs"));
        assert!(!is("crates/client/examples/till.rs"));
    }
}
