//! Writers that are not ours, each a program of its own: psql, Python with psycopg2, Go with lib/pq.

use std::{ffi::OsString, path::PathBuf, process::Stdio};

use tokio::process::Command;

use crate::workload::Shop;

/// All three at once, each so many transactions.
pub(crate) async fn write(shop: &Shop, transactions: usize) {
    tokio::join!(psql(shop, transactions), python(shop, transactions), go(shop, transactions));
}

async fn psql(shop: &Shop, transactions: usize) {
    let works = shop.works("psql", 1_000, transactions);
    let script = format!("SET search_path = {};\n{}", shop.schema, works.iter().map(|work| work.script()).collect::<String>());
    let url = shop.url.clone();
    tokio::task::spawn_blocking(move || mstore_rig::psql(&url, &script)).await.unwrap();
}

async fn python(shop: &Shop, transactions: usize) {
    // Debian's, which has the driver; another one may be earlier on the PATH.
    let mut python = Command::new("/usr/bin/python3");
    run(python.arg(source("writer.py")).args(arguments(shop, "python", transactions))).await;
}

async fn go(shop: &Shop, transactions: usize) {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let program = directory.join("capture-writer");
    let mut build = Command::new("go");
    build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOCACHE", directory.join("go-cache"));
    run(build.args(["build", "-o"]).arg(&program).arg(source("writer.go"))).await;
    run(Command::new(program).args(arguments(shop, "go", transactions))).await;
}

fn source(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/capture/writers").join(name)
}

fn arguments(shop: &Shop, name: &str, transactions: usize) -> [OsString; 4] {
    [shop.url.clone(), shop.schema.to_owned(), name.to_owned(), transactions.to_string()].map(OsString::from)
}

async fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{:?}: {}", command.as_std().get_program(), String::from_utf8_lossy(&output.stderr));
}
