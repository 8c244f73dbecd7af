//! `attach` and `detach` as somebody runs them: what is written, asked, refused and left behind.
#![allow(clippy::unwrap_used)]

mod support;

use std::{path::Path, process::Output};

use mstore_rig::{Database, Postgres, Program, have};
use support::binary;

const SHOP: &str = "CREATE TABLE products (id serial PRIMARY KEY, name text NOT NULL, price real, stock smallint, photo bytea);
    CREATE TABLE customers (id serial PRIMARY KEY, name text, email text);
    CREATE TABLE log (line text);
    INSERT INTO products (name, price, stock) VALUES ('Chai', 18, 39), ('Chang', 19, 17)";

fn run(directory: &Path, args: &[&str]) -> Output {
    binary().args(args).current_dir(directory).output().unwrap()
}

#[track_caller]
fn check(directory: &Path, args: &[&str], exit: i32, says: &[&str]) -> String {
    let output = run(directory, args);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {text}");
    for part in says {
        assert!(text.contains(part), "{args:?} does not say {part:?}: {text}");
    }
    text
}

/// Triggers on the tables of the shop.
fn triggers(database: &Database<'_>) -> String {
    database.psql("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN ('products'::regclass, 'customers'::regclass)")
}

#[test]
fn a_database_is_looked_at_attached_and_left() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let database = Postgres::shared().database("command");
    database.psql(SHOP);
    let before = database.dump();
    let directory = tempfile::tempdir().unwrap();
    let (here, url) = (directory.path(), database.url());
    let attach = |more: &[&'static str]| [&["attach", "--database", url.as_str(), "--merchant", "m1"], more].concat();

    check(here, &attach(&["--yes"]), 2, &["--currency"]);
    check(
        here,
        &attach(&["--currency", "IDR", "--dry-run"]),
        0,
        &["product", "public.products", "not enabled", "public.log: no primary key", "attach.toml"],
    );
    assert_eq!(triggers(&database), "0");
    assert_eq!(database.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'mstore'"), "0", "looking changes nothing");
    let file = here.join("attach.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    for line in [
        r#"currency = "IDR""#,
        r#"price = { column = "price", as = "money" }"#,
        "# photo: not sent: bytes are not sent",
        "# public.customers",
        "enabled = false",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }

    // Without a terminal nobody can be asked.
    check(here, &attach(&[]), 2, &["nothing was changed", "--yes"]);
    std::fs::write(&file, text.replace("as = \"money\"", "as = \"mony\"")).unwrap();
    check(here, &attach(&["--yes"]), 2, &["attach.toml", "line ", "did you mean \"money\"?", "attach_mapping_invalid", "next: "]);
    std::fs::write(&file, text.replace("branch =", "brnch =")).unwrap();
    check(here, &attach(&["--yes"]), 2, &["line ", "brnch", "did you mean \"branch\"?", "attach_mapping_invalid"]);
    std::fs::write(&file, text.replace("column = \"price\"", "column = \"prise\"")).unwrap();
    check(here, &attach(&["--yes"]), 2, &["attach_mapping_invalid", "did you mean \"price\"?"]);
    std::fs::write(&file, &text).unwrap();
    check(
        here,
        &attach(&["--yes", "--print-sql"]),
        0,
        &["CREATE TRIGGER", "ENABLE ALWAYS", "SECURITY DEFINER", "attached: product", "mstore-sync serve"],
    );
    assert_eq!(triggers(&database), "4");
    assert_eq!(database.psql("SELECT count(*) FROM mstore.mark WHERE collection = 'product'"), "2");
    let inbox = || database.psql("SELECT value FROM mstore.setting WHERE name = 'operation_inbox'");
    assert_eq!(inbox(), "on", "nobody has said otherwise");
    check(here, &attach(&["--yes", "--operation-inbox", "off"]), 0, &["the inbox is off"]);
    check(here, &attach(&["--yes"]), 0, &["attached: product", "the inbox is off"]);
    assert_eq!((triggers(&database), inbox()), ("4".into(), "off".into()), "again is no harm, and changes no mind");
    check(here, &attach(&["--yes", "--operation-inbox", "on"]), 0, &["mstore.operation_inbox"]);

    let detach = |more: &[&'static str]| [&["detach", "--database", url.as_str()], more].concat();
    check(here, &detach(&["prodct", "--yes"]), 2, &["prodct is not attached", "product"]);
    check(here, &detach(&["--yes", "--purge"]), 0, &["detached: product (4 triggers removed)", "the schema mstore is gone"]);
    assert_eq!(triggers(&database), "0");
    assert_eq!(database.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'mstore'"), "0");
    check(here, &detach(&["--yes"]), 0, &[]);
    assert_eq!(database.dump(), before, "no trace");
}

#[test]
fn a_database_that_is_not_there_is_3_and_one_that_is_none_2() {
    let directory = tempfile::tempdir().unwrap();
    check(directory.path(), &["attach", "--database", "postgres://nobody@127.0.0.1:9/none"], 3, &["unavailable"]);
    check(directory.path(), &["attach", "--database", "mysql://x"], 2, &["postgres://"]);
}
