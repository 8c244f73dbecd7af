//! Requests that cannot be carried out: a stable code each, in the one shape, and nothing lost.

use mstore_protocol::Code;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::shop::{Answer, DEADLINE, Shop, sale};

#[tokio::test]
async fn whatever_is_refused_is_refused_as_a_problem() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    shop.get(&till, "/nothing/here").await.problem(Code::NotFound);
    shop.get(&till, "/v1/m1/b1").await.problem(Code::NotFound);
    let wrong_method = shop.call(Method::PATCH, "/v1/m1/b1/head", &till.bearer(), None).await;
    wrong_method.problem(Code::MalformedRequest);
    assert_eq!(wrong_method.status, StatusCode::METHOD_NOT_ALLOWED);
    shop.get(&till, "/v1/m1/b1/changes?after=x").await.problem(Code::MalformedCursor);
    shop.get(&till, "/v1/m1/b1/digests").await.problem(Code::MalformedRequest);
    shop.get(&till, "/v1/m1/b1/digests?collection=a%2Fb").await.problem(Code::MalformedRequest);
    shop.get(&till, "/v1/m%201/b1/head").await.problem(Code::MalformedRequest);
    shop.get(&till, "/v1/m1/%ff/head").await.problem(Code::MalformedRequest);
    shop.get(&till, "/v1/devices/b1/head").await.problem(Code::MalformedRequest);
    shop.admin(Method::GET, "/devices?limit=0", Value::Null).await.problem(Code::MalformedRequest);
    shop.admin(Method::GET, "/devices?limit=many", Value::Null).await.problem(Code::MalformedRequest);
    shop.admin(Method::GET, "/devices?merchant=m1", Value::Null).await.problem(Code::MalformedRequest);
    shop.admin(Method::GET, "/devices/nobody", Value::Null).await.problem(Code::NotFound);
    shop.admin(Method::GET, "/merchants/nobody", Value::Null).await.problem(Code::NotFound);
}

#[tokio::test]
async fn a_malformed_body_says_where() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let post = async |kind: &str, body: &str| {
        let request = shop.http.post(shop.url("/v1/m1/b1/operations")).bearer_auth(till.bearer());
        Answer::of(request.header(header::CONTENT_TYPE, kind).body(body.to_owned()).send().await.unwrap()).await
    };
    let problem = post("application/json", "{\"journal_id\":\"j\",\n\"operations\": oops}").await.problem(Code::MalformedRequest);
    assert!(problem.detail.contains("line 2"), "{}", problem.detail);
    let problem = post("application/json", "{\"operations\":[]}").await.problem(Code::MalformedRequest);
    assert!(problem.detail.contains("journal_id"), "{}", problem.detail);
    post("application/json", "").await.problem(Code::MalformedRequest);
    post("application/json", "{\"journal_id\":\"\",\"operations\":[]}").await.problem(Code::MalformedRequest);
    let wrong_type = post("text/plain", "{}").await;
    wrong_type.problem(Code::MalformedRequest);
    assert_eq!(wrong_type.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn too_much_at_once_is_refused_whole_and_halves_get_through() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let operations: Vec<Value> = (1..=501).map(|n| sale(n, "tea", "1")).collect();
    shop.sell(&till, "b1", &operations).await.problem(Code::TooManyOperations);
    assert_eq!(shop.sell(&till, "b1", &operations[..500]).await.ok()["verdicts"].as_array().unwrap().len(), 500);
    let body = vec![b' '; 9 * 1024 * 1024];
    let request = shop.http.post(shop.url("/v1/m1/b1/operations")).bearer_auth(till.bearer()).body(body);
    Answer::of(request.send().await.unwrap()).await.problem(Code::BodyTooLarge);
}

