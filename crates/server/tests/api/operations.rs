//! Uploads: exactly once, each judged on its own.

use mstore_protocol::Code;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::shop::{Answer, Shop, new_id, sale};

#[tokio::test]
async fn one_bad_operation_never_blocks_the_others() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let mut odd_currency = sale(3, "tea", "1");
    odd_currency["total"]["currency"] = json!("USD");
    let mut float = sale(5, "tea", "1");
    float["lines"][0]["quantity"] = json!(1.5);
    let operations = [
        sale(1, "tea", "1"),
        sale(2, "nothing", "1"),
        odd_currency,
        sale(4, "tea", "-1"),
        float,
        json!({"id": new_id(), "device_seq": 6, "type": "gift"}),
        json!(7),
        sale(8, "tea", "1.2500"),
        sale(9, "cake", "2"),
    ];
    let answer = shop.sell(&till, "b1", &operations).await.ok();
    let verdicts: Vec<(&str, &str)> = answer["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|verdict| (verdict["status"].as_str().unwrap(), verdict["code"].as_str().unwrap_or("")))
        .collect();
    let statuses: Vec<&str> = verdicts.iter().map(|(status, _)| *status).collect();
    let (yes, no) = ("accepted", "rejected");
    assert_eq!(statuses, [yes, no, no, no, no, no, no, no, yes]);
    let codes: Vec<&str> = verdicts.iter().filter(|(status, _)| *status == no).map(|(_, code)| *code).collect();
    assert_eq!(codes[..4], ["unknown_product", "currency_differs", "negative_quantity", "float_refused"]);
    assert_eq!(codes[6], "malformed_quantity");
    let head = shop.head(&till).await;
    assert_eq!(answer["verdicts"][8]["seq"], head.seq);

    // The same again: accepted ones are duplicates with the first seq, rejected ones are rejected alike.
    let again = shop.sell(&till, "b1", &operations).await.ok();
    assert_eq!((&again["verdicts"][0]["status"], &again["verdicts"][0]["seq"]), (&json!("duplicate"), &answer["verdicts"][0]["seq"]));
    assert_eq!(again["verdicts"][1], answer["verdicts"][1]);
    assert_eq!(shop.head(&till).await.seq, head.seq, "nothing happened twice");

    let mut other_body = operations[0].clone();
    other_body["receipt_no"] = json!("R-other");
    let reused = shop.sell(&till, "b1", &[other_body]).await.ok();
    assert_eq!((&reused["verdicts"][0]["status"], &reused["verdicts"][0]["code"]), (&json!("rejected"), &json!("id_reused")));
}

#[tokio::test]
async fn a_moved_device_may_still_upload_for_its_former_branch() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let stranger = shop.enrol("till-2", "b2").await;
    shop.sell(&stranger, "b1", &[sale(1, "tea", "1")]).await.problem(Code::Forbidden);
    shop.admin(Method::POST, "/devices/till-1/move", json!({"branch": "b2"})).await.ok();
    let answer = shop.sell(&till, "b1", &[sale(1, "tea", "1")]).await.ok();
    assert_eq!(answer["verdicts"][0]["status"], "accepted");
    let sold = shop.admin(Method::GET, "/merchants/m1/branches/b1/transactions", Value::Null).await.ok();
    assert_eq!(sold["items"].as_array().unwrap().len(), 1);
    let received = shop.admin(Method::GET, "/merchants/m1/branches/b1/operations", Value::Null).await.ok();
    assert_eq!(received["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn compressed_uploads_are_taken_and_bombs_and_stumps_refused() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let body = serde_json::to_vec(&json!({"journal_id": "j1", "operations": [sale(1, "tea", "1")]})).unwrap();
    let post = async |coding: &str, body: Vec<u8>| {
        let request = shop.http.post(shop.url("/v1/m1/b1/operations")).bearer_auth(till.bearer());
        let request = request.header(header::CONTENT_TYPE, "application/json").header(header::CONTENT_ENCODING, coding);
        Answer::of(request.body(body).send().await.unwrap()).await
    };
    let gzip = |plain: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, plain).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(post("gzip", gzip(&body)).await.ok()["verdicts"][0]["status"], "accepted");
    let zstd = zstd::bulk::compress(&body, 3).unwrap();
    assert_eq!(post("zstd", zstd.clone()).await.ok()["verdicts"][0]["status"], "duplicate");
    let mut stump = gzip(&body);
    stump.truncate(stump.len() / 2);
    post("gzip", stump).await.problem(Code::MalformedRequest);
    post("zstd", zstd[..zstd.len() / 2].to_vec()).await.problem(Code::MalformedRequest);
    post("gzip", gzip(&vec![b' '; 20_000_000])).await.problem(Code::BodyTooLarge);
    assert_eq!(post("br", body).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}
