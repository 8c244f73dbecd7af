//! Tables that nobody made for us, from a foreign writer's commit to what `/changes` answers.
#![allow(clippy::unwrap_used)]

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use mstore_protocol::{BranchKey, Timestamp};
use mstore_rig::{Database, Postgres, Program, have};
use mstore_store::{
    Admin as _, ChangeRow, ChangesAsk, Listing, RowSink, SyncStore as _,
    postgres::{
        PgConfig, PgStore,
        attach::{
            Attacher, ColumnName, Given,
            mapping::{Mapping, MerchantMapping, Window},
            propose,
        },
    },
};

/// How long anything may take here.
const LOOK_EVERY: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(30);

type Rows = BTreeMap<(String, String), String>;

#[derive(Default)]
struct Sink(Rows);

impl RowSink for Sink {
    fn row(&mut self, row: ChangeRow<'_>) {
        if let Some(text) = row.row {
            self.0.insert((row.collection.to_string(), row.id.into()), text.into());
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

async fn rows(store: &PgStore, branch: &str) -> Rows {
    let ask = ChangesAsk { key: BranchKey::parse("m1", branch).unwrap(), after: None, resume: None };
    match store.changes(ask, Box::new(Sink::default())).await {
        Ok((_, sink)) => sink.into_any().downcast::<Sink>().unwrap().0,
        Err(_no_such_branch_yet) => Rows::new(),
    }
}

/// The rows of a branch as soon as they are as expected. Whichever server sequences them, this one is asked again.
async fn until(store: &PgStore, branch: &str, is: impl Fn(&Rows) -> bool) -> Rows {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let rows = rows(store, branch).await;
        if is(&rows) {
            return rows;
        }
        let first = rows.iter().next();
        assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}; there are {} rows: {first:?}", rows.len());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn clock() -> mstore_store::sqlite::Clock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap())
    })
}

async fn proposed(attacher: &Attacher) -> Mapping {
    let merchant = MerchantMapping { id: "m1".into(), name: "Toko Satu".into(), currency: "USD".into() };
    propose(&attacher.look().await.unwrap(), &Given { merchant, branch: "main".into() }).mapping
}

async fn attach(database: &Database<'_>) -> Attacher {
    let mut attacher = Attacher::connect(&database.url()).await.unwrap();
    attacher.prepare().await.unwrap();
    let plan = attacher.plan(proposed(&attacher).await).await.unwrap();
    attacher.install(&plan, None, &mut |_| {}).await.unwrap();
    attacher
}

async fn open(database: &Database<'_>) -> Arc<PgStore> {
    PgStore::open(PgConfig::new(database.url(), clock())).await.unwrap()
}

fn text<'a>(rows: &'a Rows, collection: &str, id: &str) -> &'a str {
    rows.get(&(collection.to_owned(), id.to_owned())).map_or("", String::as_str)
}

