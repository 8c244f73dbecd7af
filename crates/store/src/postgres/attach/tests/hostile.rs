//! What else people have in their databases: keys of odd types, values that are no values, tables that inherit, partitions of partitions, labels that change.

use serde_json::json;

use super::*;
use crate::postgres::attach::{
    mapping::{Field, Join, Place, THE_BRANCH},
    name::ColumnName,
    sweep, watch,
};

impl Foreign {
    /// Everything that a whole sweep marks.
    async fn sweep_all(&self) -> u64 {
        let attached = Attached::load(self.client()).await.unwrap();
        let (mut at, mut differing) = (None, 0);
        loop {
            let swept = sweep::slice(self.client(), &attached, &PersonalData::default(), at, 50).await.unwrap();
            differing += swept.differing;
            at = swept.next;
            if at.is_none() {
                return differing;
            }
        }
    }
}

#[tokio::test]
async fn a_row_is_found_by_a_key_of_any_type() {
    let schema = "CREATE TYPE size AS ENUM ('S', 'X L'); CREATE DOMAIN code AS varchar(12); CREATE DOMAIN code2 AS code;
        CREATE TABLE chars (id char(5) PRIMARY KEY, branch_id char(3) NOT NULL); INSERT INTO chars VALUES ('AB', 'b1'), ('ABCDE', 'b2');
        CREATE TABLE bits (id bit(4) PRIMARY KEY, branch_id text NOT NULL); INSERT INTO bits VALUES (B'1010', 'b1');
        CREATE TABLE enums (s size, d code2, branch_id text NOT NULL, PRIMARY KEY (s, d)); INSERT INTO enums VALUES ('X L', 'd:1', 'b1');
        CREATE TABLE times (at timestamptz, until date, n numeric, branch_id int NOT NULL, PRIMARY KEY (at, until, n));
        INSERT INTO times VALUES ('2026-01-01 00:00:00.123456+07', '2027-01-01', 1.50, 1), ('infinity', '0044-03-15 BC', 'NaN', 1), ('2026-01-01', 'infinity', 2, 1);
        CREATE TABLE nets (net inet, t time, i interval, branch_id text NOT NULL, PRIMARY KEY (net, t, i)); INSERT INTO nets VALUES ('10.0.0.1', '10:00', '1 day', 'b1')";
    let Some(mut foreign) = foreign("keys", schema).await else { return };
    foreign.attach().await;
    let first = foreign.sequence().await;
    let ids: Vec<String> = marked(&first);
    assert_eq!(
        ids,
        [
            "+1 times 2025-12-31T17%3A00%3A00.123456:2027-01-01:1.50",
            "!1 times 2026-01-01T00%3A00%3A00:infinity:2",
            "!1 times infinity:0044-03-15 BC:NaN",
            "+b1 bits 1010",
            "+b1 chars AB",
            "+b1 enums X L:d%3A1",
            "+b1 nets 10.0.0.1/32:10%3A00%3A00:1 day",
            "+b2 chars ABCDE",
        ]
    );
    let (_, why) = tally(&first, "times");
    assert!(why.iter().all(|why| why.contains("infinity") && why.contains("as = \"text\"")), "{why:?}");
    // What cannot be a value can be a text.
    let mut mapping = foreign.propose().await.mapping;
    for collection in &mut mapping.collections {
        collection.fields.values_mut().for_each(|field| field.becomes = Some(crate::postgres::attach::mapping::As::Text));
    }
    foreign.install(mapping).await;
    let all = foreign.sequence().await;
    assert_eq!(tally(&all, "times").0, 3);
    assert_eq!(row(&all, "1", "times", "infinity:0044-03-15 BC:NaN")["until"], "0044-03-15 BC");
    assert_eq!(foreign.sweep_all().await, 0);
}

