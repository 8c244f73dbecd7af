//! What operators start: the full sweep.

use reqwest::Method;
use serde_json::Value;

use crate::shop::Shop;

#[tokio::test]
async fn verify_compares_everything_and_finds_nothing_to_mend() {
    let shop = Shop::open().await;
    shop.import(300).await;
    let verified = shop.admin(Method::POST, "/verify", Value::Null).await.ok();
    assert_eq!((&verified["clean"], &verified["differing"]), (&Value::Bool(true), &Value::from(0)));
    // Two branches see 302 products each.
    assert!(verified["compared"].as_u64().unwrap() >= 604, "{verified}");
}
