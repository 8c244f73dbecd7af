//! What else is found in databases: quoted names, schemas, partitions, enums, generated columns, domains, keys of several texts, views, NULL branches.

use serde_json::json;

use super::*;
use crate::postgres::attach::{
    TableName,
    mapping::{As, Field, NewBranch, Place, Watch},
    name::ColumnName,
};

const SCHEMA: &str = r#"
CREATE SCHEMA "Shop Data";
CREATE TYPE "Shop Data"."Size" AS ENUM ('small', 'Large ''n'' wide');
CREATE DOMAIN "Shop Data".code AS varchar(20) CHECK (value <> '');
CREATE TABLE "Shop Data"."Items" ("Branch ID" integer, "Code" "Shop Data".code NOT NULL, variant text NOT NULL, "size" "Shop Data"."Size" NOT NULL,
  net real NOT NULL, gross numeric(10,2) GENERATED ALWAYS AS (100) STORED, note text, raw bytea, "when" timestamp, ratio double precision[],
  PRIMARY KEY ("Code", variant));
CREATE TABLE public.sales (branch_id integer NOT NULL, day date NOT NULL, n bigint NOT NULL, total numeric NOT NULL, PRIMARY KEY (branch_id, day, n)) PARTITION BY RANGE (day);
CREATE TABLE public.sales_2025 PARTITION OF public.sales FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE public.sales_2026 PARTITION OF public.sales FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE public.log (line text);
INSERT INTO "Shop Data"."Items" ("Branch ID", "Code", variant, "size", net, note, raw, "when") VALUES (1, 'a:b', '100%', 'Large ''n'' wide', 0.1, E'tab\there', '\x00', '2026-11-22 06:41:00.5');
INSERT INTO public.sales VALUES (1, '2025-12-31', 1, 10.50), (2, '2026-01-01', 1, 20);
"#;

#[tokio::test]
async fn names_types_and_partitions_of_every_kind_are_attached() {
    let Some(mut foreign) = foreign("nasty", SCHEMA).await else { return };
    let proposal = foreign.propose().await;
    assert_eq!(proposal.skipped.len(), 1, "{:?}", proposal.skipped);
    foreign.install(proposal.mapping).await;
    let first = foreign.sequence().await;
    let item = row(&first, "1", "items", "a%3Ab:100%25");
    assert_eq!((&item["net"], &item["gross"], &item["size"]), (&json!("0.1"), &json!("100.00"), &json!("Large 'n' wide")));
    assert_eq!((&item["when"], &item["note"], &item["raw"]), (&json!("2026-11-22T06:41:00.500Z"), &json!("tab\there"), &Value::Null));
    assert_eq!(row(&first, "1", "sales", "1:2025-12-31:1")["total"], json!({"amount": 1050, "currency": "USD"}));

    // Through the parent, through a partition, from one partition to another, and by TRUNCATE of one.
    foreign.write("UPDATE sales SET total = 11 WHERE branch_id = 1; INSERT INTO sales_2026 VALUES (2, '2026-02-02', 7, 5); UPDATE sales SET day = '2026-05-05' WHERE branch_id = 1");
    assert_eq!(marked(&foreign.sequence().await), ["-1 sales 1:2025-12-31:1", "+1 sales 1:2026-05-05:1", "+2 sales 2:2026-02-02:7"]);
    foreign.write("TRUNCATE sales_2026");
    let gone = marked(&foreign.sequence().await);
    assert_eq!(gone, ["-1 sales 1:2026-05-05:1", "-2 sales 2:2026-01-01:1", "-2 sales 2:2026-02-02:7"]);
}