#[tokio::test]
async fn a_label_that_is_renamed_moves_its_rows() {
    let schema = "CREATE TYPE size AS ENUM ('S', 'X L'); CREATE TABLE enums (s size PRIMARY KEY, branch_id text NOT NULL); INSERT INTO enums VALUES ('S', 'b1'), ('X L', 'b1')";
    let Some(mut foreign) = foreign("labels", schema).await else { return };
    foreign.attach().await;
    foreign.sequence().await;
    foreign.write("ALTER TYPE size RENAME VALUE 'X L' TO 'XL'");
    assert!(watch::tend(&mut foreign.attacher.client).await.unwrap());
    assert_eq!(marked(&foreign.sequence().await), ["+b1 enums S", "-b1 enums X L", "+b1 enums XL"]);
    assert!(!watch::tend(&mut foreign.attacher.client).await.unwrap());
}

#[tokio::test]
async fn values_that_no_row_can_have_keep_back_their_rows_only() {
    let schema = r#"CREATE TABLE "values" (id int PRIMARY KEY, branch_id text NOT NULL, f real, price numeric, qty double precision, big bigint, at timestamp, j json, jb jsonb, a float8[], body text);
        INSERT INTO "values" (id, branch_id) SELECT n, 'b1' FROM generate_series(1, 12) n;
        UPDATE "values" SET f = 'NaN' WHERE id = 1; UPDATE "values" SET price = 1.005 WHERE id = 2; UPDATE "values" SET qty = 'Infinity' WHERE id = 3; UPDATE "values" SET big = 9007199254740993 WHERE id = 4;
        UPDATE "values" SET at = '-infinity' WHERE id = 5; UPDATE "values" SET j = '{"a":1,"a":2}' WHERE id = 6; UPDATE "values" SET jb = '{"n":1.5}' WHERE id = 7; UPDATE "values" SET a = '{1.5}' WHERE id = 8;
        UPDATE "values" SET body = repeat('x', 300000) WHERE id = 9; UPDATE "values" SET f = 1e30, price = -0.00, qty = 1e-3, big = -9007199254740991, j = '[null]', a = '{}' WHERE id = 10;
        UPDATE "values" SET price = 1e15 WHERE id = 11"#;
    let Some(mut foreign) = foreign("values", schema).await else { return };
    foreign.attach().await;
    let first = foreign.sequence().await;
    let bad: Vec<String> = marked(&first).into_iter().filter(|row| row.starts_with('!')).collect();
    let expected: Vec<String> = ["1", "11", "2", "3", "4", "5", "6", "7", "8", "9"].iter().map(|id| format!("!b1 values {id}")).collect();
    assert_eq!(bad, expected);
    let ten = row(&first, "b1", "values", "10");
    assert_eq!(
        (&ten["f"], &ten["price"], &ten["qty"]),
        (&json!(format!("1{}", "0".repeat(30))), &json!({"amount": 0, "currency": "USD"}), &json!("0.001"))
    );
    assert_eq!(row(&first, "b1", "values", "12")["body"], Value::Null);
}

#[tokio::test]
async fn a_table_that_others_inherit_from_says_which_rows_it_has_twice() {
    let schema = "CREATE TABLE animals (id int PRIMARY KEY, branch_id text NOT NULL); CREATE TABLE dogs (bark text) INHERITS (animals);
        INSERT INTO animals VALUES (1, 'b1'), (3, 'b1'); INSERT INTO dogs VALUES (1, 'b1', 'w'), (2, 'b1', 'w')";
    let Some(mut foreign) = foreign("animals", schema).await else { return };
    foreign.attach().await;
    let first = foreign.sequence().await;
    assert_eq!(marked(&first), ["!b1 animals 1", "+b1 animals 2", "+b1 animals 3"]);
    foreign.write("DELETE FROM ONLY animals WHERE id = 1; UPDATE dogs SET id = 5 WHERE id = 2");
    assert_eq!(marked(&foreign.sequence().await), ["+b1 animals 1", "-b1 animals 2", "+b1 animals 5"]);
}

