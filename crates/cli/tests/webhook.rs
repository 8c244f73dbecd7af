//! The server dies between a backend's answer and writing it down: the operation is delivered again under the same key, and has its effect once.
#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used)]

mod outage;

use std::{
    os::unix::process::ExitStatusExt as _,
    process::Command,
    sync::{Arc, Mutex},
};

use outage::{Process, Shop, new_id, until_true};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// Key and body of each delivery.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// A backend that rejects everything, of the plainest kind.
async fn backend() -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/sync", listener.local_addr().unwrap());
    let seen = Seen::default();
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = log.clone();
            tokio::spawn(async move {
                // A connection that the dead server left is nobody's fault.
                let _ = converse(stream, &log).await;
            });
        }
    });
    (url, seen)
}

async fn converse(stream: TcpStream, log: &Seen) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut key, mut length, mut line) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let lower = line.trim().to_lowercase();
            match lower.split_once(": ") {
                Some(("idempotency-key", value)) => key = value.to_owned(),
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(_) => {}
                None if lower.is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        log.lock().unwrap().push((key, String::from_utf8(body).unwrap()));
        let answer = r#"{"verdict":"rejected","code":"closed"}"#;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.get_mut().write_all(format!("{head}{answer}").as_bytes()).await?;
    }
}

fn serve(shop: &Shop, url: &str, place: Option<&str>) -> Command {
    let mut command = Process::command(shop, Command::new(env!("CARGO_BIN_EXE_mstore-sync")));
    command.args(["--webhook-url", url, "--webhook-secret-file"]).arg(shop.path("secret"));
    if let Some(place) = place {
        command.env("MSTORE_TEST_FAILPOINT", place).env("MSTORE_TEST_FAILPOINT_FILE", shop.path("armed"));
    }
    command
}

fn sale() -> Value {
    let money = json!({"amount": 1_000, "currency": "IDR"});
    json!({"id": new_id(), "device_seq": 1, "type": "sale", "occurred_at": "2026-11-22T06:41:00.000Z",
        "lines": [{"line_no": 1, "product_id": "P", "quantity": "1", "unit_price": money, "total": money}],
        "tenders": [{"type": "cash", "amount": money}], "total": money, "receipt_no": "R-1", "business_date": "2026-11-22"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_an_answer_and_its_record_it_delivers_again_under_the_same_key() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (url, seen) = backend().await;
    let mut shop = Shop::new();
    std::fs::write(shop.path("secret"), "a secret of the two of us\n").unwrap();
    let command = serve(&shop, &url, mstore_store::failpoint::OF_WEBHOOK.first().copied());
    let mut server = Process::ready(&mut shop, command);
    shop.fill().await;
    let settings = json!({"name": "Kopi", "currency": "IDR", "stock_authority": "backend"});
    assert_eq!(shop.admin(Method::PUT, "/merchants/m1", settings).await.unwrap().0, 200);
    let claim = json!({"code": shop.claim("till").await, "nonce": "a nonce of this till"});
    let (_, enrolment) = shop.call(Method::POST, "/v1/devices/enrol", None, claim).await.unwrap();
    let bearer = format!("till:{}", enrolment["token"].as_str().unwrap());
    let sale = sale();
    let upload = json!({"journal_id": "j", "operations": [sale]});

    shop.arm();
    let answer = shop.call(Method::POST, "/v1/m1/b1/operations", Some(&bearer), upload.clone()).await;
    assert!(answer.is_none(), "it died before it could answer: {answer:?}");
    assert_eq!(server.wait_for_end("webhook_answered").await.signal(), Some(6));
    shop.disarm();
    assert_eq!(seen.lock().unwrap().len(), 1, "the backend has decided");

    let command = serve(&shop, &url, None);
    let _server = Process::ready(&mut shop, command);
    until_true("decided", async || shop.all("/merchants/m1/inbox").await.is_empty()).await;
    let deliveries = seen.lock().unwrap().clone();
    let keys: Vec<&str> = deliveries.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, [sale["id"].as_str().unwrap(); 2]);
    assert_eq!(deliveries[0].1, deliveries[1].1, "the same bytes");
    let (_, answer) = shop.call(Method::POST, "/v1/m1/b1/operations", Some(&bearer), upload).await.unwrap();
    assert_eq!(
        (&answer["verdicts"][0]["code"], &answer["verdicts"][0]["detail"]),
        (&json!("refused_by_backend"), &json!("backend:closed"))
    );
    assert_eq!(shop.all("/merchants/m1/dead-letters").await.len(), 1);
    assert!(shop.all("/merchants/m1/branches/b1/transactions").await.is_empty());
}