/// Sends all of a body before it reads a byte of the answer, as plain clients do.
async fn upload_blindly(shop: &Shop, path: &str, bearer: &str, bytes: usize) -> String {
    let mut stream = tokio::net::TcpStream::connect(shop.running.http_addr()).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b' '; 1024 * 1024];
    for _ in 0..bytes / piece.len() {
        stream.write_all(&piece).await.unwrap();
    }
    let mut answer = vec![0; 4_096];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn whoever_sends_far_too_much_can_still_read_why_it_was_refused() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let far_too_much = 40 * 1024 * 1024;
    let sent =
        async |path: &str, bearer: &str| tokio::time::timeout(DEADLINE, upload_blindly(&shop, path, bearer, far_too_much)).await.unwrap();
    let answer = sent("/v1/m1/b1/operations", &till.bearer()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    let answer = sent("/v1/m1/b1/operations", "till-1:guess").await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("credentials_refused"), "{answer}");
    let answer = sent("/v1/admin/verify", &till.bearer()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("forbidden"), "{answer}");
}

#[tokio::test]
async fn an_unknown_collection_is_not_an_empty_one() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    for path in ["digests?collection=prodct", "rows?collection=prodct&range=0"] {
        let problem = shop.get(&till, &format!("/v1/m1/b1/{path}")).await.problem(Code::UnknownCollection);
        assert!(problem.detail.contains("did you mean \"product\"?"), "{}", problem.detail);
    }
    shop.admin(Method::GET, "/tail?collection=nope", Value::Null).await.problem(Code::UnknownCollection);
}

#[tokio::test]
async fn what_would_be_quarantined_is_refused_at_the_door() {
    let shop = Shop::open().await;
    let price = json!({"amount": 1, "currency": "IDR"});
    let put = |name: String, price: &Value| {
        shop.admin(Method::PUT, "/merchants/m1/products/wide", json!({"sku": "wide", "name": name, "price": price}))
    };
    let refused = put("x".repeat(300_000), &price).await;
    refused.problem(Code::RowTooLarge);
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    put("x".into(), &json!({"amount": -1, "currency": "IDR"})).await.problem(Code::NegativePrice);
    let twin = json!({"sku": "tea", "name": "Tea", "price": price});
    shop.admin(Method::PUT, "/merchants/m1/products/twin", twin).await.problem(Code::SkuTaken);
    put("x".repeat(200_000), &price).await.ok();
    let alarms = shop.admin(Method::GET, "/alarms", Value::Null).await.ok();
    assert_eq!(alarms["items"], json!([]));
}

#[tokio::test]
async fn admin_bodies_are_checked() {
    let shop = Shop::open().await;
    let put = |path: &'static str, body: Value| shop.admin(Method::PUT, path, body);
    let price = json!({"amount": 1, "currency": "IDR"});
    let misspelt = json!({"sku": "a", "name": "A", "price": price, "is_activ": false});
    let problem = put("/merchants/m1/products/a", misspelt).await.problem(Code::MalformedRequest);
    assert!(problem.detail.contains("is_activ"), "{}", problem.detail);
    put("/merchants/m1/products/a", json!({"sku": "a", "name": "A", "price": {"amount": 1.5, "currency": "IDR"}}))
        .await
        .problem(Code::MalformedRequest);
    put("/merchants/m1/products/a", json!({"id": "b", "sku": "a", "name": "A", "price": price})).await.problem(Code::MalformedRequest);
    let foreign = put("/merchants/m1/products/a", json!({"sku": "a", "name": "A", "price": {"amount": 1, "currency": "USD"}})).await;
    foreign.problem(Code::CurrencyDiffers);
    assert_eq!(foreign.status, StatusCode::UNPROCESSABLE_ENTITY);
    put("/merchants/admin", json!({"name": "A", "currency": "IDR"})).await.problem(Code::MalformedRequest);
    let unknown = put("/merchants/nobody/branches/b", json!({"name": "B"})).await;
    assert!(unknown.status.is_client_error(), "{}", unknown.status);
    let import = json!({"products": [{"sku": "a", "name": "A", "price": price}]});
    let problem = shop.admin(Method::POST, "/merchants/m1/products", import).await.problem(Code::MalformedRequest);
    assert!(problem.detail.contains("products[0]"), "{}", problem.detail);
    let missing = json!({"device_id": "x", "merchant": "m1", "branch": "nowhere"});
    let refused = shop.admin(Method::POST, "/devices", missing).await;
    assert!(refused.status.is_client_error(), "{}", refused.status);
}