#[tokio::test]
async fn partitions_of_partitions_come_and_go() {
    let schema = "CREATE TABLE events (kind text, branch_id text, day date, id bigint, PRIMARY KEY (kind, branch_id, day, id)) PARTITION BY RANGE (day);
        CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST (kind);
        CREATE TABLE events_2025_a PARTITION OF events_2025 FOR VALUES IN ('a'); CREATE TABLE events_2025_x PARTITION OF events_2025 DEFAULT;
        CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
        INSERT INTO events VALUES ('a', 'b1', '2025-05-05', 1), ('z', 'b1', '2025-05-05', 2), ('a', 'b2', '2026-05-05', 3)";
    let Some(mut foreign) = foreign("nested", schema).await else { return };
    foreign.attach().await;
    assert_eq!(tally(&foreign.sequence().await, "events").0, 3);
    foreign.write("INSERT INTO events_2025_x VALUES ('y', 'b1', '2025-06-06', 4); UPDATE events_2025 SET kind = 'a' WHERE kind = 'z'");
    assert_eq!(
        marked(&foreign.sequence().await),
        ["+b1 events a:b1:2025-05-05:2", "+b1 events y:b1:2025-06-06:4", "-b1 events z:b1:2025-05-05:2"]
    );
    foreign.write(
        "CREATE TABLE events_2027 (LIKE events INCLUDING ALL); INSERT INTO events_2027 VALUES ('a', 'b1', '2027-02-02', 9);
         ALTER TABLE events ATTACH PARTITION events_2027 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01'); ALTER TABLE events DETACH PARTITION events_2026",
    );
    assert!(watch::tend(&mut foreign.attacher.client).await.unwrap());
    let after = foreign.sequence().await;
    assert_eq!(tally(&after, "events").0, 4);
    assert!(
        marked(&after).contains(&"-b2 events a:b2:2026-05-05:3".into()) && marked(&after).contains(&"+b1 events a:b1:2027-02-02:9".into())
    );
    foreign.write("DELETE FROM events_2027");
    assert_eq!(marked(&foreign.sequence().await), ["-b1 events a:b1:2027-02-02:9"]);
}

#[tokio::test]
async fn the_stock_of_a_branch_is_found_whatever_its_name_is() {
    let schema = r#"CREATE TABLE products (id text PRIMARY KEY, name text NOT NULL, price numeric(12,2) NOT NULL);
        CREATE TABLE stocks (branch_id text, product_id text REFERENCES products, stock numeric, PRIMARY KEY (branch_id, product_id));
        INSERT INTO products VALUES ('p', 'Teh', 1), ('q', 'Kopi', 2); INSERT INTO stocks VALUES ('b1', 'p', 1), ('Pasar Baru', 'p', 2), ('x-0123456789abcdef', 'p', 3), ('admin', 'p', 4), ('b1', 'q', NULL)"#;
    let Some(mut foreign) = foreign("stocks", schema).await else { return };
    foreign.attach().await;
    let first = foreign.sequence().await;
    let stock = |branch: &str, id: &str| row(&first, branch, "product", id)["stock"].clone();
    let named = |part: &str| first.keys().find(|(branch, ..)| branch.starts_with(part)).unwrap().0.clone();
    assert_eq!(
        (stock("b1", "p"), stock(&named("Pasar-Baru-"), "p"), stock("x-0123456789abcdef", "p")),
        (json!("1"), json!("2"), json!("3"))
    );
    assert_eq!((stock(&named("admin-"), "p"), stock("b1", "q"), stock(&named("admin-"), "q")), (json!("4"), json!("0"), json!("0")));
    foreign.write("UPDATE stocks SET stock = 20 WHERE branch_id = 'Pasar Baru'");
    assert_eq!(
        marked(&foreign.sequence().await),
        [format!("+{} product p", named("Pasar-Baru-")), format!("+{} stocks {}", named("Pasar-Baru-"), "Pasar Baru:p")]
    );
}

