//! Changes made with the `sqlite3` shell while the server runs reach a till like any other.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::Server;

fn sql(server: &Server, statement: &str) {
    let output = Command::new("sqlite3").args(["-cmd", ".timeout 10000"]).arg(server.database()).arg(statement).output().unwrap();
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_foreign_write_reaches_the_till() {
    if !support::have("sqlite3", "a_foreign_write_reaches_the_till") {
        return;
    }
    let server = Server::start();
    for branch in ["m1/b1", "m1/b2"] {
        server.admin(&["trigger", "shop", branch]);
    }
    let (one, two) = (server.dir.path().join("one.db"), server.dir.path().join("two.db"));
    let (first, second) = (server.claim("m1/b1", "one"), server.claim("m1/b2", "two"));
    assert!(server.till(&one, Some(&first), "sync\nshow SKU-00002\nquit\n").contains("100"));
    assert!(server.till(&two, Some(&second), "sync\nshow SKU-00002\nquit\n").contains("100"));

    sql(&server, "UPDATE branch_product SET stock_milli = 41500 WHERE merchant_id='m1' AND branch_id='b1' AND product_id='SKU-00002';");
    assert!(server.till(&one, None, "sync\nshow SKU-00002\nquit\n").contains("41.5"));

    // The catalogue belongs to the merchant: both branches see the new price.
    sql(&server, "UPDATE product SET price_amount = 7777700 WHERE merchant_id='m1' AND id='SKU-00002';");
    for db in [&one, &two] {
        let shown = server.till(db, None, "sync\nshow SKU-00002\nquit\n");
        assert!(shown.contains("77777.00"), "{shown}");
    }
    let verdict = server.try_admin(&["verify", "--db", one.to_str().unwrap(), "--db", two.to_str().unwrap()]);
    assert!(verdict.status.success(), "{}{}", String::from_utf8_lossy(&verdict.stdout), String::from_utf8_lossy(&verdict.stderr));
}
