//! Many live tills whose broker is killed under them come back without a crowd at the door: what counts here are requests, not seconds.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;

const TILLS: u64 = 500;

#[test]
fn tills_come_back_to_a_broker_that_was_killed_and_ask_for_what_they_missed_alone() {
    let devices = TILLS.to_string();
    let output = support::binary()
        .args(["bench", "reconnect", "--branches", "10", "--rows", "20", "--json", "--devices", &devices])
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"));
    let figures = &report["figures"];
    assert_eq!(figures["snapshots"], 0, "{figures:#}");
    let asked = figures["requests"].as_object().unwrap();
    let of = |route: &str| asked.iter().filter(|(what, _)| what.contains(route)).map(|(_, count)| count.as_u64().unwrap()).sum::<u64>();
    let changes = of("/changes ");
    // One commit was made while they were away: most must ask for it, some twice, because the first try found nobody there.
    assert!((1..=2 * TILLS).contains(&changes), "{figures:#}");
    assert_eq!(of("/rows ") + of("/digests "), 0, "nothing had to be repaired: {figures:#}");
    assert_eq!(asked.keys().filter(|what| what.ends_with(" 410") || what.ends_with(" 429")).count(), 0, "{figures:#}");
    let shown = figures["changes_http"].as_u64().unwrap() + figures["changes_mqtt"].as_u64().unwrap();
    assert_eq!(shown, TILLS, "one change on each: {figures:#}");
}