#[tokio::test]
async fn numbers_of_branches_are_numbers() {
    let schema = "CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, price numeric(12,2) NOT NULL);
        CREATE TABLE stocks (branch_id smallint, product_id int REFERENCES products, stock numeric NOT NULL, PRIMARY KEY (product_id, branch_id));
        INSERT INTO products VALUES (1, 'Teh', 1); INSERT INTO stocks VALUES (1, 1, 1), (-7, 1, 2)";
    let Some(mut foreign) = foreign("numbers", schema).await else { return };
    foreign.attach().await;
    // A branch that is no number of theirs, and one that no number can be.
    foreign.write("INSERT INTO mstore.branch (merchant_id, branch_id) VALUES ('m1', 'main'), ('m1', '99999999999999999999'), ('m1', '01')");
    let first = foreign.sequence().await;
    let stock = |branch: &str| row(&first, branch, "product", "1")["stock"].clone();
    assert_eq!((stock("1"), stock("-7"), stock("main"), stock("01")), (json!("1"), json!("2"), json!("0"), json!("0")));
    assert_eq!(stock("99999999999999999999"), "0");
}

#[tokio::test]
async fn a_mapping_that_only_the_database_can_refuse_changes_nothing() {
    let schema = "CREATE TABLE a (id int PRIMARY KEY, b_id text); CREATE TABLE b (id int PRIMARY KEY, branch_id text)";
    let Some(mut foreign) = foreign("types", schema).await else { return };
    let mut mapping = foreign.propose().await.mapping;
    mapping.collections.retain(|collection| collection.name == "a");
    let a = &mut mapping.collections[0];
    let on = BTreeMap::from([("id".to_owned(), "b_id".to_owned())]);
    a.joins = vec![Join { table: crate::postgres::attach::TableName::new("public", "b"), alias: "b".into(), on }];
    a.branch = Place::Column { column: ColumnName::joined("b", "branch_id") };
    let plan = foreign.attacher.plan(mapping.clone()).await.unwrap();
    let refused = foreign.attacher.install(&plan, None, &mut |_: Progress| {}).await.unwrap_err();
    assert_eq!(refused.code(), mstore_protocol::Code::AttachMappingInvalid);
    assert!(refused.to_string().contains("operator does not exist"), "{refused}");
    assert_eq!(foreign.count("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mstore%' AND tgrelid = 'public.a'::regclass").await, 0);
    assert_eq!(foreign.count("SELECT count(*) FROM mstore.attached").await, 0);
    // A branch that is asked for is for rows that every branch has.
    mapping.collections[0].joins[0].on =
        BTreeMap::from([("id".to_owned(), "id".to_owned()), ("branch_id".to_owned(), THE_BRANCH.to_owned())]);
    let why = foreign.attacher.plan(mapping).await.err().unwrap().to_string();
    assert!(why.contains("every = true"), "{why}");
}

#[tokio::test]
async fn null_becomes_what_the_mapping_says() {
    let schema =
        "CREATE TABLE products (id int PRIMARY KEY, branch_id text NOT NULL, name text, price numeric(12,2), stock int, active boolean);
        INSERT INTO products VALUES (1, 'b1', NULL, NULL, NULL, NULL)";
    let Some(mut foreign) = foreign("nulls", schema).await else { return };
    let mut mapping = foreign.propose().await.mapping;
    let name = mapping.collections[0].fields.get_mut("name").unwrap();
    *name = Field { value: Some("?".into()), ..name.clone() };
    foreign.install(mapping).await;
    let product = row(&foreign.sequence().await, "b1", "product", "1");
    assert_eq!((&product["name"], &product["stock"], &product["is_active"]), (&json!("?"), &json!("0"), &json!(true)));
    assert_eq!(product["price"], Value::Null);
}

#[tokio::test]
async fn our_sessions_are_ended_when_they_stand_still_in_a_transaction() {
    let Some(foreign) = foreign("idle", "CREATE TABLE a (id int PRIMARY KEY)").await else { return };
    let sql = "SELECT extract(epoch FROM current_setting('idle_in_transaction_session_timeout')::interval)::bigint";
    assert_eq!(foreign.count(sql).await, 3);
}
