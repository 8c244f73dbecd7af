//! What reading attached tables costs where nobody ever analysed them, or did when they were empty: counted in pages, so that it is the same on any machine.

use tokio_postgres::types::{FromSql, ToSql, Type};

use super::*;
use crate::postgres::attach::{
    guard, key,
    resolve::page,
    rows::Wanted,
    source::Source,
    sweep::{self, OF_HEAD, STORED},
};

/// 100,000 rows of each kind, their branch with a parent or in a stock table; one merchant, 20 branches.
const SCHEMA: &str = "
CREATE TABLE orders (id bigint PRIMARY KEY, branch_id text NOT NULL) WITH (autovacuum_enabled = off);
CREATE TABLE lines (order_id bigint NOT NULL REFERENCES orders, n int NOT NULL, qty numeric NOT NULL, PRIMARY KEY (order_id, n)) WITH (autovacuum_enabled = off);
CREATE TABLE products (id text PRIMARY KEY, name text NOT NULL, price numeric(12,2) NOT NULL) WITH (autovacuum_enabled = off);
CREATE TABLE stocks (branch_id text NOT NULL, product_id text NOT NULL REFERENCES products, stock numeric NOT NULL, PRIMARY KEY (branch_id, product_id)) WITH (autovacuum_enabled = off);
";
const ROWS: &str = "
INSERT INTO orders SELECT n, 'b' || n % 20 FROM generate_series(1, 20000) n;
INSERT INTO lines SELECT o, n, n FROM generate_series(1, 20000) o, generate_series(1, 5) n;
INSERT INTO products SELECT 'p' || n, 'Product ' || n, n FROM generate_series(1, 5000) n;
INSERT INTO stocks SELECT 'b' || b, 'p' || p, p FROM generate_series(0, 19) b, generate_series(1, 5000) p;
";
/// What devices have then.
const MIRROR: &str = r#"
ALTER TABLE mstore.mirror SET (autovacuum_enabled = off);
INSERT INTO mstore.branch (merchant_id, branch_id) SELECT 'm1', 'b' || b FROM generate_series(0, 19) b;
INSERT INTO mstore.head (merchant_id, branch_id, epoch, seq, tag, at) SELECT 'm1', 'b' || b, 'e', 1, 't', 'now' FROM generate_series(0, 19) b;
INSERT INTO mstore.mirror (head, collection, id, seq, bucket, row)
  SELECT h.n, 'lines', l.order_id || ':' || l.n, 1, 0, '{"id":"' || l.order_id || ':' || l.n || '","n":' || l.n || ',"order_id":' || l.order_id || ',"qty":"' || l.qty || '"}'
    FROM lines l JOIN orders o ON o.id = l.order_id JOIN mstore.head h ON h.branch_id = o.branch_id;
DELETE FROM mstore.mark;
"#;
/// Rows of one statement.
const SOME: usize = 1_000;
/// A few levels of an index and the row, for the row itself and for what it is joined with. One look at every row of a table for each would be hundreds.
const PAGES_PER_ROW: i64 = 14;

/// A database whose tables were analysed before they had rows, or never.
async fn shop(is_analysed_empty: bool) -> Option<Foreign> {
    let mut foreign = foreign("plans", SCHEMA).await?;
    foreign.attach().await;
    if is_analysed_empty {
        mstore_rig::psql(&foreign.database.superuser_url(), "ANALYZE");
    }
    foreign.write(ROWS);
    foreign.write(MIRROR);
    Some(foreign)
}

/// A value as the server sends it.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Foreign {
    async fn source(&self, name: &str) -> Source {
        Attached::load(self.client()).await.unwrap().collection(name).unwrap().source.clone()
    }

    /// Pages that a statement looks at; the statement is undone.
    async fn pages(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> i64 {
        self.client().batch_execute("BEGIN").await.unwrap();
        let explain = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}");
        let row = self.client().query_one(&explain, params).await.unwrap();
        self.client().batch_execute("ROLLBACK").await.unwrap();
        let plan: Value = serde_json::from_slice(row.get::<_, Raw<'_>>(0).0).unwrap();
        let count = |name: &str| plan[0]["Plan"][name].as_i64().unwrap();
        count("Shared Hit Blocks") + count("Shared Read Blocks")
    }

    #[track_caller]
    fn check(what: &str, pages: i64, rows: usize) {
        let most = PAGES_PER_ROW * i64::try_from(rows).unwrap() + 200;
        assert!(pages <= most, "{what}: {pages} pages for {rows} rows, more than {most}");
    }
}

