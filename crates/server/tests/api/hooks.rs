//! What brokers ask before they let somebody do something: requests in the formats that RabbitMQ sends and that EMQX documents.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::shop::{Answer, Shop, Till};

const SECRET: &str = "a-secret-for-hooks-only";

async fn rabbitmq(shop: &Shop, secret: &str, question: &str, fields: &[(&str, &str)]) -> Answer {
    let url = format!("http://{}/hooks/rabbitmq/{secret}/{question}", shop.running.hooks_addr().unwrap());
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let request = shop.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(pairs.join("&"));
    Answer::of(request.send().await.unwrap()).await
}

fn encode(value: &str) -> String {
    value.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// As 3.10.8 sends it.
async fn may(shop: &Shop, user: &str, question: &str, more: &[(&str, &str)]) -> bool {
    let common = [("username", user), ("vhost", "/"), ("client_id", user), ("tags", "")];
    let answer = rabbitmq(shop, SECRET, question, &[&common[..], more].concat()).await;
    match &answer.body[..] {
        b"allow" => true,
        b"deny" => false,
        other => panic!("{}", String::from_utf8_lossy(other)),
    }
}

async fn login(shop: &Shop, user: &str, password: &str) -> bool {
    may(shop, user, "user", &[("password", password)]).await
}

async fn topic(shop: &Shop, user: &str, permission: &str, key: &str) -> bool {
    let variables = [("variable_map.client_id", user), ("variable_map.username", user), ("variable_map.vhost", "/")];
    let asked = [("resource", "topic"), ("name", "amq.topic"), ("permission", permission), ("routing_key", key)];
    may(shop, user, "topic", &[&asked[..], &variables].concat()).await
}

#[tokio::test]
async fn rabbitmq_is_told_who_may_do_what() {
    let shop = Shop::that_is_asked("backend", SECRET).await;
    let till = shop.enrol("till-1", "b1").await;
    assert!(login(&shop, "till-1", &till.enrolment.token).await);
    assert!(!login(&shop, "till-1", "wrong").await && !login(&shop, "till-1", "").await && !login(&shop, "nobody", "x").await);
    assert!(may(&shop, "till-1", "vhost", &[("ip", "127.0.0.1")]).await);
    for permission in ["configure", "write", "read"] {
        let queue = [("resource", "queue"), ("name", "mqtt-subscription-till-1qos1"), ("permission", permission)];
        assert!(may(&shop, "till-1", "resource", &queue).await, "{permission}");
    }
    assert!(topic(&shop, "till-1", "read", "test.m1.b1.product.updates").await);
    assert!(!topic(&shop, "till-1", "read", "test.m1.b2.product.updates").await);
    assert!(!topic(&shop, "till-1", "write", "test.m1.b1.product.updates").await);
    assert!(!may(&shop, "till-1", "nonsense", &[]).await);

    shop.admin(Method::POST, "/devices/till-1/move", json!({"branch": "b2"})).await.ok();
    assert!(!topic(&shop, "till-1", "read", "test.m1.b1.product.updates").await);
    assert!(topic(&shop, "till-1", "read", "test.m1.b2.product.updates").await);
    shop.admin(Method::POST, "/devices/till-1/revoke", json!({})).await.ok();
    assert!(!login(&shop, "till-1", &till.enrolment.token).await);
    assert!(!topic(&shop, "till-1", "read", "test.m1.b2.product.updates").await && !may(&shop, "till-1", "vhost", &[]).await);
}

#[tokio::test]
async fn both_tokens_of_a_rotation_work_until_the_new_one_was_used() {
    let shop = Shop::that_is_asked("backend", SECRET).await;
    let till = shop.enrol("till-1", "b1").await;
    let new = shop.admin(Method::POST, "/devices/till-1/rotate", json!({})).await.ok()["token"].take();
    let (old, new) = (till.enrolment.token.as_str(), new.as_str().unwrap());
    assert!(login(&shop, "till-1", old).await && login(&shop, "till-1", new).await);
    assert!(!login(&shop, "till-1", old).await);
}

/// A later question has the name only.
#[tokio::test]
async fn no_device_becomes_the_server_by_its_name() {
    let shop = Shop::that_is_asked("till-1", SECRET).await;
    let till: Till = shop.enrol("till-1", "b1").await;
    assert!(!login(&shop, "till-1", &till.enrolment.token).await);
    assert!(login(&shop, "till-1", "pw-till-1").await && topic(&shop, "till-1", "write", "test.m1.b1.product.updates").await);
    assert!(!topic(&shop, "till-1", "write", "prod.m1.b1.product.updates").await && !topic(&shop, "till-1", "read", "#").await);
}

#[tokio::test]
async fn strangers_are_told_nothing() {
    let shop = Shop::that_is_asked("backend", SECRET).await;
    let till = shop.enrol("till-1", "b1").await;
    let fields = [("username", "till-1"), ("password", till.enrolment.token.as_str()), ("client_id", "till-1")];
    let answer = rabbitmq(&shop, "another-secret-of-hooks", "user", &fields).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (403, &b"deny"[..]));
    for bearer in ["", "another-secret-of-hooks"] {
        let answer = emqx(&shop, "authn", bearer, &connect("till-1", &till.enrolment.token, "till-1")).await;
        assert_eq!(answer, json!({"result": "deny"}));
    }
    let addr = shop.running.hooks_addr().unwrap();
    for path in ["/", "/v1/admin/devices", "/metrics"] {
        let answer = shop.http.get(format!("http://{addr}{path}")).bearer_auth(shop.admin_token()).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}: the private listener serves the hooks only");
    }
    let answer = shop.call(Method::POST, &format!("/hooks/rabbitmq/{SECRET}/user"), "", None).await;
    assert_eq!(answer.status.as_u16(), 404, "and nobody else serves them");
}

