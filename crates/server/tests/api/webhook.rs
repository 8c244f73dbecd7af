//! Operations reach the backend of a merchant that decides, whatever it does, and its verdicts reach the till.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use hmac::{Hmac, KeyInit, Mac};
use mstore_protocol::Code;
use mstore_server::{WebhookConfig, WebhookSecret};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Notify, watch},
    time::timeout,
};

use crate::shop::{Answer, DEADLINE, Shop, Till, sale};

const SECRET: &str = "a secret of the two of us";
const ACCEPTED: &str = r#"{"verdict":"accepted"}"#;

/// A delivery as the backend got it.
#[derive(Clone)]
struct Seen {
    headers: HeaderMap,
    bytes: Bytes,
    body: Value,
    /// Deliveries before it.
    before: usize,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn id(&self) -> &Value {
        &self.body["operation"]["id"]
    }
}

/// What it does.
enum Reply {
    Say(u16, String),
    /// Says it when told to.
    When(Arc<Notify>, u16, String),
    Never,
    Redirect(String),
}

fn say(status: u16, body: &str) -> Reply {
    Reply::Say(status, body.to_owned())
}

type Way = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// A merchant's backend over real HTTP.
struct Backend {
    url: String,
    way: Arc<Mutex<Way>>,
    seen: watch::Receiver<Vec<Seen>>,
}

type Inside = Arc<(Arc<Mutex<Way>>, watch::Sender<Vec<Seen>>)>;

impl Backend {
    async fn new(way: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), way)
    }

    fn on(listener: TcpListener, way: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let url = format!("http://{}/sync", listener.local_addr().unwrap());
        let way: Arc<Mutex<Way>> = Arc::new(Mutex::new(Arc::new(way)));
        let (seen, watching) = watch::channel(Vec::new());
        let router = Router::new().fallback(take).with_state(Arc::new((way.clone(), seen)));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, way, seen: watching }
    }

    fn becomes(&self, way: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.way.lock().unwrap() = Arc::new(way);
    }

    /// The first so many deliveries.
    async fn first(&self, count: usize) -> Vec<Seen> {
        let mut seen = self.seen.clone();
        let seen = timeout(DEADLINE, seen.wait_for(|seen| seen.len() >= count)).await.expect("deliveries").unwrap();
        seen[..count].to_vec()
    }

    fn count(&self) -> usize {
        self.seen.borrow().len()
    }
}

