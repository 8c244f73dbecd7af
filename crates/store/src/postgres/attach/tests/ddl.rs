//! What is done to tables after they were attached, and what is left of us when they are detached.

use super::*;
use crate::postgres::attach::{mapping::NewColumns, sweep, watch};

const SCHEMA: &str = "CREATE TABLE items (id int PRIMARY KEY, branch_id text NOT NULL, name text NOT NULL, qty numeric NOT NULL DEFAULT 0);
    INSERT INTO items SELECT n, 'b' || n % 2, 'item ' || n, n FROM generate_series(1, 10) n";
const CHANGED: &str = "SELECT count(*) FROM mstore.alarm WHERE kind = 'attached_table_changed' AND cleared_at IS NULL";

impl Foreign {
    /// What looking at the catalogue comes to: why the collection is stopped.
    async fn tend(&mut self) -> Option<String> {
        watch::tend(&mut self.attacher.client).await.unwrap();
        let attached = Attached::load(self.client()).await.unwrap();
        attached.collection("items").unwrap().stopped.clone()
    }

    /// Rows that a whole sweep finds different.
    async fn sweep(&self) -> (u64, u64) {
        let attached = Attached::load(self.client()).await.unwrap();
        let (mut at, mut compared, mut differing) = (None, 0, 0);
        loop {
            let swept = sweep::slice(self.client(), &attached, &PersonalData::default(), at, 3).await.unwrap();
            (compared, differing) = (compared + swept.compared, differing + swept.differing);
            let Some(next) = swept.next else { return (compared, differing) };
            let text = next.to_string();
            at = Some(sweep::Position::parse(&text).unwrap());
        }
    }
}

async fn items() -> Option<Foreign> {
    let mut foreign = foreign("ddl", SCHEMA).await?;
    foreign.attach().await;
    assert_eq!(tally(&foreign.sequence().await, "items"), (10, vec![]));
    Some(foreign)
}

#[tokio::test]
async fn a_column_that_is_used_and_goes_stops_the_collection_until_it_is_back() {
    let Some(mut foreign) = items().await else { return };
    foreign.write("ALTER TABLE items RENAME COLUMN name TO title; UPDATE items SET qty = 5 WHERE id = 1");
    let why = foreign.tend().await.unwrap();
    assert!(why.contains("no column name"), "{why}");
    assert_eq!(foreign.count(CHANGED).await, 1);
    assert!(foreign.tend().await.is_some());
    assert_eq!(foreign.count(CHANGED).await, 1, "once");
    foreign.write("ALTER TABLE items RENAME COLUMN title TO name");
    assert_eq!(foreign.tend().await, None);
    assert_eq!(foreign.count(CHANGED).await, 0);
    let after = foreign.sequence().await;
    assert_eq!(tally(&after, "items").0, 10, "everything is looked at again");
    assert_eq!(row(&after, "b1", "items", "1")["qty"], "5");
}

#[tokio::test]
async fn a_column_that_is_added_is_ignored_or_sent() {
    let Some(mut foreign) = items().await else { return };
    foreign.write("ALTER TABLE items ADD COLUMN colour text NOT NULL DEFAULT 'red'");
    assert_eq!(foreign.tend().await, None);
    assert_eq!(row(&foreign.sequence().await, "b1", "items", "1").get("colour"), None);
    let mut mapping = foreign.propose().await.mapping;
    mapping.collections[0].fields.remove("colour");
    mapping.collections[0].new_columns = NewColumns::Send;
    foreign.install(mapping).await;
    foreign.sequence().await;
    foreign.write("ALTER TABLE items ADD COLUMN shade text NOT NULL DEFAULT 'dark'");
    assert_eq!(foreign.tend().await, None);
    assert_eq!(row(&foreign.sequence().await, "b1", "items", "1")["shade"], "dark");
}

#[tokio::test]
async fn a_table_swapped_by_renaming_is_captured_again() {
    let Some(mut foreign) = items().await else { return };
    foreign.write(
        "CREATE TABLE fresh (LIKE items INCLUDING ALL); INSERT INTO fresh SELECT * FROM items WHERE id < 10;
        ALTER TABLE items RENAME TO old; ALTER TABLE fresh RENAME TO items",
    );
    assert_eq!(foreign.tend().await, None);
    let after = foreign.sequence().await;
    assert_eq!(after[&("b0".into(), "items".into(), "10".into())], SourceRow::Gone);
    foreign.write("UPDATE items SET qty = 99 WHERE id = 1; UPDATE old SET qty = 98 WHERE id = 2");
    assert_eq!(marked(&foreign.sequence().await), ["+b1 items 1"], "the old table is no longer ours");
}

#[tokio::test]
async fn a_table_that_is_gone_deletes_nothing() {
    let Some(mut foreign) = items().await else { return };
    foreign.write("DROP TABLE items");
    assert!(foreign.tend().await.unwrap().contains("was dropped"));
    assert_eq!(foreign.sweep().await, (0, 0));
    assert_eq!(foreign.count("SELECT count(*) FROM mstore.mark").await, 0);
    assert_eq!(foreign.count("SELECT count(*) FROM mstore.mirror WHERE row IS NOT NULL").await, 10);
}

