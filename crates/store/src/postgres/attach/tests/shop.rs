//! The brief's own kind: a service with branches, products, inventories and transactions, several merchants in one database.

use serde_json::json;

use super::*;

const SHOP: &str = "
CREATE TYPE public.transaction_status AS ENUM ('pending', 'completed', 'void');
CREATE TABLE branches (id uuid PRIMARY KEY, merchant_id text NOT NULL, name text NOT NULL);
CREATE TABLE products (id uuid PRIMARY KEY, merchant_id text NOT NULL, sku text NOT NULL, name varchar(100) NOT NULL, price numeric(14,2) NOT NULL,
  is_active boolean NOT NULL DEFAULT true, tags text[], updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE inventories (id bigserial PRIMARY KEY, product_id uuid NOT NULL REFERENCES products, branch_id uuid NOT NULL REFERENCES branches,
  quantity numeric(12,3) NOT NULL DEFAULT 0, updated_at timestamp NOT NULL DEFAULT now(), UNIQUE (product_id, branch_id));
CREATE TABLE transactions (id uuid PRIMARY KEY, branch_id uuid NOT NULL REFERENCES branches, transaction_number text, total_amount bigint NOT NULL,
  status transaction_status NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE transaction_items (transaction_id uuid NOT NULL REFERENCES transactions ON DELETE CASCADE, line int NOT NULL, product_id uuid NOT NULL,
  quantity numeric(12,3) NOT NULL, price numeric(14,2) NOT NULL, PRIMARY KEY (transaction_id, line));
INSERT INTO branches VALUES ('00000000-0000-4000-8000-0000000000b1', 'm1', 'Pasar Baru'), ('00000000-0000-4000-8000-0000000000b2', 'm1', 'Kuta');
INSERT INTO products (id, merchant_id, sku, name, price, tags) VALUES ('00000000-0000-4000-8000-000000000001', 'm1', 'T-1', 'Teh', 12500.50, '{hot,tea}');
INSERT INTO inventories (product_id, branch_id, quantity) VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000b1', 41.5);
INSERT INTO transactions VALUES ('00000000-0000-4000-8000-0000000000aa', '00000000-0000-4000-8000-0000000000b1', 'R-1', 25000, 'completed', '2026-11-22 13:41:00.123456+07');
INSERT INTO transaction_items VALUES ('00000000-0000-4000-8000-0000000000aa', 1, '00000000-0000-4000-8000-000000000001', 2, 12500);
";
const B1: &str = "00000000-0000-4000-8000-0000000000b1";
const B2: &str = "00000000-0000-4000-8000-0000000000b2";
const TEA: &str = "00000000-0000-4000-8000-000000000001";
const SALE: &str = "00000000-0000-4000-8000-0000000000aa";

#[tokio::test]
async fn a_shop_service_has_its_three_collections() {
    let Some(mut foreign) = foreign("shop", SHOP).await else { return };
    foreign.attach().await;
    let first = foreign.sequence().await;
    let tea = row(&first, B1, "product", TEA);
    assert_eq!(
        (&tea["price"], &tea["stock"], &tea["tags"]),
        (&json!({"amount": 1_250_050, "currency": "USD"}), &json!("41.5"), &json!(["hot", "tea"]))
    );
    assert_eq!(row(&first, B2, "product", TEA)["stock"], "0", "the other branch has no row for it");
    assert_eq!(row(&first, B1, "inventory", "1")["quantity"], "41.5");
    let sale = row(&first, B1, "transaction", SALE);
    assert_eq!(
        (&sale["total"]["amount"], &sale["occurred_at"], &sale["status"]),
        (&json!(2_500_000), &json!("2026-11-22T06:41:00.123Z"), &json!("completed"))
    );
    let line = row(&first, B1, "transaction_items", &format!("{SALE}:1"));
    assert_eq!((&line["quantity"], &line["price"]["amount"]), (&json!("2"), &json!(1_250_000)));
    let names: Vec<String> =
        foreign.client().query("SELECT name FROM mstore.branch ORDER BY name", &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["Kuta", "Pasar Baru"]);
}

#[tokio::test]
async fn what_a_row_depends_on_marks_it_wherever_it_was_and_is() {
    let Some(mut foreign) = foreign("shop", SHOP).await else { return };
    foreign.attach().await;
    foreign.sequence().await;
    // The receipt moves: its lines go with it, although their table was not written.
    foreign.write(&format!("UPDATE transactions SET branch_id = '{B2}'"));
    assert_eq!(
        marked(&foreign.sequence().await),
        [
            format!("-{B1} transaction {SALE}"),
            format!("-{B1} transaction_items {SALE}:1"),
            format!("+{B2} transaction {SALE}"),
            format!("+{B2} transaction_items {SALE}:1")
        ]
    );
    // A cascade deletes the parent before the child's trigger could ask it for the branch.
    foreign.write("DELETE FROM transactions");
    assert_eq!(marked(&foreign.sequence().await), [format!("-{B2} transaction {SALE}"), format!("-{B2} transaction_items {SALE}:1")]);
    // Stock of one branch is a product row of that branch.
    foreign.write("UPDATE inventories SET quantity = quantity - 0.125");
    let sold = foreign.sequence().await;
    assert_eq!(row(&sold, B1, "product", TEA)["stock"], "41.375");
}

#[tokio::test]
async fn a_child_added_while_its_parent_moves_is_not_lost() {
    let Some(mut foreign) = foreign("shop", SHOP).await else { return };
    foreign.attach().await;
    foreign.sequence().await;
    let other = Attacher::connect(&foreign.database.url()).await.unwrap();
    let insert = format!("BEGIN; INSERT INTO public.transaction_items VALUES ('{SALE}', 2, '{TEA}', 1, 1)");
    other.client.batch_execute(&insert).await.unwrap();
    // Its trigger cannot see the line that is not committed.
    let third = Attacher::connect(&foreign.database.url()).await.unwrap();
    third.client.batch_execute(&format!("BEGIN; UPDATE public.transactions SET branch_id = '{B2}'")).await.unwrap();
    other.client.batch_execute("COMMIT").await.unwrap();
    foreign.sequence().await;
    third.client.batch_execute("COMMIT").await.unwrap();
    let after = foreign.sequence().await;
    let expect = [format!("-{B1} transaction_items {SALE}:2"), format!("+{B2} transaction_items {SALE}:2")];
    assert!(expect.iter().all(|mark| marked(&after).contains(mark)), "{:?}", marked(&after));
}
