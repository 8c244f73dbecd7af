//! Dead letters, journal files and the books of the stock over HTTP: what an operator's desk and a till's agree on.

use mstore_protocol::{BranchKey, Code, Collection};
use reqwest::Method;
use serde_json::{Value, json};

use crate::shop::{Answer, Shop, Till, new_id, sale};

const LETTERS: &str = "/merchants/m1/dead-letters";

async fn rejected(shop: &Shop, till: &Till) -> Value {
    let operation = sale(1, "later", "2");
    let answer = shop.sell(till, "b1", std::slice::from_ref(&operation)).await.ok();
    assert_eq!(answer["verdicts"][0]["code"], "unknown_product");
    operation
}

async fn stock_of(shop: &Shop, id: &str) -> Value {
    let every: Vec<u8> = (0..=255).collect();
    let (_, rows) = shop.store.rows(&BranchKey::parse("m1", "b1").unwrap(), &Collection::product(), &every).await.unwrap();
    let mut rows = rows.into_iter().map(|(row, _)| serde_json::from_str::<Value>(&row).unwrap());
    rows.find(|row| row["id"] == id).unwrap()["stock"].clone()
}

async fn decide(shop: &Shop, id: &Value, verb: &str, body: Value) -> Answer {
    shop.admin(Method::POST, &format!("{LETTERS}/{}/{verb}", id.as_str().unwrap()), body).await
}

async fn ask(shop: &Shop, till: &Till, body: Value) -> Answer {
    shop.call(Method::POST, "/v1/m1/b1/dead-letters", &till.bearer(), Some(body)).await
}

#[tokio::test]
async fn an_operator_settles_what_was_rejected_and_the_till_hears_of_it() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let operation = rejected(&shop, &till).await;
    let page = shop.admin(Method::GET, &format!("{LETTERS}?branch=b1&device=till-1"), Value::Null).await.ok();
    let letter = &page["items"][0];
    assert_eq!(
        (&letter["id"], &letter["code"], &letter["body"]["receipt_no"]),
        (&operation["id"], &json!("unknown_product"), &json!("R-1"))
    );
    assert!(letter["next"].as_str().is_some_and(|next| next.contains("create the product")), "{letter}");
    decide(&shop, &operation["id"], "retry", json!({})).await.problem(Code::UnknownProduct);
    shop.put_product("later", 10_000).await;
    let decided = decide(&shop, &operation["id"], "retry", json!({"reason": "product was made"})).await.ok();
    assert_eq!((&decided["branch"], &decided["verdict"]["status"]), (&json!("b1"), &json!("accepted")));
    assert_eq!(stock_of(&shop, "later").await, "-2");
    decide(&shop, &operation["id"], "discard", json!({})).await.problem(Code::AlreadyDecided);
    let heard = ask(&shop, &till, json!({"journal_id": "j1", "open": [operation["id"]]})).await.ok();
    assert_eq!((&heard["decisions"][0], heard["decisions"][0]["decided_by"].as_str()), (&decided["decision"], Some("operator")));
    let mut again = operation.clone();
    (again["id"], again["device_seq"], again["replaces"]) = (json!(new_id()), json!(2), operation["id"].clone());
    let verdict = shop.sell(&till, "b1", &[again]).await.ok()["verdicts"][0].clone();
    assert_eq!((&verdict["status"], &verdict["code"]), (&json!("rejected"), &json!("already_decided")));
    assert_eq!(stock_of(&shop, "later").await, "-2", "once");
    assert_eq!(shop.admin(Method::GET, LETTERS, Value::Null).await.ok()["items"], json!([]));
    shop.running.shutdown().await;
}

#[tokio::test]
async fn an_operator_corrects_and_wrong_bodies_decide_nothing() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let operation = rejected(&shop, &till).await;
    let mut correction = operation.clone();
    correction["lines"][0]["product_id"] = json!("tea");
    for wrong in [json!({"operation": {}}), json!({"operation": {"type": "gift"}})] {
        let answer = decide(&shop, &operation["id"], "edit", wrong).await;
        assert!(answer.status.is_client_error(), "{}", answer.json());
    }
    decide(&shop, &operation["id"], "edit", json!({"operation": 7})).await.problem(Code::MalformedRequest);
    decide(&shop, &json!("seven"), "discard", json!({})).await.problem(Code::MalformedRequest);
    decide(&shop, &json!(new_id()), "discard", json!({})).await.problem(Code::NotFound);
    decide(&shop, &operation["id"], "edit", json!({"operation": correction})).await.ok();
    assert_eq!(stock_of(&shop, "tea").await, "-2");
    shop.running.shutdown().await;
}

#[tokio::test]
async fn a_tills_decision_needs_a_till_of_the_branch() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let stranger = shop.enrol("till-2", "b2").await;
    let operation = rejected(&shop, &till).await;
    let told = json!({"journal_id": "j1", "decided": [{"id": operation["id"], "device_seq": 1}]});
    ask(&shop, &stranger, told.clone()).await.problem(Code::Forbidden);
    ask(&shop, &till, json!({"journal_id": "", "open": []})).await.problem(Code::MalformedRequest);
    let many: Vec<String> = (0..501).map(|_| new_id()).collect();
    ask(&shop, &till, json!({"journal_id": "j1", "open": many})).await.problem(Code::TooManyOperations);
    let heard = ask(&shop, &till, told).await.ok();
    assert_eq!(heard["decisions"][0]["decision"], "discarded");
    decide(&shop, &operation["id"], "retry", json!({})).await.problem(Code::AlreadyDecided);
    shop.running.shutdown().await;
}

