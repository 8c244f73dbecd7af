//! An operator's tokens, a till's claim as a picture, a lost till and the audit log, with real processes.
#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::Value;
use support::{Server, binary};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Runs a command with the token in a file; its exit code.
fn with_token(server: &Server, file: &Path, args: &[&str]) -> Option<i32> {
    let output = binary().args(args).env("MSTORE_SERVER", server.http()).env("MSTORE_ADMIN_TOKEN_FILE", file).output().unwrap();
    output.status.code()
}

#[test]
fn tokens_are_made_rotated_and_revoked() {
    let server = Server::start();
    server.admin(&["trigger", "shop", "m1/b1"]);
    let file = server.dir.path().join("auditor.token");
    let path = file.to_str().unwrap();
    let made = server.admin(&["token", "add", "auditor", "--role", "read-only", "--expires", "90d", "--out", path]);
    assert!(made.contains("auditor") && !made.contains("msa_"), "{made}");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(with_token(&server, &file, &["device", "list"]), Some(0));
    assert_eq!(with_token(&server, &file, &["device", "add", "m1/b1"]), Some(2), "it only reads");
    let listed: Value = serde_json::from_str(&server.admin(&["token", "list", "--json"])).unwrap();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["auditor", "bootstrap"]);
    let old = fs::read_to_string(&file).unwrap();
    server.admin(&["token", "rotate", "auditor", "--out", path]);
    assert_ne!(fs::read_to_string(&file).unwrap(), old);
    assert_eq!(with_token(&server, &file, &["device", "list"]), Some(0));
    fs::write(&file, old).unwrap();
    assert_eq!(with_token(&server, &file, &["device", "list"]), Some(2), "the old one ended at the first use of the new one");
    server.admin(&["token", "revoke", "auditor"]);
    let desk = server.admin(&["token", "add", "desk", "--role", "merchant", "--merchant", "m1"]);
    assert!(desk.contains("msa_") && desk.contains("keep it now"), "{desk}");
    assert_eq!(server.try_admin(&["token", "add", "desk", "--role", "merchant"]).status.code(), Some(2));
    assert_eq!(server.try_admin(&["token", "revoke", "bootstrap"]).status.code(), Some(1), "somebody must be left");
}

#[test]
fn the_first_token_is_rotated_in_its_file() {
    let server = Server::start();
    let file = server.data_dir().join("admin.token");
    let old = fs::read_to_string(&file).unwrap();
    let said = server.admin(&["token", "rotate"]);
    assert!(said.contains("bootstrap") && !said.contains("msa_"), "{said}");
    assert_ne!(fs::read_to_string(&file).unwrap(), old);
    assert_eq!(mode(&file), 0o600);
    server.admin(&["token", "list"]);
    let kept = server.dir.path().join("old.token");
    fs::write(&kept, old).unwrap();
    assert_eq!(with_token(&server, &kept, &["token", "list"]), Some(2));
}

#[test]
fn a_till_enrols_from_the_text_of_a_picture() {
    let server = Server::start();
    server.admin(&["trigger", "shop", "m1/b1"]);
    let png = server.dir.path().join("claim.png");
    let shown = server.admin(&["device", "add", "m1/b1", "--id", "till-1", "--qr", "--png", png.to_str().unwrap(), "--json"]);
    let claim: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(&fs::read(&png).unwrap()[..8], b"\x89PNG\r\n\x1a\n");
    assert_eq!(mode(&png), 0o600);
    let text = claim["qr_text"].as_str().unwrap();
    assert!(
        text.starts_with("mstore://claim?server=http%3A%2F%2F127.0.0.1%3A") && text.ends_with(claim["code"].as_str().unwrap()),
        "{text}"
    );
    let said = server.till(&server.dir.path().join("till.db"), Some(text), "sync\nquit\n");
    assert!(said.contains("enrolled as till-1 of m1/b1"), "{said}");
    let drawn = server.admin(&["device", "add", "m1/b1", "--id", "till-2", "--qr"]);
    assert!(drawn.contains('█') && drawn.contains("claim code"), "{drawn}");
}

#[test]
fn a_lost_till_is_shut_out_and_its_journal_is_handed_in() {
    let server = Server::start();
    server.admin(&["trigger", "shop", "m1/b1"]);
    let db = server.dir.path().join("till.db");
    let claim = server.claim("m1/b1", "till-1");
    server.till(&db, Some(&claim), "sync\nsell SKU-00001\ndrain\noffline\nsell SKU-00001 2\nquit\n");
    let lost = server.admin(&["device", "lost", "till-1"]);
    assert!(lost.contains("everything up to number 1 may be here") && lost.contains("hand-in"), "{lost}");
    let blocked = server.till(&db, None, "sync\nstatus\nquit\n");
    assert!(blocked.contains("device_revoked"), "{blocked}");
    let file = server.dir.path().join("journal.json");
    server.admin(&["device", "export", "--db", db.to_str().unwrap(), "--out", file.to_str().unwrap()]);
    server.admin(&["device", "hand-in", file.to_str().unwrap()]);
    let acts: Value = serde_json::from_str(&server.admin(&["audit", "--device", "till-1", "--json"])).unwrap();
    let told: Vec<_> = acts.as_array().unwrap().iter().rev().map(|act| act["action"].as_str().unwrap()).collect();
    assert_eq!(told, ["device.claimed", "device.enrolled", "device.lost", "journal.handed_in"]);
    let shown = server.admin(&["audit", "--actor", "bootstrap", "--action", "device.lost", "--since", "1h"]);
    assert!(shown.contains("till-1") && shown.contains("127.0.0.1"), "{shown}");
    assert_eq!(server.try_admin(&["audit", "--since", "yesterday"]).status.code(), Some(2));
}
