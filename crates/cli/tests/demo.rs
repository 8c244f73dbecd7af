//! The demo keeps its promises: calm, flaky, and with the server killed by SIGKILL in the middle of the traffic.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;

/// Runs a demo and gives its figures; fails unless nothing was lost, doubled or left different.
#[track_caller]
fn demo(args: &[&str]) -> Value {
    let output = support::binary().arg("demo").args(args).arg("--json").output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"));
    assert!(output.status.success(), "{figures:#}\n{stderr}");
    assert_eq!(figures["converged"], true);
    for none in ["lost", "doubled"] {
        assert_eq!(figures["operations"][none], 0, "{figures:#}");
    }
    let count = |name: &str| figures["operations"][name].as_u64().unwrap();
    assert!(count("sent") > 20, "something was sold: {figures:#}");
    assert_eq!(count("sent"), count("accepted") + count("rejected"), "{figures:#}");
    figures
}

#[test]
fn calm() {
    let figures = demo(&["--seconds", "8", "--devices", "6", "--branches", "2"]);
    assert_eq!((&figures["devices"], &figures["branches"]), (&6.into(), &2.into()));
    for key in ["rows", "commits", "frames", "latency_ms", "publish", "fallback_rate", "freshness", "bytes", "duration_s"] {
        assert!(!figures[key].is_null(), "{key} is missing: {figures:#}");
    }
    assert!(figures["publish"]["success_rate"].as_f64().unwrap() > 0.99);
}

#[test]
fn flaky() {
    demo(&["--seconds", "8", "--devices", "6", "--branches", "2", "--faults", "flaky", "--seed", "3"]);
}

#[test]
fn the_server_killed_in_the_middle() {
    demo(&["--seconds", "8", "--devices", "6", "--branches", "2", "--kill-server", "--seed", "5"]);
}

#[test]
fn a_receipt_log_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = String::from("seq,invoice_no,line_no,kind,stock_code,description,quantity,unit_price,occurred_at,country\n");
    for n in 0..600 {
        let (invoice, line) = (n / 4, n % 4);
        let (kind, units, sign) = if invoice % 20 == 19 { ("return", "-1", "C") } else { ("sale", "3", "") };
        log.push_str(&format!(
            "{n},{sign}{invoice},{line},{kind},P{},THING {line},{units},2.55,2010-12-01T{:02}:{:02}:00,UK\n",
            n % 90,
            8 + invoice / 60,
            invoice % 60
        ));
    }
    let path = dir.path().join("log.csv");
    std::fs::write(&path, log).unwrap();
    demo(&["--seconds", "8", "--devices", "4", "--branches", "2", "--speed", "1200", "--data", path.to_str().unwrap()]);
}