#[tokio::test]
async fn triggers_that_are_switched_off_come_back_and_the_sweep_finds_what_they_missed() {
    let Some(mut foreign) = items().await else { return };
    assert_eq!(foreign.sweep().await, (20, 0));
    foreign.write("ALTER TABLE items DISABLE TRIGGER ALL; UPDATE items SET qty = 7 WHERE id = 3; DELETE FROM items WHERE id = 4; INSERT INTO items VALUES (11, 'b1', 'new', 1)");
    assert_eq!(foreign.count("SELECT count(*) FROM mstore.mark").await, 0);
    assert_eq!(foreign.sweep().await.1, 3);
    assert_eq!(marked(&foreign.sequence().await), ["-b0 items 4", "+b1 items 11", "+b1 items 3"]);
    assert_eq!(foreign.tend().await, None);
    foreign.sequence().await;
    foreign.write("UPDATE items SET qty = 8 WHERE id = 3");
    assert_eq!(marked(&foreign.sequence().await), ["+b1 items 3"]);
}

#[tokio::test]
async fn a_partition_that_is_added_later_is_captured() {
    let schema = "CREATE TABLE items (id int NOT NULL, branch_id text NOT NULL, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (100); INSERT INTO items VALUES (1, 'b1')";
    let Some(mut foreign) = foreign("parts", schema).await else { return };
    foreign.attach().await;
    foreign.sequence().await;
    foreign.write("CREATE TABLE items_2 PARTITION OF items FOR VALUES FROM (100) TO (200); INSERT INTO items_2 VALUES (101, 'b1')");
    assert_eq!(foreign.tend().await, None);
    assert!(marked(&foreign.sequence().await).contains(&"+b1 items 101".into()));
    foreign.write("INSERT INTO items_2 VALUES (102, 'b1')");
    assert_eq!(marked(&foreign.sequence().await), ["+b1 items 102"]);
}

/// Everything in the catalogue that is not in our schema, as text.
async fn catalogue(foreign: &Foreign) -> Vec<String> {
    let sql = "SELECT 'trigger ' || tgrelid::regclass || ' ' || tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid::regclass::text NOT LIKE 'mstore.%'
        UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'mstore'::regnamespace)
        UNION ALL SELECT 'table ' || oid::regclass || ' ' || relhastriggers FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1";
    foreign.client().query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn detaching_leaves_no_trace() {
    let Some(mut foreign) = foreign("detach", SCHEMA).await else { return };
    let before = catalogue(&foreign).await;
    foreign.attach().await;
    assert_ne!(catalogue(&foreign).await, before);
    assert_eq!(foreign.attacher.detach("items").await.unwrap(), 4);
    // PostgreSQL itself remembers that a table once had triggers, until it is vacuumed.
    foreign.write("VACUUM items");
    assert_eq!(catalogue(&foreign).await, before);
    assert_eq!(
        foreign.count("SELECT count(*) FROM pg_proc WHERE pronamespace = 'mstore'::regnamespace AND proname LIKE 'capture\\_items%'").await,
        0
    );
    foreign.write("UPDATE items SET qty = 1");
    assert_eq!(foreign.count("SELECT count(*) FROM mstore.mark WHERE collection = 'items'").await, 0);
}

#[tokio::test]
async fn installing_waits_for_writers_without_stopping_them() {
    let Some(mut foreign) = foreign("locks", SCHEMA).await else { return };
    let writer = Attacher::connect(&foreign.database.url()).await.unwrap();
    writer.client.batch_execute("BEGIN; UPDATE public.items SET qty = 1 WHERE id = 1").await.unwrap();
    let url = foreign.database.url();
    let mapping = foreign.propose().await.mapping;
    let plan = foreign.attacher.plan(mapping).await.unwrap();
    let installing = tokio::spawn(async move {
        foreign.attacher.install(&plan, None, &mut |_: Progress| {}).await.unwrap();
        foreign
    });
    // While it tries, another writer gets through, and so does the first.
    let other = Attacher::connect(&url).await.unwrap();
    other.client.batch_execute("SET lock_timeout = '5s'").await.unwrap();
    for n in 2..6 {
        other.client.execute("UPDATE public.items SET qty = 2 WHERE id = $1", &[&n]).await.unwrap();
    }
    writer.client.batch_execute("COMMIT").await.unwrap();
    let foreign = installing.await.unwrap();
    let rows = foreign.sequence().await;
    assert_eq!((row(&rows, "b1", "items", "1")["qty"].clone(), row(&rows, "b1", "items", "5")["qty"].clone()), ("1".into(), "2".into()));
}

#[tokio::test]
async fn a_server_that_may_not_set_triggers_says_so_and_goes_on_reading() {
    let Some(mut foreign) = items().await else { return };
    let owner = foreign.database.superuser_url();
    mstore_rig::psql(&owner, "ALTER TABLE items OWNER TO postgres; GRANT SELECT ON items TO shop; ALTER TABLE items DISABLE TRIGGER ALL");
    assert_eq!(foreign.tend().await, None, "it flows");
    assert_eq!(foreign.count(CHANGED).await, 1);
    foreign.sequence().await;
    foreign.tend().await;
    assert_eq!(foreign.count("SELECT count(*) FROM mstore.mark").await, 0, "said and compared once");
    mstore_rig::psql(&owner, "ALTER TABLE items OWNER TO shop");
    assert_eq!(foreign.tend().await, None);
    assert_eq!(foreign.count(CHANGED).await, 0);
}