/// Ids all over the table, and the branches that have them.
fn lines() -> Vec<(String, String)> {
    (0..SOME).map(|n| (n * 7_919) % 20_000 + 1).map(|order| (format!("b{}", order % 20), format!("{order}:3"))).collect()
}

async fn every_statement_looks_rows_up(is_analysed_empty: bool) {
    let Some(foreign) = shop(is_analysed_empty).await else { return };
    let (source, ids) = (foreign.source("lines").await, lines());
    let wanted = Wanted::new(&source, ids.iter().map(|(branch, id)| (branch.as_str(), id.as_str())));
    Foreign::check("rows", foreign.pages(&source.rows_sql(), &wanted.params()).await, SOME);
    Foreign::check("owners", foreign.pages(&source.owners_sql(), &wanted.params()).await, SOME);
    let limit = i64::try_from(SOME).unwrap();
    let after = key::parts("11000:2", &source.key()).unwrap();
    Foreign::check("page", foreign.pages(&source.page_sql(true), &[&limit, &after[0], &after[1]]).await, SOME);
    let orders: Vec<String> = (0..SOME).map(|n| ((n * 7_919) % 20_000 + 1).to_string()).collect();
    let related = &source.related[0];
    Foreign::check("lines of orders", foreign.pages(&source.related_sql(related), &[&orders]).await, 5 * SOME);
    let xids = vec!["1"; SOME];
    let texts: Vec<&str> = ids.iter().map(|(_, id)| id.as_str()).collect();
    let on_devices = format!("SELECT w.id, w.xid, h.n FROM unnest($1::text[], $2::text[]) AS w(id, xid) {}", source.on_devices_sql());
    Foreign::check("on devices", foreign.pages(&on_devices, &[&texts, &xids]).await, SOME);
    let (merchants, branches) = (vec!["m1"; SOME], ids.iter().map(|(branch, _)| branch.as_str()).collect::<Vec<_>>());
    Foreign::check("mirror", foreign.pages(STORED, &[&"lines", &merchants, &branches, &texts]).await, SOME);
    Foreign::check("mirror of a head", foreign.pages(OF_HEAD, &[&"lines", &1_i64, &"11000:2", &limit]).await, SOME);

    // A row of a catalogue has the stock of the branch that asks.
    let source = foreign.source("product").await;
    let wants: Vec<(String, String)> = (0..SOME).map(|n| (format!("b{}", n % 20), format!("p{}", (n * 797) % 5_000 + 1))).collect();
    let wanted = Wanted::new(&source, wants.iter().map(|(branch, id)| (branch.as_str(), id.as_str())));
    Foreign::check("products with stock", foreign.pages(&source.rows_sql(), &wanted.params()).await, SOME);
}

#[tokio::test]
async fn rows_of_tables_that_were_never_analysed_are_looked_up() {
    every_statement_looks_rows_up(false).await;
}

#[tokio::test]
async fn rows_of_tables_that_were_analysed_when_they_were_empty_are_looked_up() {
    every_statement_looks_rows_up(true).await;
}

/// Rows of our tables and theirs that this transaction has looked at.
const TOUCHED: &str = "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_xact_all_tables WHERE schemaname IN ('public', 'mstore')";

#[tokio::test]
async fn marks_without_a_branch_cost_what_they_touch() {
    let Some(foreign) = shop(false).await else { return };
    let client = foreign.client();
    // As whoever sequences: with settings that are good for our own tables.
    client.batch_execute(crate::postgres::OF_SEQUENCER).await.unwrap();
    foreign.write("UPDATE lines SET qty = 9 WHERE order_id % 100 = 0; UPDATE orders SET branch_id = 'b1' WHERE id % 200 = 0");
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let attached = Attached::load(client).await.unwrap();
    assert!(resolve::resolve(client, &attached, None).await.unwrap());
    let (touched, marks) = (foreign.count(TOUCHED).await, foreign.count("SELECT count(*) FROM mstore.mark").await);
    client.batch_execute("COMMIT").await.unwrap();
    assert!(marks >= 1_500, "{marks}");
    assert!(touched <= 20 * marks, "{touched} rows were looked at for {marks} marks");
}

