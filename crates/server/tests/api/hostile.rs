//! Every route that takes a body, with bodies that nobody means well: a problem with a stable code each time, never a fault of the server.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use mstore_protocol::{Code, Problem};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    routes::{Route, routes},
    shop::{Answer, Shop, Till, new_id, sale},
};

struct Gate {
    shop: Shop,
    till: Till,
    code: String,
    /// A token that changes itself.
    rotated: String,
}

impl Gate {
    async fn open() -> Self {
        let shop = Shop::open().await;
        let till = shop.enrol("till-1", "b1").await;
        shop.enrol("till-2", "b1").await;
        let code = shop.claim("till-5", "b1").await;
        shop.token("desk", "read_only", None).await;
        let rotated = shop.token("rotated", "merchant", Some("m1")).await;
        Self { shop, till, code, rotated }
    }

    /// A body that the route understands, as often as it is sent.
    fn good(&self, route: &Route) -> Value {
        let money = json!({"amount": 1_000, "currency": "IDR"});
        let product = json!({"id": "tea", "sku": "tea", "name": "Tea", "unit": "pcs", "price": money, "is_active": true});
        let item = json!({"id": "tea", "name": "Tea", "unit": "kg", "reorder_level": "1"});
        match route.name().as_str() {
            "PUT /v1/admin/merchants/{merchant}" => json!({"name": "Kopi", "currency": "IDR", "stock_policy": "warn"}),
            "PUT /v1/admin/merchants/{merchant}/branches/{branch}" => json!({"name": "One", "branch": "b1"}),
            "POST /v1/admin/merchants/{merchant}/products" => json!({"products": [product]}),
            "PUT /v1/admin/merchants/{merchant}/products/{id}" => product,
            "PUT /v1/admin/merchants/{merchant}/products/{id}/recipe" => json!({"lines": [{"item_id": "tea", "quantity": "1"}]}),
            "PUT /v1/admin/merchants/{merchant}/branches/{branch}/prices/{product_id}" => json!({"price": money}),
            "POST /v1/admin/merchants/{merchant}/branches/{branch}/inventory" => json!({"items": [item]}),
            "PUT /v1/admin/merchants/{merchant}/branches/{branch}/inventory/{id}" => item,
            "POST /v1/admin/merchants/{merchant}/branches/{branch}/stock-moves" => {
                json!({"moves": [{"id": new_id(), "collection": "product", "item_id": "tea", "quantity": "1", "reason": "test"}]})
            }
            "POST /v1/admin/devices" => json!({"device_id": "till-6", "merchant": "m1", "branch": "b1", "name": "Six"}),
            "POST /v1/admin/devices/{device}/move" => json!({"branch": "b1", "merchant": "m1"}),
            "POST /v1/{merchant}/{branch}/operations" => {
                json!({"journal_id": "j", "clock_offset_ms": 0, "operations": [sale(1, "tea", "1")]})
            }
            "POST /v1/{merchant}/{branch}/events" => {
                json!({"type": "product_stock_updated", "idempotency_key": "k", "version": 1, "product_id": "tea", "stock": "41"})
            }
            "PUT /v1/admin/merchants/{merchant}/transfer-arrival" => json!({"arrival": "at_once"}),
            "POST /v1/admin/merchants/{merchant}/dead-letters/{id}/retry"
            | "POST /v1/admin/merchants/{merchant}/dead-letters/{id}/discard" => {
                json!({"reason": "test"})
            }
            "POST /v1/admin/merchants/{merchant}/dead-letters/{id}/edit" => json!({"operation": sale(1, "tea", "1"), "reason": "test"}),
            "POST /v1/admin/merchants/{merchant}/inbox/{id}/verdict" => json!({"verdict": "accepted"}),
            "POST /v1/admin/merchants/{merchant}/oversells/{id}/settle" => json!({"note": "test"}),
            "POST /v1/admin/devices/{device}/journal" => json!({
                "format": "mstore-journal-1", "device_id": "till-2", "merchant": "m1", "branch": "b1", "journal_id": "j2",
                "exported_at": "2026-11-22T06:41:00.123Z", "operations": []
            }),
            "POST /v1/admin/tokens" => json!({"name": "guest", "role": "read_only", "merchant": "m1", "expires_in_s": 60}),
            "POST /v1/admin/tokens/{name}/rotate" | "POST /v1/admin/token/rotate" => json!({"overlap_s": 60}),
            "POST /v1/{merchant}/{branch}/dead-letters" => json!({"journal_id": "j", "open": [new_id()]}),
            "POST /v1/devices/enrol" => json!({"code": self.code, "nonce": "nonce-of-till-5"}),
            "POST /v1/devices/self/report" => json!({
                "state": "live", "queue_depth": 0, "oldest_pending_s": 0, "device_time": "2026-11-22T06:41:00.123Z", "client_version": "1"
            }),
            other => panic!("{other} takes a body: say here which one it accepts"),
        }
    }

