//! Records what a session answers to random but possible histories: `golden/session/`, which every engine in another language replays step by step.
//!
//! `BLESS=1` writes the files anew; without it a session that answers otherwise than the files say fails here, before it fails a till in a browser.
#![allow(clippy::unwrap_used, missing_docs)]

mod trace;

use std::{fs, path::PathBuf};

use trace::{Chance, History};

/// Histories on file, and inputs in each before its good end.
const HISTORIES: u64 = 24;
const INPUTS: usize = 90;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/session")
}

fn record(seed: u64) -> String {
    let mut chance = Chance::new(seed);
    let mut history = History::new(seed, &mut chance);
    for _ in 0..INPUTS {
        history.step(&mut chance);
    }
    history.recover();
    history.into_text()
}

/// Whatever the order of their fields.
fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_traces_on_file_are_what_the_session_says() {
    for seed in 0..HISTORIES {
        let path = directory().join(format!("{seed:02}.ndjson"));
        let now = record(seed);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, now).unwrap();
            continue;
        }
        let (before, now) = (lines(&fs::read_to_string(&path).unwrap_or_default()), lines(&now));
        let differs = before.iter().zip(&now).position(|(held, new)| held != new).map(|n| n + 1);
        assert!(before == now, "{} is not what the session does now, from line {differs:?} on; BLESS=1 writes it anew", path.display());
    }
}

#[test]
fn the_traces_reach_every_kind_of_effect_and_state() {
    let all: String = (0..HISTORIES).map(record).collect();
    let effects = [
        "connect",
        "subscribe",
        "catch_up",
        "fetch_head",
        "apply",
        "show",
        "drop_staged",
        "adopt",
        "renumber",
        "recount",
        "fetch_sub_digests",
        "fetch_rows",
        "replace_ranges",
        "upload",
        "settle",
        "requeue",
    ];
    for effect in effects {
        assert!(all.contains(&format!(r#""do":"{effect}""#)), "no history asks for {effect}");
    }
    for state in ["starting", "catching_up", "live", "polling", "offline", "needs_snapshot", "blocked:"] {
        assert!(all.contains(&format!(r#""state":"{state}"#)), "no history is ever {state}");
    }
    for reason in ["first", "returned", "gap", "head_ahead", "pull", "poll", "renumbered", "repair", "requested"] {
        assert!(all.contains(&format!(r#""reason":"{reason}""#)), "nothing is asked because of {reason}");
    }
}
