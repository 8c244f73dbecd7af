//! What our own API refuses at the door: whatever it lets in reaches the devices and is never quarantined.
#![allow(clippy::unwrap_used)]

use mstore_protocol::{Code, MerchantId, StockTarget, limits::ROW_BYTES_MAX};
use mstore_store::{InventoryItem, MoveKind, Product, RecipeLine, SourceWrite, StoreError, Written};
use serde_json::json;

use super::fixture::*;

fn code(result: Result<Written, StoreError>) -> Code {
    match result {
        Err(StoreError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

async fn put(f: &Fixture, products: Vec<Product>) -> Result<Written, StoreError> {
    f.write(SourceWrite::PutProducts { merchant: merchant(), products }).await
}

fn named(id: &str, bytes: usize) -> Product {
    Product { name: "n".repeat(bytes), ..product(id) }
}

/// Each line takes about 150 bytes of the row.
async fn put_recipe(f: &Fixture, product_id: &str, lines: usize) -> Result<Written, StoreError> {
    let lines = (0..lines).map(|n| RecipeLine { item_id: format!("{n:0110}"), quantity: q("1") }).collect();
    f.write(SourceWrite::PutRecipe { merchant: merchant(), product_id: product_id.into(), lines }).await
}

async fn moved(f: &Fixture, kind: MoveKind, quantity: &str) -> Result<Written, StoreError> {
    f.stock_move("a", kind, StockTarget::Product, "p", quantity).await
}

async fn put_item(f: &Fixture, name: String) -> Result<Written, StoreError> {
    let item = InventoryItem { id: "i".into(), name, unit: "kg".into(), reorder_level: q("0") };
    f.write(SourceWrite::PutInventory { key: branch("a"), items: vec![item] }).await
}

pub async fn a_product_over_the_row_limit_is_refused(f: Fixture) {
    let f = f.shop().await;
    assert_eq!(code(put(&f, vec![named("p", 300_000)]).await), Code::RowTooLarge);
    assert_eq!(code(put(&f, vec![product("q"), named("p", ROW_BYTES_MAX - 200)]).await), Code::RowTooLarge);
    let escaped = Product { category: Some("\u{1}".repeat(60_000)), ..product("p") };
    assert_eq!(code(put(&f, vec![escaped]).await), Code::RowTooLarge, "as it is written, not as it is typed");
    assert!(f.snapshot("a").await.lines.is_empty(), "all or none");
}

pub async fn a_recipe_counts_towards_its_products_row(f: Fixture) {
    let f = f.shop().await;
    put(&f, vec![product("p"), named("large", 150_000)]).await.unwrap();
    assert_eq!(code(put_recipe(&f, "p", 1_000).await), Code::RowTooLarge);
    assert_eq!(code(put_recipe(&f, "large", 800).await), Code::RowTooLarge);
    put_recipe(&f, "p", 800).await.unwrap();
    assert_eq!(code(put(&f, vec![named("p", 150_000)]).await), Code::RowTooLarge);
    put(&f, vec![named("p", 120_000)]).await.unwrap();
    let row = f.row("a", "product", "p").await.unwrap();
    assert_eq!((row["name"].as_str().unwrap().len(), row["recipe"].as_array().unwrap().len()), (120_000, 800));
}

pub async fn an_inventory_item_over_the_row_limit_is_refused(f: Fixture) {
    let f = f.shop().await;
    assert_eq!(code(put_item(&f, "n".repeat(300_000)).await), Code::RowTooLarge);
    put_item(&f, "n".repeat(200_000)).await.unwrap();
    assert!(f.row("a", "inventory", "i").await.is_some());
}

pub async fn what_is_admitted_is_a_row(f: Fixture) {
    let f = f.shop().await;
    let worst = |character: char| Product { name: format!("{character}\"\\").repeat(20_000), ..product("q") };
    put(&f, vec![named("p", ROW_BYTES_MAX - 600)]).await.unwrap();
    // A database that keeps no U+0000 says so; U+0001 takes as much room.
    let kept = put(&f, vec![worst('\u{0}')]).await;
    assert!(matches!(&kept, Ok(_) | Err(StoreError::Refused { code: Code::MalformedRow, .. })), "{kept:?}");
    put(&f, vec![worst('\u{1}')]).await.unwrap();
    put_item(&f, "n".repeat(ROW_BYTES_MAX - 600)).await.unwrap();
    moved(&f, MoveKind::Count, "1000000000").await.unwrap();
    let snapshot = f.snapshot("a").await;
    assert_eq!(snapshot.ids().len(), 3);
    assert!(f.alarms("row_quarantined").await.is_empty());
    digests_of(&snapshot.lines);
}

pub async fn a_receipt_whose_row_would_not_fit_is_rejected(f: Fixture) {
    let f = f.shop().await;
    let id = "p".repeat(128);
    f.put_ids(&[&id]).await;
    let price = json!({"amount": 5_000_000, "currency": "IDR"});
    let mut sale = f.sale(1, &id, "1");
    let of_lines = |n: usize| -> Vec<_> {
        (1..=n).map(|n| json!({"line_no": n, "product_id": id, "quantity": "1", "unit_price": price, "total": price})).collect()
    };
    let mut lines = 1_000;
    while sale.to_string().len() > ROW_BYTES_MAX || lines == 1_000 {
        lines -= 1;
        sale["lines"] = json!(of_lines(lines));
        sale["total"] = json!({"amount": 5_000_000 * lines, "currency": "IDR"});
    }
    let room = ROW_BYTES_MAX - sale.to_string().len();
    sale["receipt_no"] = json!("R".repeat((room + 3).min(200)));
    assert!(sale.to_string().len() <= ROW_BYTES_MAX && room < 300);
    let verdict = f.accept_one("a", sale.clone()).await;
    assert_rejected(&verdict, Code::OperationTooLarge);
    assert_eq!(f.stock("a", &id).await, "0", "nothing of it happened");
    let halved = with(with(sale, "lines", json!(of_lines(500))), "total", json!({"amount": 500 * 5_000_000_i64, "currency": "IDR"}));
    let halved = with(with(halved, "id", json!(new_id().to_string())), "device_seq", json!(2));
    assert!(f.accept_one("a", halved).await.seq.is_some());
    assert!(f.alarms("row_quarantined").await.is_empty());
}

pub async fn a_stock_beyond_the_range_is_refused(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    moved(&f, MoveKind::Count, "1000000000").await.unwrap();
    assert_eq!(code(moved(&f, MoveKind::Delta, "0.001").await), Code::QuantityOutOfRange);
    assert_rejected(&f.accept_one("a", f.act(1, "receive", "product", "p", "1")).await, Code::QuantityOutOfRange);
    moved(&f, MoveKind::Delta, "-0.001").await.unwrap();
    assert_eq!(f.stock("a", "p").await, "999999999.999");
    assert!(f.alarms("row_quarantined").await.is_empty());
}

pub async fn a_price_below_zero_is_refused(f: Fixture) {
    let f = f.shop().await;
    assert_eq!(code(put(&f, vec![Product { price: money(-1), ..product("p") }]).await), Code::NegativePrice);
    put(&f, vec![Product { price: money(0), ..product("p") }]).await.unwrap();
    let own = |amount| SourceWrite::PutBranchPrice { key: branch("a"), product_id: "p".into(), price: Some(money(amount)) };
    assert_eq!(code(f.write(own(-1)).await), Code::NegativePrice);
    f.write(own(0)).await.unwrap();
}

pub async fn a_sku_belongs_to_one_product(f: Fixture) {
    let f = f.shop().await;
    let sku = |id: &str, sku: &str| Product { sku: sku.into(), ..product(id) };
    put(&f, vec![sku("p", "1"), sku("q", "2")]).await.unwrap();
    assert_eq!(code(put(&f, vec![sku("r", "1")]).await), Code::SkuTaken);
    assert_eq!(code(put(&f, vec![sku("q", "1")]).await), Code::SkuTaken);
    assert_eq!(code(put(&f, vec![sku("r", "3"), sku("s", "3")]).await), Code::SkuTaken);
    put(&f, vec![sku("p", "2"), sku("q", "1")]).await.unwrap();
    assert_eq!(f.row("a", "product", "p").await.unwrap()["sku"], "2", "two may exchange theirs");
    put(&f, vec![sku("r", ""), sku("s", "")]).await.unwrap();
    f.put_merchant(|m| m.merchant = MerchantId::parse("n").unwrap()).await.unwrap();
    let elsewhere = SourceWrite::PutProducts { merchant: MerchantId::parse("n").unwrap(), products: vec![sku("p", "1")] };
    f.write(elsewhere).await.unwrap();
    (f.sql)("UPDATE product SET sku = '2' WHERE merchant_id = 'm' AND id = 'q'");
    f.settle().await;
    let repriced = Product { price: money(7), ..sku("q", "2") };
    put(&f, vec![repriced]).await.unwrap();
    assert_eq!(f.row("a", "product", "q").await.unwrap()["price"]["amount"], 7, "what SQL made double can still be changed");
}