    async fn send(&self, route: &Route, headers: &[(header::HeaderName, &str)], body: Vec<u8>) -> Answer {
        let bearer = match (is_for_admins(route), &*route.path) {
            // Else this token would be another one soon.
            (true, "/v1/admin/token/rotate") => self.rotated.clone(),
            (true, _) => self.shop.admin_token().to_owned(),
            (false, _) => self.till.bearer(),
        };
        let mut request = self.shop.http.request(route.method.clone(), self.shop.url(&route.concrete())).bearer_auth(bearer).body(body);
        if !headers.iter().any(|(name, _)| name == header::CONTENT_TYPE) {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        Answer::of(request.send().await.unwrap()).await
    }
}

fn is_for_admins(route: &Route) -> bool {
    route.roles.iter().any(|role| role == "admin")
}

/// Administrators and backends are told of a field that nobody reads; what a till of tomorrow made may say more than today's server knows.
fn is_strict(route: &Route) -> bool {
    is_for_admins(route) && !route.path.ends_with("/journal")
}

/// A refusal of the caller, in the shape of the contract.
#[track_caller]
fn assert_problem(answer: &Answer, what: &str) -> Problem {
    let text = String::from_utf8_lossy(&answer.body);
    assert!(answer.status.is_client_error(), "{what}: {} {text}", answer.status);
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
    assert!(Code::ALL.contains(&problem.code) && problem.status == answer.status.as_u16(), "{what}: {text}");
    assert!(text.len() < 4_000, "{what}: an answer of {} bytes repeats what it was given", text.len());
    problem
}

/// Texts that are no object of JSON, or not one only.
fn broken(good: &str) -> Vec<(&'static str, Vec<u8>)> {
    let first_key = good[1..].split(':').next().unwrap();
    let deep = format!("{{{first_key}:{}1{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let utf_16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        ("nothing", vec![]),
        ("spaces", b" \n\t ".to_vec()),
        ("null", b"null".to_vec()),
        ("a number", b"1e400".to_vec()),
        ("a string", b"\"text\"".to_vec()),
        ("a list", format!("[{good}]").into_bytes()),
        ("cut off", good.as_bytes()[..good.len() - 1].to_vec()),
        ("garbage behind", format!("{good}x").into_bytes()),
        ("itself behind", format!("{good}{good}").into_bytes()),
        ("a zero byte behind", format!("{good}\0").into_bytes()),
        ("a byte order mark", format!("\u{feff}{good}").into_bytes()),
        ("UTF-16", utf_16),
        ("a key that is not UTF-8", [&b"{\"\xff\":1,"[..], &good.as_bytes()[1..]].concat()),
        ("half a surrogate", format!("{{\"\\ud800\":1,{}", &good[1..]).into_bytes()),
        ("the first key twice", format!("{{{first_key}:null,{}", &good[1..]).into_bytes()),
        ("nested deeply", deep.into_bytes()),
        ("opened for ever", b"{\"a\":".repeat(100_000)),
    ]
}

#[tokio::test]
async fn what_is_not_one_json_object_is_refused_everywhere() {
    let gate = Gate::open().await;
    for route in routes().iter().filter(|route| route.takes_body) {
        let good = gate.good(route).to_string();
        let answer = gate.send(route, &[], good.clone().into_bytes()).await;
        // There is no dead letter to decide on; that it is looked for shows that the body was understood.
        let is_understood = answer.status.is_success() || (answer.status == StatusCode::NOT_FOUND && route.path.contains("/{id}/"));
        assert!(is_understood, "{}: {}", route.name(), String::from_utf8_lossy(&answer.body));
        for (what, body) in broken(&good) {
            let answer = gate.send(route, &[], body).await;
            assert_problem(&answer, &format!("{}: {what}", route.name()));
        }
    }
}

#[tokio::test]
async fn what_is_not_sent_as_json_is_refused_everywhere() {
    let gate = Gate::open().await;
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(&vec![b' '; 40 * 1024 * 1024]).unwrap();
    let bomb = bomb.finish().unwrap();
    for route in routes().iter().filter(|route| route.takes_body) {
        let good = gate.good(route).to_string().into_bytes();
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", "json", ""]
        {
            let answer = gate.send(route, &[(header::CONTENT_TYPE, kind)], good.clone()).await;
            assert_problem(&answer, &format!("{} as {kind:?}", route.name()));
            assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{} as {kind:?}", route.name());
        }
        let coded = async |coding: &str, body: &[u8]| {
            let answer = gate.send(route, &[(header::CONTENT_ENCODING, coding)], body.to_vec()).await;
            assert_problem(&answer, &format!("{} in {coding}", route.name()));
            answer.status
        };
        assert_eq!(coded("gzip", &good).await, StatusCode::BAD_REQUEST);
        assert_eq!(coded("zstd", &good).await, StatusCode::BAD_REQUEST);
        assert_eq!(coded("gzip", &bomb[..bomb.len() / 2]).await, StatusCode::PAYLOAD_TOO_LARGE, "before its end is looked for");
        assert_eq!(coded("br", &good).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(coded("gzip, gzip", &good).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(coded("gzip", &bomb).await, StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test]
async fn no_value_of_any_field_is_a_fault_of_the_server() {
    let gate = Gate::open().await;
    let long = "x".repeat(300_000);
    let values = [
        json!(null),
        json!(-1),
        json!(u64::MAX),
        json!(1.5),
        json!(true),
        json!(""),
        json!("\u{0}\u{ffff}'\"; --"),
        json!("../admin"),
        json!(long),
        json!([]),
        json!([[], {}, null]),
        json!({"amount": i64::MIN, "currency": "IDR"}),
    ];
    for route in routes().iter().filter(|route| route.takes_body) {
        let good = gate.good(route);
        for key in good.as_object().unwrap().keys() {
            for (n, value) in values.iter().enumerate() {
                let mut body = good.clone();
                body[key] = value.clone();
                let answer = gate.send(route, &[], body.to_string().into_bytes()).await;
                let what = format!("{}: {key} = value {n}", route.name());
                if !answer.status.is_success() {
                    assert_problem(&answer, &what);
                }
            }
        }
    }
    // What was let in can be read again.
    for route in routes()
        .iter()
        .filter(|route| route.method == Method::GET && route.path.starts_with("/v1/admin/") && !route.path.ends_with("/tail"))
    {
        let answer = gate.send(route, &[], vec![]).await;
        assert!(!answer.status.is_server_error(), "{}: {}", route.name(), String::from_utf8_lossy(&answer.body));
    }
}

#[tokio::test]
async fn a_misspelt_field_is_named_with_what_it_may_have_meant() {
    let gate = Gate::open().await;
    let mut tried = 0;
    for route in routes().iter().filter(|route| route.takes_body && is_strict(route)) {
        let good = gate.good(route);
        for key in good.as_object().unwrap().keys().filter(|key| key.len() >= 4 && *key != "type") {
            tried += 1;
            let misspelt = format!("{key}s");
            let mut body = good.clone();
            body[&misspelt] = body[key].take();
            body.as_object_mut().unwrap().remove(key);
            let problem =
                assert_problem(&gate.send(route, &[], body.to_string().into_bytes()).await, &format!("{}: {misspelt}", route.name()));
            assert_eq!(problem.code, Code::MalformedRequest);
            assert!(problem.detail.contains(&format!("`{misspelt}`")), "{}", problem.detail);
            assert!(problem.detail.contains(&format!("did you mean {key:?}?")), "{}", problem.detail);
        }
    }
    assert!(tried >= 25, "{tried}");
    let put =
        |price: Value| gate.shop.admin(Method::PUT, "/merchants/m1/products/tea", json!({"sku": "tea", "name": "Tea", "price": price}));
    let problem = put(json!({"amount": 1, "currency": "IDR", "currancy": "IDR"})).await.problem(Code::MalformedRequest);
    assert!(problem.detail.contains("did you mean \"currency\"?"), "{}", problem.detail);
}

#[tokio::test]
async fn an_unknown_query_parameter_is_named_on_every_route() {
    let gate = Gate::open().await;
    for route in routes().iter().filter(|route| route.path.starts_with("/v1/")) {
        let bearer = if is_for_admins(route) { gate.shop.admin_token().to_owned() } else { gate.till.bearer() };
        let path = format!("{}?colour=red", route.concrete());
        let answer = gate.shop.call(route.method.clone(), &path, &bearer, None).await;
        let problem = assert_problem(&answer, &route.name());
        assert!(problem.detail.contains("\"colour\""), "{}: {}", route.name(), problem.detail);
    }
    let refused = async |path: &str, meant: &str| {
        let problem = gate.shop.get(&gate.till, path).await.problem(Code::MalformedRequest);
        assert!(problem.detail.contains(&format!("did you mean {meant:?}?")), "{}", problem.detail);
    };
    refused("/v1/m1/b1/changes?aftr=x", "after").await;
    refused("/v1/m1/b1/changes?After=x", "after").await;
    refused("/v1/m1/b1/digests?colection=product", "collection").await;
    gate.shop.get(&gate.till, "/v1/m1/b1/digests?collection=product&collection=inventory").await.problem(Code::MalformedRequest);
    assert_eq!(gate.shop.get(&gate.till, "/healthz?now=1").await.status, StatusCode::OK, "probes add what they like");
}