#[tokio::test]
async fn a_journal_file_counts_once_before_and_after_the_tills_own_upload() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let operations = [sale(1, "tea", "1"), sale(2, "tea", "1"), sale(3, "tea", "1")];
    shop.sell(&till, "b1", &operations[..1]).await.ok();
    let file = json!({"format": "mstore-journal-1", "device_id": "till-1", "merchant": "m1", "branch": "b1", "journal_id": "j1",
        "exported_at": "2026-11-22T06:41:00.123Z", "operations": operations});
    let hand_in = async |body: &Value| shop.admin(Method::POST, "/devices/till-1/journal", body.clone()).await;
    let statuses = |answer: &Value| -> Vec<String> {
        answer["verdicts"].as_array().unwrap().iter().map(|verdict| verdict["status"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(statuses(&hand_in(&file).await.ok()), ["duplicate", "accepted", "accepted"]);
    assert_eq!(statuses(&hand_in(&file).await.ok()), ["duplicate", "duplicate", "duplicate"]);
    assert_eq!(statuses(&shop.sell(&till, "b1", &operations).await.ok()), ["duplicate", "duplicate", "duplicate"]);
    assert_eq!(stock_of(&shop, "tea").await, "-3");
    for (field, wrong, code) in [
        ("format", json!("other"), Code::MalformedRequest),
        ("device_id", json!("till-2"), Code::MalformedRequest),
        ("branch", json!("b2"), Code::Conflict),
        ("merchant", json!("m2"), Code::Conflict),
        ("journal_id", json!(""), Code::MalformedRequest),
        ("operations", json!(vec![json!({}); 501]), Code::TooManyOperations),
    ] {
        let mut wrong_file = file.clone();
        wrong_file[field] = wrong;
        hand_in(&wrong_file).await.problem(code);
    }
    let mut unknown = file.clone();
    unknown["device_id"] = json!("nobody");
    shop.admin(Method::POST, "/devices/nobody/journal", unknown).await.problem(Code::NotFound);
    shop.running.shutdown().await;
}

#[tokio::test]
async fn the_books_of_the_stock_are_on_the_managers_desk() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    shop.sell(&till, "b1", &[sale(1, "tea", "2")]).await.ok();
    let oversells = shop.admin(Method::GET, "/merchants/m1/oversells?branch=b1", Value::Null).await.ok();
    let found = &oversells["items"][0];
    assert_eq!((&found["item_id"], &found["stock_after"], &found["receipt_no"]), (&json!("tea"), &json!("-2"), &json!("R-1")));
    let settle = format!("/merchants/m1/oversells/{}/settle", found["n"]);
    assert_eq!(shop.admin(Method::POST, &settle, json!({"note": "delivery came late"})).await.status, 204);
    assert_eq!(shop.admin(Method::GET, "/merchants/m1/oversells", Value::Null).await.ok()["items"], json!([]));

    shop.admin(Method::PUT, "/merchants/m1/transfer-arrival", json!({"arrival": "later"})).await.problem(Code::MalformedRequest);
    assert_eq!(shop.admin(Method::PUT, "/merchants/m1/transfer-arrival", json!({"arrival": "on_receipt"})).await.status, 204);
    let sent = json!({"id": new_id(), "device_seq": 2, "type": "transfer", "occurred_at": "2026-11-22T06:41:00.123Z", "collection": "product",
        "item_id": "tea", "quantity": "3", "reason": "b2 has none", "to_branch": "b2"});
    shop.sell(&till, "b1", std::slice::from_ref(&sent)).await.ok();
    let transfers = shop.admin(Method::GET, "/merchants/m1/transfers", Value::Null).await.ok();
    assert_eq!((&transfers["items"][0]["id"], &transfers["items"][0]["arrived_at"]), (&sent["id"], &Value::Null));
    assert_eq!(shop.admin(Method::GET, "/merchants/m1/transfers/balance", Value::Null).await.ok()["is_balanced"], true);
    let receive = |branch: &str| format!("/merchants/m1/branches/{branch}/transfers/{}/receive", sent["id"].as_str().unwrap());
    shop.admin(Method::POST, &receive("b1"), Value::Null).await.problem(Code::Conflict);
    let received = shop.admin(Method::POST, &receive("b2"), Value::Null).await.ok();
    assert_eq!((&received["duplicate"], &received["seqs"][0]["branch"]), (&json!(false), &json!("b2")));
    assert_eq!(shop.admin(Method::POST, &receive("b2"), Value::Null).await.ok()["duplicate"], true);
    shop.call(Method::GET, "/v1/admin/merchants/m1/oversells", &till.bearer(), None).await.problem(Code::Forbidden);
    shop.running.shutdown().await;
}