#[tokio::test]
async fn rows_of_no_branch_wait_where_they_can_be_seen() {
    let Some(mut foreign) = foreign("stray", SCHEMA).await else { return };
    foreign.attach().await;
    foreign.sequence().await;
    foreign.write(r#"UPDATE "Shop Data"."Items" SET "Branch ID" = NULL"#);
    assert_eq!(marked(&foreign.sequence().await), ["-1 items a%3Ab:100%25"], "it was there");
    let strays = "SELECT count(*) FROM mstore.stray WHERE collection = 'items' AND reason LIKE '%NULL%'";
    let alarms = "SELECT count(*) FROM mstore.alarm WHERE kind = 'attached_rows_without_branch' AND cleared_at IS NULL";
    assert_eq!((foreign.count(strays).await, foreign.count(alarms).await), (1, 1));
    foreign.write(r#"UPDATE "Shop Data"."Items" SET "Branch ID" = 77"#);
    assert_eq!(marked(&foreign.sequence().await), ["+77 items a%3Ab:100%25"], "a new branch is made");
    assert_eq!((foreign.count(strays).await, foreign.count(alarms).await), (0, 0));
}

#[tokio::test]
async fn a_branch_that_nobody_made_keeps_its_rows_back_if_it_is_to() {
    let Some(mut foreign) = foreign("alarm", SCHEMA).await else { return };
    let mut mapping = foreign.propose().await.mapping;
    mapping.branches.new = NewBranch::Alarm;
    foreign.install(mapping).await;
    let strays = "SELECT count(*) FROM mstore.stray WHERE reason LIKE 'there is no branch m1/%'";
    assert_eq!((marked(&foreign.sequence().await), foreign.count(strays).await), (vec![], 3));
    foreign.write("INSERT INTO mstore.merchant (merchant_id, name, currency) VALUES ('m1', '', 'USD') ON CONFLICT DO NOTHING; INSERT INTO mstore.branch VALUES ('m1', '1')");
    assert_eq!(marked(&foreign.sequence().await), ["+1 items a%3Ab:100%25", "+1 sales 1:2025-12-31:1"]);
    assert_eq!(foreign.count(strays).await, 1);
}

#[tokio::test]
async fn a_writer_with_settings_of_its_own_makes_the_same_ids() {
    let Some(mut foreign) = foreign("styles", SCHEMA).await else { return };
    foreign.attach().await;
    foreign.sequence().await;
    foreign.write(
        "SET DateStyle = 'German'; SET TimeZone = 'Asia/Jakarta'; SET search_path = '';
        INSERT INTO public.sales VALUES (1, '05.03.2026', 9, 1)",
    );
    assert_eq!(marked(&foreign.sequence().await), ["+1 sales 1:2026-03-05:9"]);
}

#[tokio::test]
async fn triggers_fire_for_whoever_writes() {
    let Some(mut foreign) = foreign("roles", SCHEMA).await else { return };
    foreign.attach().await;
    foreign.sequence().await;
    // An ordinary role that may do nothing in our schema, and a session that says it is a replica.
    mstore_rig::psql(
        &foreign.database.superuser_url(),
        "DROP ROLE IF EXISTS clerk; CREATE ROLE clerk; GRANT INSERT ON public.sales TO clerk; SET ROLE clerk; INSERT INTO public.sales VALUES (1, '2026-06-06', 1, 1);
         RESET ROLE; SET session_replication_role = replica; INSERT INTO public.sales VALUES (1, '2026-06-06', 2, 1); REVOKE ALL ON public.sales FROM clerk; DROP ROLE clerk",
    );
    assert_eq!(marked(&foreign.sequence().await), ["+1 sales 1:2026-06-06:1", "+1 sales 1:2026-06-06:2"]);
}

#[tokio::test]
async fn a_view_is_watched_through_its_tables() {
    let schema = "CREATE TABLE orders (id int PRIMARY KEY, branch text NOT NULL, is_open boolean NOT NULL);
        CREATE TABLE lines (order_id int NOT NULL REFERENCES orders ON DELETE CASCADE, n int NOT NULL, item text, qty numeric NOT NULL, PRIMARY KEY (order_id, n));
        CREATE VIEW open_lines AS SELECT l.order_id, l.n, l.item, l.qty, o.branch FROM lines l JOIN orders o ON o.id = l.order_id WHERE o.is_open;
        INSERT INTO orders VALUES (1, 'b1', true), (2, 'b2', false); INSERT INTO lines VALUES (1, 1, 'tea', 2), (2, 1, 'salt', 1)";
    let Some(mut foreign) = foreign("view", schema).await else { return };
    let mut mapping = foreign.propose().await.mapping;
    let mut view = mapping.collections.iter().find(|collection| collection.name == "lines").unwrap().clone();
    view.name = "open_line".into();
    view.table = TableName::new("public", "open_lines");
    view.joins = Vec::new();
    view.branch = Place::Column { column: ColumnName::own("branch") };
    view.fields = BTreeMap::from([("qty".to_owned(), Field { becomes: Some(As::Quantity), ..Field::of(ColumnName::own("qty")) })]);
    let key = |pairs: &[(&str, &str)]| pairs.iter().map(|(view, base)| ((*view).to_owned(), (*base).to_owned())).collect();
    view.watches = vec![
        Watch { table: TableName::new("public", "lines"), key: key(&[("order_id", "order_id"), ("n", "n")]) },
        Watch { table: TableName::new("public", "orders"), key: key(&[("order_id", "id")]) },
    ];
    mapping.collections = vec![view];
    foreign.install(mapping).await;
    assert_eq!(marked(&foreign.sequence().await), ["+b1 open_line 1:1"]);
    foreign.write("UPDATE orders SET branch = 'b9'; UPDATE lines SET qty = 3");
    assert_eq!(marked(&foreign.sequence().await), ["-b1 open_line 1:1", "+b9 open_line 1:1"]);
    foreign.write("DELETE FROM orders");
    assert_eq!(marked(&foreign.sequence().await), ["-b9 open_line 1:1"]);
}

#[tokio::test]
async fn what_cannot_be_attached_says_why() {
    let schema = "CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, price numeric NOT NULL); CREATE TABLE free (a int); CREATE MATERIALIZED VIEW m AS SELECT 1 AS a;
        CREATE TABLE secret (id int PRIMARY KEY); ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE secret FORCE ROW LEVEL SECURITY";
    let Some(foreign) = foreign("refused", schema).await else { return };
    let mapping = foreign.propose().await.mapping;
    let product = |change: &dyn Fn(&mut crate::postgres::attach::mapping::CollectionMapping)| {
        let mut mapping = mapping.clone();
        mapping.collections.retain(|collection| collection.name == "product");
        change(&mut mapping.collections[0]);
        mapping
    };
    let cases: [(Mapping, &str); 6] = [
        (product(&|c| c.table = TableName::new("public", "nothing")), "there is no table public.nothing"),
        (product(&|c| c.key = vec!["name".into()]), "two rows of public.products may have the same name"),
        (product(&|c| c.fields.get_mut("name").unwrap().column = Some(ColumnName::own("nmae"))), "did you mean \"name\"?"),
        (product(&|c| c.fields.get_mut("price").unwrap().becomes = Some(As::Time)), "cannot become Time"),
        (product(&|c| c.branch = Place::Fixed { fixed: "a b".into() }), "branch"),
        (product(&|c| c.table = TableName::new("public", "m")), "materialised view"),
    ];
    for (mapping, part) in cases {
        let why = foreign.attacher.plan(mapping).await.err().unwrap().to_string();
        assert!(why.contains(part), "{part}: {why}");
    }
    let mut secret = mapping.clone();
    secret.collections.retain(|collection| collection.name == "secret");
    let why = foreign.attacher.plan(secret).await.err().unwrap().to_string();
    assert!(why.contains("BYPASSRLS"), "{why}");
}
