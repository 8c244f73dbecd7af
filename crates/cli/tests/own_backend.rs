//! A backend with tables of its own, as the guides have it: attached, served, and its operations decided by SQL and by the Go program of the page.
#![allow(clippy::unwrap_used)]

mod outage;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use mstore_rig::{Database, Postgres, Program, have};
use outage::{Process, Shop, new_id, until_true};
use reqwest::Method;
use serde_json::{Value, json};

const SHOP: &str =
    "CREATE TABLE products (id text PRIMARY KEY, name text NOT NULL, price numeric(12,2) NOT NULL, stock numeric(12,3) NOT NULL);
    INSERT INTO products VALUES ('P', 'Teh', 10, 100)";

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn program(shop: &Shop, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mstore-sync"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MSTORE_")) {
        command.env_remove(name);
    }
    command.args(args).current_dir(shop.path(""));
    command
}

/// Attached as the guide says; a server on the same database.
fn attached(shop: &Shop, database: &Database<'_>) {
    database.psql(SHOP);
    let url = database.url();
    let args = ["attach", "--database", &url, "--merchant", "m1", "--branch", "b1", "--currency", "IDR", "--yes"];
    let output = program(shop, &args).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // The backend's own books; not attached.
    database.psql("CREATE TABLE operations (id text PRIMARY KEY, verdict text NOT NULL)");
}

fn serve(shop: &mut Shop, database: &Database<'_>, more: &[&str]) -> Process {
    let mut command = Process::command(shop, Command::new(env!("CARGO_BIN_EXE_mstore-sync")));
    command.args(["--database", &database.url()]).args(more);
    Process::ready(shop, command)
}

/// A till, and its right to sell.
async fn till(shop: &Shop) -> String {
    let claim = json!({"code": shop.claim("till").await, "nonce": "a nonce of this till"});
    let (status, enrolment) = shop.call(Method::POST, "/v1/devices/enrol", None, claim).await.unwrap();
    assert_eq!(status, 200, "{enrolment}");
    format!("till:{}", enrolment["token"].as_str().unwrap())
}

async fn sell(shop: &Shop, bearer: &str, number: u64, quantity: &str) -> (String, Value) {
    let (id, money) = (new_id(), json!({"amount": 1_000, "currency": "IDR"}));
    let sale = json!({"id": id, "device_seq": number, "type": "sale", "occurred_at": "2026-11-22T06:41:00.000Z",
        "lines": [{"line_no": 1, "product_id": "P", "quantity": quantity, "unit_price": money, "total": money}],
        "tenders": [{"type": "cash", "amount": money}], "total": money, "receipt_no": format!("R-{number}"), "business_date": "2026-11-22"});
    let upload = json!({"journal_id": "j", "operations": [sale]});
    let (status, answer) = shop.call(Method::POST, "/v1/m1/b1/operations", Some(bearer), upload).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    (id, answer["verdicts"][0].clone())
}

/// The stock that tills have.
fn shown(database: &Database<'_>) -> String {
    database.psql("SELECT row::json ->> 'stock' FROM mstore.mirror WHERE collection = 'product' AND id = 'P'")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_on_the_same_database_decides_and_moves_its_stock_in_one_commit() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (database, mut shop) = (Postgres::shared().database("own"), Shop::new());
    attached(&shop, &database);
    // Nothing is said about the inbox: it is as `attach` left it.
    let _server = serve(&mut shop, &database, &[]);
    until_true("the tills have the product", async || shown(&database) == "100").await;
    let bearer = till(&shop).await;
    let (id, verdict) = sell(&shop, &bearer, 1, "2").await;
    assert_eq!((&verdict["status"], &verdict["code"]), (&json!("accepted"), &json!("awaits_backend")), "{verdict}");
    let waits = "SELECT id || ' ' || type FROM mstore.operation_inbox WHERE verdict IS NULL";
    assert_eq!(database.psql(waits), format!("{id} sale"));
    let seq = || database.psql("SELECT seq FROM mstore.head").parse::<u64>().unwrap();
    let before = seq();
    database.psql(&format!(
        "BEGIN; UPDATE products SET stock = stock - 2 WHERE id = 'P';
         UPDATE mstore.operation_inbox SET verdict = 'accepted' WHERE merchant_id = 'm1' AND id = '{id}'; COMMIT"
    ));
    until_true("the tills have the stock", async || shown(&database) == "98").await;
    assert_eq!((seq(), database.psql("SELECT seq FROM mstore.operation")), (before + 1, (before + 1).to_string()), "stock and verdict");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_go_backend_of_the_guide_books_each_sale_once_although_its_answers_are_lost() {
    if !have(&[Program::Postgres, Program::GoPq]) {
        return;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (database, mut shop) = (Postgres::shared().database("go"), Shop::new());
    attached(&shop, &database);
    let secret = shop.path("secret");
    std::fs::write(&secret, "a secret of the two of us\n").unwrap();
    let (_backend, url) = backend(&database, &secret);
    let _server = serve(&mut shop, &database, &["--webhook-url", &url, "--webhook-secret-file", secret.to_str().unwrap()]);
    until_true("the tills have the product", async || shown(&database) == "100").await;
    let bearer = till(&shop).await;
    sell(&shop, &bearer, 1, "3").await;
    sell(&shop, &bearer, 2, "500").await;
    let decided = "SELECT string_agg(verdict, ' ' ORDER BY n) FROM mstore.operation_inbox WHERE attempts >= 2";
    until_true("both are decided", async || database.psql(decided) == "accepted rejected").await;
    until_true("the tills have the stock", async || shown(&database) == "97").await;
    assert_eq!(database.psql("SELECT stock FROM products"), "97.000", "booked once, delivered twice");
    assert_eq!(database.psql("SELECT count(*) FROM operations"), "2");
    assert_eq!(
        database.psql("SELECT count(*) FROM mstore.operation WHERE code = 'refused_by_backend' AND detail = 'backend:out_of_stock'"),
        "1"
    );
}

/// The program of the page, built and started; where it listens.
fn backend(database: &Database<'_>, secret: &Path) -> (Running, String) {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("own-backend");
    std::fs::create_dir_all(&directory).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(root.join("tests/own_backend/main.go"), directory.join("main.go")).unwrap();
    let page = std::fs::read_to_string(root.join("../../docs/src/inbox.md")).unwrap();
    let handler = page.split("```go\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the page has a Go example");
    let imports = "package main\n\nimport (\n\t\"crypto/hmac\"\n\t\"crypto/sha256\"\n\t\"database/sql\"\n\t\"encoding/hex\"\n\t\"fmt\"\n\t\"io\"\n\t\"net/http\"\n)\n\n";
    std::fs::write(directory.join("handler.go"), format!("{imports}{handler}")).unwrap();
    let mut build = Command::new("go");
    build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOCACHE", directory.join("cache")).current_dir(&directory);
    let built = build.args(["build", "-o", "backend", "main.go", "handler.go"]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut command = Command::new(directory.join("backend"));
    let mut child = Running(command.arg(database.url()).arg(secret).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}