#[tokio::test]
async fn northwind_reaches_the_answers_for_devices() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/schemas/northwind.sql");
    let Ok(schema) = std::fs::read_to_string(file) else { return };
    if !have(&[Program::Postgres]) {
        return;
    }
    let database = Postgres::shared().database("northwind");
    database.psql(&schema.replace("SET default_with_oids = false;", ""));
    attach(&database).await;
    let store = open(&database).await;
    let of = |rows: &Rows, name: &str| rows.keys().filter(|(collection, _)| collection == name).count();
    let first = until(&store, "main", |rows| of(rows, "order_details") == 2155 && of(rows, "product") == 77).await;
    assert!(text(&first, "product", "1").contains(r#""price":{"amount":1800,"currency":"USD"}"#), "{}", text(&first, "product", "1"));
    // In one transaction, by somebody else: together or not at all.
    database.psql(
        "BEGIN; UPDATE products SET unit_price = 18.4 WHERE product_id = 1; DELETE FROM order_details WHERE order_id = 10248; COMMIT",
    );
    let second = until(&store, "main", |rows| text(rows, "product", "1").contains("1840")).await;
    assert_eq!(of(&second, "order_details"), 2152);
    // A price that is no price: the row stays as it was, somebody is told, and the rest flows.
    database
        .psql("UPDATE products SET unit_price = 18.123 WHERE product_id = 1; UPDATE products SET units_in_stock = 5 WHERE product_id = 2");
    let third = until(&store, "main", |rows| text(rows, "product", "2").contains(r#""stock":"5""#)).await;
    assert!(text(&third, "product", "1").contains("1840"));
    let alarms = store.list(Listing::Alarms, None, 10).await.unwrap();
    assert!(
        alarms.items.iter().any(|alarm| alarm.to_string().contains("row_quarantined") && alarm.to_string().contains("18.123")),
        "{alarms:?}"
    );
    assert_eq!(sweep(&store).await, 1, "the quarantined row is the only one that differs");
    store.close().await.unwrap();
}

/// Rows that differ in a whole sweep.
async fn sweep(store: &PgStore) -> u64 {
    let (mut from, mut differing) = (None, 0);
    loop {
        let report = store.sweep(from, 1_000).await.unwrap();
        differing += report.differing;
        from = report.next;
        if from.is_none() {
            return differing;
        }
    }
}

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, branch_id text NOT NULL);
    CREATE TABLE lines (order_id int NOT NULL REFERENCES orders ON DELETE CASCADE, n int NOT NULL, qty numeric NOT NULL, PRIMARY KEY (order_id, n));
    INSERT INTO orders SELECT n, 'b' || n % 2 FROM generate_series(1, 10) n; INSERT INTO lines SELECT n, m, n FROM generate_series(1, 10) n, generate_series(1, 3) m";

#[tokio::test]
async fn rows_that_move_with_their_parents_leave_one_branch_and_reach_the_other() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let database = Postgres::shared().database("orders");
    database.psql(ORDERS);
    attach(&database).await;
    let store = open(&database).await;
    until(&store, "b0", |rows| rows.len() == 20).await;
    database.psql("UPDATE orders SET branch_id = 'new' WHERE id = 2");
    until(&store, "new", |rows| rows.len() == 4).await;
    until(&store, "b0", |rows| rows.len() == 16).await;
    database.psql("DELETE FROM orders WHERE id = 2");
    until(&store, "new", Rows::is_empty).await;
    assert_eq!(sweep(&store).await, 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn attaching_while_servers_run_is_seen_by_them() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let database = Postgres::shared().database("running");
    database.psql(ORDERS);
    let (one, two) = (open(&database).await, open(&database).await);
    let mut attacher = attach(&database).await;
    until(&one, "b0", |rows| rows.len() == 20).await;
    until(&two, "b1", |rows| rows.len() == 20).await;
    // A table that cannot be read stops its collection and nothing else.
    database.psql(
        "ALTER TABLE lines RENAME COLUMN qty TO quantity; UPDATE lines SET quantity = 99; UPDATE orders SET branch_id = 'b0' WHERE id = 1",
    );
    let still = until(&one, "b0", |rows| !text(rows, "orders", "1").is_empty()).await;
    assert_eq!(text(&still, "lines", "2:1"), r#"{"id":"2:1","n":1,"order_id":2,"qty":"2"}"#, "devices keep what they have");
    database.psql("ALTER TABLE lines RENAME COLUMN quantity TO qty");
    until(&one, "b0", |rows| text(rows, "lines", "2:1").contains(r#""qty":"99""#) && !text(rows, "lines", "1:1").is_empty()).await;
    // Detached: nothing is taken from the devices.
    for name in attacher.attached().await.unwrap() {
        attacher.detach(&name).await.unwrap();
    }
    database.psql("DELETE FROM orders");
    assert_eq!((sweep(&one).await, sweep(&two).await), (0, 0));
    assert_eq!(rows(&one, "b0").await.len(), 24);
    one.close().await.unwrap();
    two.close().await.unwrap();
}

const TIMED: &str = "CREATE TABLE orders (id int PRIMARY KEY, branch_id text NOT NULL, made_at timestamp NOT NULL, closed_at timestamptz);
    CREATE TABLE lines (order_id int NOT NULL REFERENCES orders ON DELETE CASCADE, n int NOT NULL, PRIMARY KEY (order_id, n));
    INSERT INTO orders SELECT n, 'b', now() AT TIME ZONE 'Asia/Jakarta' - make_interval(days => n) + interval '1 hour', now() - make_interval(days => n) FROM generate_series(1, 150) n;
    UPDATE orders SET closed_at = NULL WHERE id = 100; INSERT INTO lines SELECT n, 1 FROM generate_series(1, 150) n";

/// The rows of `orders` and of `lines`.
fn counts(rows: &Rows) -> (usize, usize) {
    let of = |name: &str| rows.keys().filter(|(collection, _)| collection == name).count();
    (of("orders"), of("lines"))
}

#[tokio::test]
async fn rows_of_an_attached_table_leave_their_window() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let database = Postgres::shared().database("window");
    database.psql(TIMED);
    let mut attacher = Attacher::connect(&database.url()).await.unwrap();
    attacher.prepare().await.unwrap();
    let mut mapping = proposed(&attacher).await;
    let window = |column: ColumnName, days: u32, zone: Option<&str>| Some(Window { column, days, zone: zone.map(str::to_owned) });
    let mut install = async |attacher: &mut Attacher, lines: Option<Window>, orders: Option<Window>| {
        for collection in &mut mapping.collections {
            collection.window = if collection.name == "lines" { lines.clone() } else { orders.clone() };
        }
        let plan = attacher.plan(mapping.clone()).await.unwrap();
        attacher.install(&plan, None, &mut |_| {}).await.unwrap();
    };
    // A line is as old as its order; an order that is not closed stays, however old.
    let of_orders = ColumnName::joined("orders", "made_at");
    install(&mut attacher, window(of_orders.clone(), 20, Some("Asia/Jakarta")), window(ColumnName::own("closed_at"), 10, None)).await;
    let ahead = Arc::new(AtomicI64::new(0));
    let clock = {
        let ahead = Arc::clone(&ahead);
        Arc::new(move || clock()().plus_ms(ahead.load(Ordering::SeqCst)))
    };
    let store = PgStore::open(PgConfig::new(database.url(), clock)).await.unwrap();
    until(&store, "b", |rows| counts(rows) == (10, 20)).await;
    // Time passes, and nobody writes; far more leaves at once than a deletion might.
    ahead.store(5 * 24 * 3_600_000, Ordering::SeqCst);
    store.upkeep().await.unwrap();
    assert_eq!(counts(&rows(&store, "b").await), (5, 15));
    assert_eq!(sweep(&store).await, 0, "what is too old is no difference");
    // Longer, and none at all: what is young enough comes back.
    install(&mut attacher, window(of_orders, 140, Some("Asia/Jakarta")), None).await;
    until(&store, "b", |rows| counts(rows) == (150, 140)).await;
    install(&mut attacher, window(ColumnName::joined("orders", "closed_at"), 3, None), None).await;
    until(&store, "b", |rows| counts(rows) == (150, 3)).await;
    let refused = |column: ColumnName, days: u32| {
        let mut wrong = mapping.clone();
        wrong.collections.iter_mut().for_each(|collection| collection.window = window(column.clone(), days, None));
        wrong
    };
    for wrong in [refused(ColumnName::own("id"), 7), refused(ColumnName::own("nowhere"), 7), refused(ColumnName::own("made_at"), 0)] {
        assert!(attacher.plan(wrong).await.is_err());
    }
    store.close().await.unwrap();
}

const ITEMS: &str = "CREATE TABLE items (id text PRIMARY KEY, branch_id text NOT NULL, name text NOT NULL);
    INSERT INTO items SELECT 'i' || n, 'b', 'item ' || n FROM generate_series(1, 40) n";

async fn alarms(store: &PgStore, kind: &str) -> usize {
    let alarms = store.list(Listing::Alarms, None, 100).await.unwrap().items;
    alarms.iter().filter(|alarm| alarm["kind"] == kind && alarm["cleared_at"].is_null()).count()
}

async fn until_alarms(store: &PgStore, kind: &str, are: usize) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while alarms(store, kind).await != are {
        assert!(tokio::time::Instant::now() < deadline, "not {are} alarms {kind} within {PATIENCE:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[tokio::test]
async fn rows_that_a_policy_begins_to_hide_stay_on_devices() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let database = Postgres::shared().database("policy");
    database.psql(ITEMS);
    attach(&database).await;
    let store = open(&database).await;
    until(&store, "b", |rows| rows.len() == 40).await;
    database.psql(
        "BEGIN; ALTER TABLE items ENABLE ROW LEVEL SECURITY; ALTER TABLE items FORCE ROW LEVEL SECURITY;
         CREATE POLICY few ON items USING (id < 'i2'); UPDATE items SET name = 'changed' WHERE id = 'i1'; COMMIT",
    );
    until_alarms(&store, "attached_table_changed", 1).await;
    assert_eq!(sweep(&store).await, 0, "what cannot be read differs from nothing");
    assert_eq!(text(&rows(&store, "b").await, "items", "i3"), r#"{"branch_id":"b","id":"i3","id_value":"i3","name":"item 3"}"#);
    database.psql("ALTER TABLE items DISABLE ROW LEVEL SECURITY");
    until(&store, "b", |rows| rows.len() == 40 && text(rows, "items", "i1").contains("changed")).await;
    until_alarms(&store, "attached_table_changed", 0).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_table_that_takes_the_place_of_another_is_what_devices_have() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let database = Postgres::shared().database("swap");
    database.psql(ITEMS);
    attach(&database).await;
    let store = open(&database).await;
    until(&store, "b", |rows| rows.len() == 40).await;
    // As those do who load a table anew beside the old one.
    database.psql(
        "CREATE TABLE fresh (LIKE items INCLUDING ALL); INSERT INTO fresh SELECT id, branch_id, upper(name) FROM items WHERE id <> 'i7';
         BEGIN; ALTER TABLE items RENAME TO old; ALTER TABLE fresh RENAME TO items; COMMIT",
    );
    until(&store, "b", |rows| rows.len() == 39 && text(rows, "items", "i1").contains("ITEM 1")).await;
    database.psql("UPDATE items SET name = 'written after' WHERE id = 'i2'; UPDATE old SET name = 'nobody reads this'; DELETE FROM old WHERE id = 'i9'");
    let rows = until(&store, "b", |rows| text(rows, "items", "i2").contains("written after")).await;
    assert_eq!(rows.len(), 39);
    assert!(!rows.values().any(|row| row.contains("nobody")), "{rows:?}");
    assert_eq!(sweep(&store).await, 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_widest_table_that_there_can_be_is_attached() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let database = Postgres::shared().database("wide");
    let columns: String = (1..WIDE).map(|n| format!(", c{n} smallint NOT NULL DEFAULT {n}")).collect();
    database.psql(&format!("CREATE TABLE wide (id int PRIMARY KEY{columns}); INSERT INTO wide SELECT n FROM generate_series(1, 20) n"));
    attach(&database).await;
    let store = open(&database).await;
    let first = until(&store, "main", |rows| rows.len() == 20).await;
    let row: serde_json::Value = serde_json::from_str(text(&first, "wide", "20")).unwrap();
    assert_eq!(
        (row.as_object().unwrap().len(), &row["c1"], &row["c1589"]),
        (WIDE + 1, &1.into(), &1589.into()),
        "its id is there as a number, too"
    );
    database.psql("UPDATE wide SET c1589 = 7 WHERE id = 20");
    until(&store, "main", |rows| text(rows, "wide", "20").contains(r#""c1589":7,"#)).await;
    assert_eq!(sweep(&store).await, 0);
    store.close().await.unwrap();
}

/// PostgreSQL allows 1,600 columns, and 1,664 in an answer.
const WIDE: usize = 1_590;
