//! What must hold for any bytes that reach a parser from outside: one function per parser, which panics when something does not.
//!
//! `cargo test` calls them with the golden files and seeded mutations of them, libFuzzer (`fuzz/`) with whatever it comes up with. They ask for
//! more than that nothing panics: what is written is read back as the same, limits hold, a refusal has a stable code and quotes no megabytes.
//!
//! Parsers that live inside other crates are taken in by path. They need nothing of their crate; so neither does its API grow for their sake,
//! nor do SQLite, TLS and a broker have to be built for a fuzzer.
#![allow(clippy::missing_panics_doc, reason = "a panic is how a finding is reported")]

mod answer;
mod corpus;
mod mutate;
mod names;
mod program;
mod secrets;
mod session;
mod wire;

#[allow(dead_code, unreachable_pub, unused_imports, reason = "most of it is for the command line")]
#[path = "../../cli/src/args/mod.rs"]
mod args;
#[allow(dead_code, unreachable_pub, reason = "of its server only the claim code's text matters here")]
#[path = "../../server/src/claim.rs"]
mod claim;
#[allow(dead_code, unreachable_pub, reason = "most of it is for the server")]
#[path = "../../server/src/http/credentials.rs"]
mod credentials;
#[allow(dead_code, unreachable_pub, reason = "most of it is for the demo")]
#[path = "../../cli/src/data/mod.rs"]
mod data;
#[allow(dead_code, unreachable_pub, reason = "most of it is for the command line")]
#[path = "../../cli/src/failure.rs"]
mod failure;
#[allow(dead_code, unreachable_pub, reason = "most of it is for the command line")]
#[path = "../../cli/src/settings.rs"]
mod settings;
#[allow(dead_code, unreachable_pub, reason = "most of it is for the client's database")]
#[path = "../../client/src/staged.rs"]
mod staged;
#[allow(dead_code, unreachable_pub, reason = "most of it is for the server")]
#[path = "../../server/src/tokens.rs"]
mod tokens;

pub use answer::answer;
pub use mutate::Mutator;
pub use names::{cursor, topic, value};
pub use program::{config_file, csv_log};
pub use secrets::{authorization, claim_code};
pub use session::session;
pub use wire::{enrolment, event, frame, head, operation, problem, report, row, upload};

/// One parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// What it is called, here and in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Panics when a property does not hold for these bytes.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every parser that takes bytes from outside.
pub const TARGETS: &[Target] = &[
    Target { name: "answer", run: answer, seeds: corpus::answers },
    Target { name: "authorization", run: authorization, seeds: corpus::authorizations },
    Target { name: "claim_code", run: claim_code, seeds: corpus::claim_codes },
    Target { name: "config_file", run: config_file, seeds: corpus::configs },
    Target { name: "csv_log", run: csv_log, seeds: corpus::csv_logs },
    Target { name: "cursor", run: cursor, seeds: corpus::cursors },
    Target { name: "enrolment", run: enrolment, seeds: || corpus::golden(&["enrolment"]) },
    Target { name: "event", run: event, seeds: || corpus::golden(&["event"]) },
    Target { name: "frame", run: frame, seeds: || corpus::golden(&["frame"]) },
    Target { name: "head", run: head, seeds: || corpus::golden(&["head"]) },
    Target { name: "operation", run: operation, seeds: || corpus::golden(&["operation"]) },
    Target { name: "problem", run: problem, seeds: || corpus::golden(&["problem"]) },
    Target { name: "report", run: report, seeds: || corpus::golden(&["report"]) },
    Target { name: "row", run: row, seeds: || corpus::golden(&["row"]) },
    Target { name: "session", run: session, seeds: corpus::scripts },
    Target { name: "topic", run: topic, seeds: || corpus::golden(&["topic"]) },
    Target { name: "upload", run: upload, seeds: || corpus::golden(&["upload"]) },
    Target { name: "value", run: value, seeds: || corpus::golden(&["quantity", "timestamp", "money"]) },
];