#[tokio::test]
async fn the_sweep_reads_each_side_once() {
    let Some(foreign) = shop(true).await else { return };
    let client = foreign.client();
    // Marks that wait make nothing dearer.
    foreign.write("INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'lines', 'm1', 'b1', 'x' || n FROM generate_series(1, 20000) n");
    foreign.write("DELETE FROM mstore.attached WHERE collection <> 'lines'; UPDATE lines SET qty = 8 WHERE order_id % 1000 = 7 AND n = 1; DELETE FROM mstore.mark WHERE merchant_id = ''");
    client.batch_execute("BEGIN").await.unwrap();
    let attached = Attached::load(client).await.unwrap();
    let (mut at, mut compared, mut differing) = (None, 0, 0);
    loop {
        let swept = sweep::slice(client, &attached, &PersonalData::default(), at, 2_000).await.unwrap();
        (compared, differing) = (compared + swept.compared, differing + swept.differing);
        at = swept.next;
        if at.is_none() {
            break;
        }
    }
    let touched = foreign.count(TOUCHED).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!((compared, differing), (200_000, 20), "once from the table, once from the mirror");
    assert!(touched <= 3_000_000, "{touched} rows were looked at for {compared} compared");
}

#[tokio::test]
async fn a_writer_looks_its_branch_up_however_many_there_came_to_be() {
    let schema = "CREATE TABLE items (id int PRIMARY KEY, branch_id text NOT NULL); INSERT INTO items VALUES (1, 'b1')";
    let Some(mut foreign) = foreign("branches", schema).await else { return };
    foreign.attach().await;
    let (writer, connection) = tokio_postgres::connect(&foreign.database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // This session plans the trigger's function while there is one branch, and keeps the plan.
    for _ in 0..8 {
        writer.batch_execute("UPDATE items SET id = id").await.unwrap();
    }
    foreign.write("INSERT INTO mstore.branch (merchant_id, branch_id) SELECT 'm1', 'x' || n FROM generate_series(1, 5000) n");
    writer.batch_execute("BEGIN; INSERT INTO items SELECT n, 'b1' FROM generate_series(2, 101) n").await.unwrap();
    let sql = "SELECT (seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_all_tables WHERE relid = 'mstore.branch'::regclass";
    let looked_at: i64 = writer.query_one(sql, &[]).await.unwrap().get(0);
    writer.batch_execute("COMMIT").await.unwrap();
    assert!(looked_at <= 200, "{looked_at} branches for 100 rows");
}

#[tokio::test]
async fn a_read_leaves_the_settings_of_its_transaction_alone() {
    let Some(foreign) = foreign("settings", "CREATE TABLE items (id int PRIMARY KEY)").await else { return };
    let client = foreign.client();
    let settings = "SELECT current_setting('lock_timeout') || current_setting('enable_seqscan') || current_setting('plan_cache_mode')";
    client.batch_execute(&format!("{}; BEGIN", crate::postgres::OF_SEQUENCER)).await.unwrap();
    let before: String = client.query_one(settings, &[]).await.unwrap().get(0);
    for sql in ["SELECT 1", "SELECT 1 / 0"] {
        let _failed_or_not = guard::guarded(client, async { Ok(client.batch_execute(sql).await?) }).await.unwrap();
        assert_eq!(client.query_one(settings, &[]).await.unwrap().get::<_, String>(0), before, "{sql}");
    }
    client.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn a_page_goes_on_where_the_last_one_ended_in_the_order_of_the_index() {
    let schema = r#"CREATE TABLE items (b text NOT NULL, a int NOT NULL, PRIMARY KEY (a, b)); INSERT INTO items SELECT 'x' || n % 7, n / 7 FROM generate_series(1, 100) n"#;
    let Some(mut foreign) = foreign("pages", schema).await else { return };
    let mut mapping = foreign.propose().await.mapping;
    mapping.collections[0].key = vec!["b".into(), "a".into()];
    foreign.install(mapping).await;
    let source = foreign.source("items").await;
    let (mut seen, mut after) = (BTreeSet::new(), None);
    loop {
        let (owned, last) = page(foreign.client(), &source, after.as_deref(), "0", 9).await.unwrap();
        seen.extend(owned.places(foreign.client()).await.unwrap().into_iter().map(|(_, id)| id));
        after = last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 100);
}