/// Head and body apart cost RabbitMQ 40 ms each: Nagle's algorithm and delayed acknowledgements.
#[tokio::test]
async fn an_answer_is_one_packet() {
    let shop = Shop::that_is_asked("backend", SECRET).await;
    let mut stream = TcpStream::connect(shop.running.hooks_addr().unwrap()).await.unwrap();
    let body = "username=backend&password=pw-backend&vhost=%2F&client_id=x";
    let kind = "application/x-www-form-urlencoded";
    for _ in 0..20 {
        let request = format!(
            "POST /hooks/rabbitmq/{SECRET}/user HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4_096];
        let read = stream.read(&mut answer).await.unwrap();
        let text = String::from_utf8_lossy(&answer[..read]);
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\nallow"), "{text}");
    }
}

async fn emqx(shop: &Shop, hook: &str, secret: &str, body: &Value) -> Value {
    let url = format!("http://{}/hooks/emqx/{hook}", shop.running.hooks_addr().unwrap());
    let answer = Answer::of(shop.http.post(url).bearer_auth(secret).json(body).send().await.unwrap()).await;
    assert_eq!(answer.header("content-type"), "application/json");
    answer.ok()
}

/// As the template of `broker setup emqx` makes it.
fn connect(username: &str, password: &str, clientid: &str) -> Value {
    json!({"username": username, "password": password, "clientid": clientid})
}

#[tokio::test]
async fn emqx_is_told_who_somebody_is_and_what_he_may() {
    let shop = Shop::that_is_asked("backend", SECRET).await;
    let till = shop.enrol("till-1", "b1").await;
    let token = till.enrolment.token.as_str();
    let answer = emqx(&shop, "authn", SECRET, &connect("till-1", token, "till-1")).await;
    assert_eq!((&answer["result"], &answer["is_superuser"]), (&json!("allow"), &json!(false)));
    assert_eq!(answer["client_attrs"], json!({"branch": "test/m1/b1"}));
    let rules = answer["acl"].as_array().unwrap();
    assert!(rules.contains(&json!({"permission": "allow", "action": "subscribe", "topic": "eq test/m1/b1/+/updates"})), "{rules:?}");
    assert_eq!(rules.last().unwrap(), &json!({"permission": "deny", "action": "all", "topic": "#"}));
    for wrong in [connect("till-1", "wrong", "till-1"), connect("till-1", token, "till-2"), json!({"username": "till-1"}), json!({})] {
        assert_eq!(emqx(&shop, "authn", SECRET, &wrong).await, json!({"result": "deny"}), "{wrong}");
    }
    let wish = |user: &str, action: &str, topic: &str| json!({"username": user, "clientid": user, "topic": topic, "action": action});
    for (user, action, topic, result) in [
        ("till-1", "subscribe", "test/m1/b1/product/updates", "allow"),
        ("till-1", "subscribe", "test/m1/b1/+/updates", "allow"),
        ("till-1", "subscribe", "test/m1/b1/#", "deny"),
        ("till-1", "publish", "test/m1/b1/product/updates", "deny"),
        ("backend", "publish", "test/m1/b1/product/updates", "allow"),
        ("backend", "publish", "prod/m1/b1/product/updates", "deny"),
        ("backend", "subscribe", "#", "deny"),
        ("canary", "subscribe", "test/devices/canary/product/updates", "allow"),
        ("nobody", "subscribe", "test/m1/b1/product/updates", "deny"),
        ("till-1", "dance", "test/m1/b1/product/updates", "deny"),
    ] {
        assert_eq!(emqx(&shop, "authz", SECRET, &wish(user, action, topic)).await["result"], result, "{user} {action} {topic}");
    }
}
