//! Backends that share no database tell of changes, and every write of the back office reaches the devices.

use mstore_protocol::Code;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::shop::{Shop, new_id};

async fn row(shop: &Shop, collection: &str, id: &str) -> Value {
    let all = (0..=255).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let path = format!("/v1/m1/b1/rows?collection={collection}&range={all}");
    let rows = shop.call(Method::GET, &path, shop.admin_token(), None).await.ok();
    let found = rows["rows"].as_array().unwrap().iter().find(|row| row["row"]["id"] == id);
    found.map_or(Value::Null, |row| row["row"].clone())
}

#[tokio::test]
async fn an_event_counts_once_and_never_goes_back() {
    let shop = Shop::open().await;
    let settings = json!({"name": "Kopi", "currency": "IDR", "stock_authority": "backend"});
    shop.admin(Method::PUT, "/merchants/m1", settings).await.ok();
    let tell = async |key: &str, version: u64, stock: &str| {
        let event = json!({
            "type": "product_stock_updated", "idempotency_key": key, "version": version, "product_id": "tea", "stock": stock
        });
        shop.call(Method::POST, "/v1/m1/b1/events", shop.admin_token(), Some(event)).await.ok()
    };
    let first = tell("k1", 5, "41").await;
    assert_eq!(first["status"], "accepted");
    assert!(first["seq"].is_u64());
    assert_eq!(row(&shop, "product", "tea").await["stock"], "41");
    let again = tell("k1", 5, "41").await;
    assert_eq!(again["status"], "duplicate");
    let stale = tell("k2", 4, "99").await;
    assert_eq!((&stale["status"], &stale["code"]), (&json!("stale"), &json!("stale_event")));
    assert_eq!(row(&shop, "product", "tea").await["stock"], "41");

    let till = shop.enrol("till-1", "b1").await;
    shop.call(Method::POST, "/v1/m1/b1/events", &till.bearer(), Some(json!({}))).await.problem(Code::Forbidden);
    shop.call(Method::POST, "/v1/m1/b1/events", shop.admin_token(), Some(json!({"type": "gift"}))).await.problem(Code::MalformedRequest);
}

#[tokio::test]
async fn an_event_that_says_more_than_an_event_is_refused() {
    let shop = Shop::open().await;
    let tell = |body: Value| shop.call(Method::POST, "/v1/m1/b1/events", shop.admin_token(), Some(body));
    let event =
        json!({"type": "product_stock_updated", "idempotency_key": "k", "version": 1, "product_id": "tea", "stock": "41", "opps": []});
    let problem = tell(event).await.problem(Code::MalformedRequest);
    assert!(problem.detail.contains("`opps`") && problem.detail.contains("did you mean \"ops\"?"), "{}", problem.detail);
    let created =
        |transaction: Value| json!({"type": "transaction_created", "idempotency_key": "k", "version": 1, "transaction": transaction});
    tell(created(json!({"id": "t", "total": 1.5}))).await.problem(Code::FloatRefused);
    tell(created(json!({"id": "t", "total": 9_007_199_254_740_992_i64}))).await.problem(Code::IntegerOutOfRange);
    tell(created(json!({"id": "t", "note": "x".repeat(300_000)}))).await.problem(Code::RowTooLarge);
    tell(created(json!({"total": 1}))).await.problem(Code::MalformedRow);
    assert_eq!(row(&shop, "product", "tea").await["stock"], "0");
}

#[tokio::test]
async fn back_office_writes_reach_the_rows() {
    let shop = Shop::open().await;
    let b1 = "/merchants/m1/branches/b1";
    let item = json!({"name": "Milk", "unit": "l", "reorder_level": "2.5"});
    shop.admin(Method::PUT, &format!("{b1}/inventory/milk"), item).await.ok();
    let many = json!({"items": [{"id": "sugar", "name": "Sugar", "unit": "kg"}]});
    shop.admin(Method::POST, &format!("{b1}/inventory"), many).await.ok();
    let moves = json!({"moves": [
        {"id": new_id(), "collection": "inventory", "item_id": "milk", "quantity": "10.25", "reason": "delivery"},
        {"id": new_id(), "collection": "product", "item_id": "tea", "kind": "count", "quantity": "41"},
    ]});
    let moved = shop.admin(Method::POST, &format!("{b1}/stock-moves"), moves.clone()).await.ok();
    assert_eq!((moved["duplicate"].clone(), moved["seqs"].as_array().unwrap().len()), (json!(false), 1));
    shop.admin(Method::POST, &format!("{b1}/stock-moves"), moves).await.ok();
    let milk = row(&shop, "inventory", "milk").await;
    assert_eq!((&milk["quantity"], &milk["reorder_level"]), (&json!("10.25"), &json!("2.5")), "moved once");
    assert_eq!(row(&shop, "product", "tea").await["stock"], "41");
    let listed = shop.admin(Method::GET, &format!("{b1}/stock-moves"), Value::Null).await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);

    let recipe = json!({"lines": [{"item_id": "milk", "quantity": "0.25"}]});
    shop.admin(Method::PUT, "/merchants/m1/products/tea/recipe", recipe).await.ok();
    assert_eq!(row(&shop, "product", "tea").await["recipe"], json!([{"item_id": "milk", "quantity": "0.25"}]));
    let price = json!({"price": {"amount": 7, "currency": "IDR"}});
    shop.admin(Method::PUT, &format!("{b1}/prices/tea"), price).await.ok();
    assert_eq!(row(&shop, "product", "tea").await["price"]["amount"], 7);
    shop.admin(Method::DELETE, &format!("{b1}/prices/tea"), Value::Null).await.ok();
    assert_eq!(row(&shop, "product", "tea").await["price"]["amount"], 10_000);
    shop.admin(Method::DELETE, &format!("{b1}/inventory/sugar"), Value::Null).await.ok();
    assert_eq!(row(&shop, "inventory", "sugar").await, Value::Null);

    for (path, field, value) in [
        ("/merchants/m1".to_owned(), "currency", "IDR"),
        (b1.to_owned(), "branch", "b1"),
        ("/merchants/m1/products/tea".to_owned(), "sku", "tea"),
        (format!("{b1}/inventory/milk"), "unit", "l"),
    ] {
        assert_eq!(shop.admin(Method::GET, &path, Value::Null).await.ok()[field], value, "{path}");
    }
    let page = shop.admin(Method::GET, "/merchants/m1/products?limit=1", Value::Null).await.ok();
    let next = page["next"].as_str().unwrap();
    let rest = shop.admin(Method::GET, &format!("/merchants/m1/products?limit=1&after={next}"), Value::Null).await.ok();
    assert_ne!(rest["items"][0]["id"], page["items"][0]["id"]);
    assert_eq!(shop.admin(Method::GET, &format!("{b1}/inventory/none"), Value::Null).await.status, StatusCode::NOT_FOUND);
}
