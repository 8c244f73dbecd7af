//! What a newcomer opens: the page, the health, the OpenAPI document; and that the document tells the truth.

use reqwest::{Method, StatusCode};

use crate::shop::Shop;

#[tokio::test]
async fn the_page_health_and_document_are_open_to_anyone() {
    let shop = Shop::open().await;
    let get = async |path: &str| shop.http.get(shop.url(path)).send().await.unwrap();
    let home = get("/").await;
    assert!(home.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let home = home.text().await.unwrap();
    for link in ["/openapi.json", "/readyz", "/healthz", "/metrics"] {
        assert!(home.contains(&format!("href={link}")), "{link}");
        assert_eq!(get(link).await.status(), StatusCode::OK, "{link}");
    }
    assert!(get("/healthz").await.headers().get("date").is_none(), "an idle poll pays for every header");
}

#[tokio::test]
async fn every_documented_route_answers_and_asks_for_credentials() {
    let shop = Shop::open().await;
    let document: serde_json::Value = serde_json::from_str(&mstore_server::openapi_json()).unwrap();
    let open = ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/devices/enrol"];
    let mut routes = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let concrete = path.replace("{merchant}", "m1").replace("{branch}", "b1").replace("{id}", "x");
        let concrete = concrete.replace("{product_id}", "x").replace("{device}", "x").replace("{name}", "x");
        assert!(!concrete.contains('{'), "{concrete}");
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            routes += 1;
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = shop.http.request(method.clone(), shop.url(&concrete)).send().await.unwrap();
            let status = answer.status();
            if open.contains(&path.as_str()) {
                assert!(status != StatusCode::UNAUTHORIZED && status != StatusCode::NOT_FOUND, "{method} {path}: {status}");
            } else {
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
                assert_eq!(answer.headers()["content-type"], "application/problem+json");
            }
        }
    }
    assert!(routes >= 40, "{routes}");
}
