//! The crates that decide do so from their arguments alone: no IO, no clock, no chance, no order that differs per run.

use super::code;
use super::paths::std_paths;
use super::project::{Finding, Project, Source};

/// The sources that must be pure.
const PURE: &[&str] = &["crates/protocol/src/", "crates/engine/src/"];
/// Only decisions must not depend on a map's order; the wire types may use one.
const ORDERED: &[&str] = &["crates/engine/src/"];

/// One thing that pure code must not name.
struct Ban {
    /// A path into `std` or one word.
    name: &'static str,
    within: &'static [&'static str],
    instead: &'static str,
}

const BANS: &[Ban] = &[
    Ban { name: "std::net::TcpListener", within: PURE, instead: "the driver talks to the network; effects ask it to" },
    Ban { name: "std::net::TcpStream", within: PURE, instead: "the driver talks to the network; effects ask it to" },
    Ban { name: "std::net::UdpSocket", within: PURE, instead: "the driver talks to the network; effects ask it to" },
    Ban { name: "std::net::ToSocketAddrs", within: PURE, instead: "the driver talks to the network; effects ask it to" },
    Ban { name: "std::fs", within: PURE, instead: "the driver keeps files; effects ask it to" },
    Ban { name: "std::io", within: PURE, instead: "take and give bytes or text" },
    Ban { name: "std::env", within: PURE, instead: "configuration is passed in" },
    Ban { name: "std::process", within: PURE, instead: "return a value or an error" },
    Ban { name: "std::thread", within: PURE, instead: "the driver owns threads" },
    Ban { name: "std::time::Instant", within: PURE, instead: "time is an argument" },
    Ban { name: "std::time::SystemTime", within: PURE, instead: "time is an argument" },
    Ban { name: "now_v7", within: PURE, instead: "ids are made by the caller and passed in" },
    Ban { name: "new_v4", within: PURE, instead: "ids are made by the caller and passed in" },
    Ban { name: "tokio", within: PURE, instead: "the driver waits; decisions do not" },
    Ban { name: "rand", within: PURE, instead: "chance is an argument: a seed or a drawn number" },
    Ban { name: "HashMap", within: ORDERED, instead: "BTreeMap: its order is the same in every run" },
    Ban { name: "HashSet", within: ORDERED, instead: "BTreeSet: its order is the same in every run" },
];

/// Places in the pure crates, tests aside, that name what only a driver may.
pub(super) fn impurities(project: &Project) -> Vec<Finding> {
    project.production().flat_map(impurities_of).collect()
}

fn impurities_of(file: &Source) -> Vec<Finding> {
    let bans: Vec<&Ban> = BANS.iter().filter(|ban| ban.within.iter().any(|within| file.path.starts_with(within))).collect();
    if bans.is_empty() {
        return Vec::new();
    }
    let code = code::without_tests(&file.code);
    let mut named = std_paths(&code);
    named.extend(code::words(&code).map(|(at, word)| (at, word.to_owned())));
    named.extend(clock_calls(&code));
    let mut findings = Vec::new();
    for (at, name) in named {
        let line = code::line_of(&code, at);
        if name == CLOCK_CALL {
            findings.push(Finding::at(&file.path, line, "a call of `now` reads a clock: time is an argument"));
        }
        for ban in bans.iter().filter(|ban| is_within(&name, ban.name)) {
            findings.push(Finding::at(&file.path, line, format!("`{name}`: {}", ban.instead)));
        }
    }
    findings
}

const CLOCK_CALL: &str = "::now(";

/// `Timestamp::now()` of any library: a clock behind another name.
fn clock_calls(code: &str) -> impl Iterator<Item = (usize, String)> {
    code.match_indices(CLOCK_CALL).map(|(at, call)| (at, call.to_owned()))
}

fn is_within(name: &str, ban: &str) -> bool {
    name.strip_prefix(ban).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::super::project::examples::{files, lines};
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        lines(&impurities(&files(&[(path, text)])))
    }

    #[test]
    fn every_ban_is_found() {
        for ban in BANS {
            let found = check("crates/engine/src/a.rs", &format!("//! a\nfn f() {{ {}; }}", ban.name));
            assert_eq!(found.len(), 1, "{}: {found:?}", ban.name);
            assert!(found[0].starts_with("crates/engine/src/a.rs:2: "), "{found:?}");
        }
    }

    #[test]
    fn grouped_imports_and_foreign_clocks_are_found() {
        assert_eq!(check("crates/protocol/src/a.rs", "use std::{fmt, time::{Duration, Instant}};").len(), 1);
        assert_eq!(check("crates/protocol/src/a.rs", "let t = jiff::Timestamp::now();").len(), 1);
    }

    #[test]
    fn what_is_allowed_is_not_found() {
        for text in [
            "use std::time::Duration; use std::fmt; fn f(now: Time) { g(now) }",
            "//! no tokio here, no std::fs\nlet operand = \"rand\";",
            "#[cfg(test)]\nmod tests { use std::fs; use std::collections::HashMap; }",
        ] {
            assert!(check("crates/engine/src/a.rs", text).is_empty(), "{text}");
        }
        assert!(check("crates/protocol/src/a.rs", "use std::collections::HashMap;").is_empty());
        assert!(check("crates/store/src/a.rs", "use std::fs;").is_empty());
        assert!(check("crates/engine/tests/a.rs", "use std::fs;").is_empty());
    }
}