async fn take(State(inside): State<Inside>, headers: HeaderMap, bytes: Bytes) -> Response {
    let body = serde_json::from_slice(&bytes).unwrap();
    let (way, sender) = &*inside;
    let seen = Seen { headers, bytes, body, before: sender.borrow().len() };
    let reply = (way.lock().unwrap().clone())(&seen);
    sender.send_modify(|all| all.push(seen));
    let (status, body) = match reply {
        Reply::Say(status, body) => (status, body),
        Reply::When(told, status, body) => {
            told.notified().await;
            (status, body)
        }
        Reply::Never => pending().await,
        Reply::Redirect(to) => return (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
    };
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

fn webhook(url: &str) -> WebhookConfig {
    let mut config = WebhookConfig::new(url, WebhookSecret::new(SECRET).unwrap());
    config.retry_min = Duration::from_millis(20);
    config.retry_max = Duration::from_millis(200);
    config.timeout = DEADLINE;
    // A busy machine is no slow backend.
    config.answer_wait = DEADLINE * 3 / 4;
    config
}

async fn open(backend: &Backend) -> (Shop, Till) {
    open_with(webhook(&backend.url)).await
}

async fn open_with(config: WebhookConfig) -> (Shop, Till) {
    let shop = Shop::with_backend(Some(config)).await;
    let till = shop.enrol("till-1", "b1").await;
    (shop, till)
}

fn verdict(answer: &Answer, n: usize) -> Value {
    answer.ok()["verdicts"][n].clone()
}

async fn inbox(shop: &Shop, query: &str) -> Vec<Value> {
    let page = shop.admin(Method::GET, &format!("/merchants/m1/inbox{query}"), Value::Null).await.ok();
    page["items"].as_array().unwrap().clone()
}

async fn alarms(shop: &Shop, kind: &str) -> Vec<Value> {
    let page = shop.admin(Method::GET, "/alarms", Value::Null).await.ok();
    page["items"].as_array().unwrap().iter().filter(|alarm| alarm["kind"] == kind).cloned().collect()
}

/// Looks at the inbox until it is as it should be.
async fn until(shop: &Shop, what: &str, query: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let reached = timeout(DEADLINE, async {
        loop {
            let items = inbox(shop, query).await;
            if holds(&items) {
                return items;
            }
            tokio::task::yield_now().await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test]
async fn a_quick_verdict_is_the_verdict_of_the_upload() {
    let backend = Backend::new(|seen| match seen.body["operation"]["lines"][0]["product_id"].as_str() {
        Some("tea") => say(200, ACCEPTED),
        _other => say(200, r#"{"verdict":"rejected","code":"OUT_OF_STOCK","detail":"two are left"}"#),
    })
    .await;
    let (shop, till) = open(&backend).await;
    let (yes, no) = (sale(1, "tea", "1"), sale(2, "cake", "3"));
    let answer = shop.sell(&till, "b1", &[yes.clone(), no.clone()]).await;
    let (first, second) = (verdict(&answer, 0), verdict(&answer, 1));
    assert_eq!((&first["status"], &first["code"], first["seq"].is_u64()), (&json!("accepted"), &Value::Null, true));
    assert_eq!((&second["status"], &second["code"], &second["seq"]), (&json!("rejected"), &json!("refused_by_backend"), &Value::Null));
    assert_eq!(second["detail"], "backend:OUT_OF_STOCK: two are left");
    let letters = shop.admin(Method::GET, "/merchants/m1/dead-letters", Value::Null).await.ok();
    assert_eq!((letters["items"].as_array().unwrap().len(), &letters["items"][0]["id"]), (1, &no["id"]));
    let again = shop.sell(&till, "b1", &[yes.clone(), no]).await;
    assert_eq!(
        (&verdict(&again, 0)["status"], &verdict(&again, 0)["seq"], verdict(&again, 1)),
        (&json!("duplicate"), &first["seq"], second)
    );
    assert!(inbox(&shop, "").await.is_empty());
    let settled = inbox(&shop, "?decided_too=true&branch=b1").await;
    assert_eq!((settled.len(), &settled[1]["verdict"], &settled[1]["attempts"]), (2, &json!("accepted"), &json!(1)));

    assert_eq!(backend.count(), 2, "each once");
    let seen = backend.first(1).await.remove(0);
    let id = yes["id"].as_str().unwrap();
    assert_eq!((seen.header("idempotency-key"), seen.header("mstore-attempt"), seen.header("content-type")), (id, "1", "application/json"));
    let of = |name: &str| seen.body[name].as_str().unwrap().to_owned();
    assert_eq!([of("merchant"), of("branch"), of("device"), of("journal_id")], ["m1", "b1", "till-1", "j1"]);
    assert_eq!(seen.body["operation"], yes);
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(seen.header("mstore-timestamp").as_bytes());
    mac.update(b".");
    mac.update(&seen.bytes);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(seen.header("mstore-signature"), format!("v1={hex}"));
}

#[tokio::test]
async fn a_failing_backend_is_tried_again_and_nothing_overtakes() {
    let backend = Backend::new(|seen| if seen.before < 3 { say(503, "") } else { say(200, ACCEPTED) }).await;
    let (shop, till) = open(&backend).await;
    let (first, second) = (sale(1, "tea", "1"), sale(2, "tea", "1"));
    let answer = shop.sell(&till, "b1", &[first.clone(), second.clone()]).await;
    assert_eq!((&verdict(&answer, 0)["status"], &verdict(&answer, 0)["code"]), (&json!("accepted"), &json!("awaits_backend")));
    assert_eq!(verdict(&answer, 1)["code"], "awaits_backend", "nobody waits for what cannot get through");
    let seen = backend.first(5).await;
    let ids: Vec<&Value> = seen.iter().map(Seen::id).collect();
    let (one, two) = (&first["id"], &second["id"]);
    assert_eq!(ids, [one, one, one, one, two]);
    assert!(seen[..4].windows(2).all(|pair| pair[0].bytes == pair[1].bytes), "the same bytes at every attempt");
    assert_eq!(seen[3].header("mstore-attempt"), "4");
    until(&shop, "decided", "", <[Value]>::is_empty).await;
    let again = verdict(&shop.sell(&till, "b1", &[first]).await, 0);
    assert_eq!((&again["status"], &again["code"], again["seq"].is_u64()), (&json!("duplicate"), &Value::Null, true));
}

#[tokio::test]
async fn a_backend_that_was_away_gets_everything_when_it_is_back() {
    // Bound and not listening: connections are refused, and nobody else gets the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    let (shop, till) = open_with(webhook(&format!("http://{addr}/sync"))).await;
    let operations: Vec<Value> = (1..=3).map(|n| sale(n, "tea", "1")).collect();
    assert_eq!(verdict(&shop.sell(&till, "b1", &operations).await, 2)["code"], "awaits_backend");
    let waiting = until(&shop, "alarmed", "", |items| items.iter().any(|item| item["attempts"].as_u64() >= Some(5))).await;
    assert!(waiting.last().unwrap()["last_error"].as_str().unwrap().contains("refused"), "{waiting:?}");
    assert_eq!(alarms(&shop, "webhook_failing").await.len(), 1);
    assert!(waiting[..2].iter().all(|item| item["attempts"] == 0), "they wait behind the first");
    let backend = Backend::on(socket.listen(16).unwrap(), |_| say(200, ACCEPTED));
    until(&shop, "decided", "", <[Value]>::is_empty).await;
    let seen = backend.first(3).await;
    assert!(seen.iter().map(Seen::id).eq(operations.iter().map(|operation| &operation["id"])));
    assert!(alarms(&shop, "webhook_failing").await[0]["cleared_at"].is_string());
}

#[tokio::test]
async fn an_answer_after_the_retry_changes_nothing() {
    let told = Arc::new(Notify::new());
    let late = told.clone();
    let backend = Backend::new(move |seen| match seen.before {
        0 => Reply::When(late.clone(), 200, r#"{"verdict":"rejected","code":"late"}"#.into()),
        1 => Reply::Never,
        _third => say(200, ACCEPTED),
    })
    .await;
    let mut config = webhook(&backend.url);
    config.timeout = Duration::from_millis(300);
    let (shop, till) = open_with(config).await;
    let operation = sale(1, "tea", "1");
    shop.sell(&till, "b1", std::slice::from_ref(&operation)).await.ok();
    let seen = backend.first(3).await;
    assert!(seen.iter().all(|seen| seen.header("idempotency-key") == operation["id"].as_str().unwrap()));
    until(&shop, "decided", "", <[Value]>::is_empty).await;
    told.notify_one();
    let again = verdict(&shop.sell(&till, "b1", &[operation]).await, 0);
    assert_eq!((&again["status"], &again["code"]), (&json!("duplicate"), &Value::Null));
    assert!(alarms(&shop, "verdict_differs").await.is_empty());
}

#[tokio::test]
async fn what_a_backend_cannot_take_blocks_no_other() {
    let backend = Backend::new(|seen| match seen.body["operation"]["device_seq"].as_u64() {
        Some(1) => say(200, "<html>Welcome</html>"),
        Some(2) => say(422, "no"),
        Some(3) => say(200, &format!("{{\"verdict\":\"accepted\",\"detail\":\"{}\"}}", "x".repeat(1_000_000))),
        _fourth => say(200, ACCEPTED),
    })
    .await;
    let (shop, till) = open(&backend).await;
    let operations: Vec<Value> = (1..=4).map(|n| sale(n, "tea", "1")).collect();
    shop.sell(&till, "b1", &operations).await.ok();
    let left = until(&shop, "three are left", "", |items| items.len() == 3).await;
    let errors: Vec<&str> = left.iter().rev().map(|item| item["last_error"].as_str().unwrap()).collect();
    assert!(errors[0].contains("without a verdict") && errors[1] == "status 422" && errors[2].contains("65536 bytes"), "{errors:?}");
    assert!(left.iter().all(|item| item["set_aside"] == true));
    assert_eq!(alarms(&shop, "webhook_refused").await.len(), 1);
    backend.becomes(|_| say(200, ACCEPTED));
    until(&shop, "they come again by themselves", "", <[Value]>::is_empty).await;
    assert!(alarms(&shop, "webhook_refused").await[0]["cleared_at"].is_string());
}

#[tokio::test]
async fn a_verdict_may_come_later_another_way() {
    let backend = Backend::new(|_| say(202, "")).await;
    let (shop, till) = open(&backend).await;
    let operation = sale(1, "tea", "1");
    let first = verdict(&shop.sell(&till, "b1", std::slice::from_ref(&operation)).await, 0);
    assert_eq!((&first["status"], &first["code"], &first["seq"]), (&json!("accepted"), &json!("awaits_backend"), &Value::Null));
    let taken = inbox(&shop, "").await.remove(0);
    assert_eq!((taken["delivered_at"].is_string(), &taken["verdict"]), (true, &Value::Null));
    let path = format!("/merchants/m1/inbox/{}/verdict", operation["id"].as_str().unwrap());
    let give = |body: Value| shop.admin(Method::POST, &path, body);
    give(json!({"verdict": "maybe"})).await.problem(Code::MalformedRequest);
    give(json!({"verdict": "rejected", "cod": "x"})).await.problem(Code::MalformedRequest);
    let no = json!({"verdict": "rejected", "detail": "the day is closed"});
    let told = give(no.clone()).await.ok();
    assert_eq!((&told["code"], &told["detail"]), (&json!("refused_by_backend"), &json!("the day is closed")));
    assert_eq!(give(no).await.ok(), told);
    give(json!({"verdict": "accepted"})).await.problem(Code::AlreadyDecided);
    assert_eq!(verdict(&shop.sell(&till, "b1", &[operation]).await, 0), told);
    assert_eq!(backend.count(), 1);
    let unknown = format!("/merchants/m1/inbox/{}/verdict", crate::shop::new_id());
    shop.admin(Method::POST, &unknown, json!({"verdict": "accepted"})).await.problem(Code::NotFound);
}

#[tokio::test]
async fn a_sale_goes_to_one_address_only() {
    let elsewhere = Backend::new(|_| say(200, ACCEPTED)).await;
    let to = elsewhere.url.clone();
    let backend = Backend::new(move |_| Reply::Redirect(to.clone())).await;
    let (shop, till) = open(&backend).await;
    shop.sell(&till, "b1", &[sale(1, "tea", "1")]).await.ok();
    backend.first(3).await;
    let left = until(&shop, "refused", "", |items| items[0]["set_aside"] == true).await;
    assert!(left[0]["last_error"].as_str().unwrap().contains("redirects are not followed"), "{left:?}");
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn a_server_with_an_open_webhook_does_not_start() {
    let secrets =
        mstore_server::Secrets { master_key: mstore_server::MasterKey::generate(), admin_token: mstore_server::AdminToken::generate() };
    let shop = Shop::open().await;
    let mqtt = mstore_broker::EmbeddedConfig::tcp("127.0.0.1:0".parse().unwrap());
    let mut config = mstore_server::ServerConfig::new(mstore_protocol::Env::parse("test").unwrap(), secrets, mqtt);
    config.webhook = Some(webhook("http://10.0.0.7/sync"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = mstore_server::Server::start(config, shop.store.clone(), listener).await.err().unwrap();
    assert!(refused.to_string().contains("in the clear"), "{refused}");
}
