//! A till that moves to another branch with unsent work: the work reaches the old branch, the till the new one.
#![allow(clippy::unwrap_used)]

mod support;

use support::Server;

#[test]
fn unsent_sales_of_a_moved_till_reach_its_old_branch() {
    let server = Server::start();
    for branch in ["m1/b1", "m1/b2"] {
        server.admin(&["trigger", "shop", branch]);
    }
    let (moving, staying) = (server.dir.path().join("moving.db"), server.dir.path().join("staying.db"));
    let claim = server.claim("m1/b1", "moving");
    let sold = server.till(&moving, Some(&claim), "sync\noffline\nsell SKU-00001 3\nstatus\nquit\n");
    assert!(sold.contains("sold 3 of SKU-00001") && sold.contains("queue 1"), "{sold}");

    server.admin(&["device", "move", "moving", "b2"]);
    let claim = server.claim("m1/b2", "moving");
    let moved = server.till(&moving, Some(&claim), "sync\nshow SKU-00001\nquit\n");
    assert!(moved.contains("sending what was done at the old branch first"), "{moved}");
    assert!(moved.contains("enrolled as moving of m1/b2") && moved.contains("SKU-00001  100 "), "{moved}");

    let claim = server.claim("m1/b1", "staying");
    let stock = server.till(&staying, Some(&claim), "sync\nshow SKU-00001\nquit\n");
    assert!(stock.contains("SKU-00001  97 "), "{stock}");
}

#[test]
fn a_till_is_moved_by_device_move_and_by_nothing_else() {
    let server = Server::start();
    for branch in ["m1/b1", "m1/b2", "m2/b1"] {
        server.admin(&["trigger", "shop", branch]);
    }
    server.token("m1/b1", "till");
    let said = |args: &[&str], exit: i32| {
        let output = server.try_admin(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {said}");
        said
    };
    let refused = said(&["device", "add", "m1/b2", "--id", "till"], 1);
    assert!(refused.contains("device_active") && refused.contains("m1/b1") && refused.contains("mstore-sync device move"), "{refused}");
    let refused = said(&["device", "move", "till", "m2/b1"], 1);
    assert!(refused.contains("belongs to merchant m1"), "{refused}");
    said(&["device", "move", "till", "b/2/x"], 2);
    said(&["device", "move", "till", "m1/b2"], 0);
    said(&["device", "move", "till", "b1"], 0);
    said(&["device", "revoke", "till"], 0);
    let list = server.admin(&["device", "list"]);
    let row = list.lines().find(|line| line.starts_with("till ")).unwrap_or_else(|| panic!("{list}"));
    assert_eq!(row.matches("revoked").count(), 2, "status and state: {row}");
}

#[test]
fn a_revoked_till_is_let_in_again_by_a_new_claim() {
    let server = Server::start();
    server.admin(&["trigger", "shop", "m1/b1"]);
    let db = server.dir.path().join("till.db");
    let claim = server.claim("m1/b1", "till");
    server.till(&db, Some(&claim), "sync\noffline\nsell SKU-00002 4\nquit\n");
    server.admin(&["device", "revoke", "till"]);
    let claim = server.claim("m1/b1", "till");
    let back = server.till(&db, Some(&claim), "drain\nsync\nshow SKU-00002\nquit\n");
    assert!(back.contains("everything is sent and answered") && back.contains("SKU-00002  96 "), "{back}");
}
