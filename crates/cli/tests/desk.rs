//! A manager's desk with real processes: rejected operations, goods between branches, exceptions, the journal of a till that is gone.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{Server, binary};

fn letters(server: &Server) -> Vec<Value> {
    let text = server.admin(&["device", "dead-letters", "list", "--merchant", "m1", "--json"]);
    serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().clone()
}

/// What a till shows of a product, once it shows this: the head follows a commit within a second.
fn shows(server: &Server, db: &std::path::Path, claim: Option<&str>, expect: &str) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut said = server.till(db, claim, "drain\nsync\ndead\nshow SKU-00001\nquit\n");
    while !said.contains(expect) {
        assert!(std::time::Instant::now() < deadline, "no {expect:?} in {said}");
        said = server.till(db, None, "drain\nsync\ndead\nshow SKU-00001\nquit\n");
    }
    said
}

#[test]
fn a_rejected_transfer_is_sent_again_once_whoever_does_it() {
    let server = Server::start();
    server.admin(&["trigger", "shop", "m1/b1"]);
    let (here, there) = (server.dir.path().join("here.db"), server.dir.path().join("there.db"));
    let claim = server.claim("m1/b1", "here");
    let sent = server.till(&here, Some(&claim), "sync\ntransfer SKU-00001 3 b2\ndrain\ndead\nquit\n");
    assert!(sent.contains("unknown_branch"), "{sent}");
    let open = letters(&server);
    assert_eq!((open.len(), &open[0]["device"], &open[0]["body"]["to_branch"]), (1, &"here".into(), &"b2".into()));
    let id = open[0]["id"].as_str().unwrap();
    let retry = ["device", "dead-letters", "retry", id, "--merchant", "m1"];
    let refused = server.try_admin(&retry);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unknown_branch"), "{refused:?}");

    server.admin(&["trigger", "shop", "m1/b2"]);
    let decided = server.admin(&retry);
    assert!(decided.contains("takes its place"), "{decided}");
    // The till has not heard of it, and its cashier tries, too.
    let by_hand = server.admin(&["device", "dead-letters", "retry", id, "--db", here.to_str().unwrap()]);
    assert!(by_hand.contains("it is sent when the till runs next"), "{by_hand}");
    let again = shows(&server, &here, None, "SKU-00001  97 ");
    assert!(again.contains("already_decided"), "{again}");
    assert!(letters(&server).is_empty());

    // The opening count over there is later than the transfer, which was done before the branch existed: it has seen the goods.
    let claim = server.claim("m1/b2", "there");
    shows(&server, &there, Some(&claim), "SKU-00001  100 ");
    assert!(server.admin(&["stock", "balance", "m1"]).contains("balanced"));
}

#[test]
fn goods_are_in_transit_until_the_other_branch_has_them() {
    let server = Server::start();
    for branch in ["m1/b1", "m1/b2"] {
        server.admin(&["trigger", "shop", branch]);
    }
    server.admin(&["stock", "arrival", "m1", "on-receipt"]);
    let (here, there) = (server.dir.path().join("here.db"), server.dir.path().join("there.db"));
    let claim = server.claim("m1/b1", "here");
    server.till(&here, Some(&claim), "sync\ntransfer SKU-00001 2.5 b2\nsell SKU-00002 150\ndrain\nquit\n");
    let claim = server.claim("m1/b2", "there");
    let before = server.till(&there, Some(&claim), "sync\nshow SKU-00001\nquit\n");
    assert!(before.contains("SKU-00001  100 "), "{before}");
    let under_way: Value = serde_json::from_str(&server.admin(&["stock", "transfers", "m1", "--json"])).unwrap();
    assert_eq!((under_way[0]["quantity"].as_str(), under_way[0]["to_branch"].as_str()), (Some("2.5"), Some("b2")));
    let id = under_way[0]["id"].as_str().unwrap();
    assert_eq!(server.try_admin(&["stock", "receive", "m1/b1", id]).status.code(), Some(1), "it goes to b2");
    assert!(server.admin(&["stock", "receive", "m1/b2", id]).contains("received"));
    shows(&server, &there, None, "SKU-00001  102.5 ");
    assert!(server.admin(&["stock", "balance", "m1"]).contains("balanced"));

    let oversells = server.admin(&["stock", "oversells", "m1"]);
    assert!(oversells.contains("SKU-00002") && oversells.contains("-50") && oversells.contains("here-000002"), "{oversells}");
    server.admin(&["stock", "settle", "m1", "1", "--note", "delivery was not booked"]);
    assert!(server.admin(&["stock", "oversells", "m1"]).contains("0 in all"));
}

#[test]
fn an_exported_journal_is_handed_in_once_and_only_then_is_the_till_wiped() {
    let server = Server::start();
    server.admin(&["trigger", "shop", "m1/b1"]);
    let (db, file) = (server.dir.path().join("till.db"), server.dir.path().join("journal.json"));
    let (db_name, file_name) = (db.to_str().unwrap(), file.to_str().unwrap());
    let claim = server.claim("m1/b1", "till");
    server.till(&db, Some(&claim), "sync\noffline\nsell SKU-00001 1\nsell SKU-00001 2\nquit\n");
    let wipe = || binary().args(["device", "wipe", "--db", db_name]).output().unwrap();
    let refused = wipe();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("2 operations are not sent"), "{refused:?}");
    let exported = server.admin(&["device", "export", "--db", db_name, "--out", file_name]);
    assert!(exported.contains("2 operations, 2 of them not sent"), "{exported}");
    for expect in ["2 accepted, 0 known already", "0 accepted, 2 known already"] {
        let handed_in = server.admin(&["device", "hand-in", file_name]);
        assert!(handed_in.contains(expect), "{handed_in}");
    }
    let own = shows(&server, &db, None, "SKU-00001  97 ");
    assert!(own.contains("everything is sent and answered"), "{own}");
    assert!(wipe().status.success());
    assert!(!db.exists());
    assert_eq!(wipe().status.code(), Some(2), "there is nothing to wipe");
}
