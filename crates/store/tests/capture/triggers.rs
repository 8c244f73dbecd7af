//! The store's own tables and triggers under every writer there is, read the way its sequencer reads them.

use mstore_rig::{Database, Postgres, Program, have};

use crate::{
    foreign,
    naive::{Method, Reader},
    observer::Observer,
    session::Session,
    stage,
    workload::{BRANCHES, Shop, bulk_insert, bulk_update},
};

const BULK_ROWS: usize = 100_000;
const BULK_BRANCH: &str = "bulk";
const MIGRATIONS: [&str; 2] =
    [include_str!("../../migrations/postgres/0001_source.sql"), include_str!("../../migrations/postgres/0002_capture.sql")];

async fn install(database: &Database<'_>) -> Shop {
    let owner = Session::open(&database.url(), "public").await;
    owner.batch_execute(&format!("CREATE SCHEMA mstore; {}", MIGRATIONS.concat())).await.unwrap();
    let branches: Vec<String> = BRANCHES.iter().chain([&BULK_BRANCH]).map(|branch| format!("('m', '{branch}')")).collect();
    let places = format!("INSERT INTO mstore.branch (merchant_id, branch_id) VALUES {}", branches.join(", "));
    owner
        .batch_execute(&format!("INSERT INTO mstore.merchant (merchant_id, name, currency) VALUES ('m', 'M', 'IDR'); {places}"))
        .await
        .unwrap();
    Shop { url: database.url(), schema: "mstore", has_merge: database.postgres().major_version() >= 15 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_writer_in_any_language_escapes_the_triggers() {
    if !have(&[Program::Postgres, Program::Psycopg2, Program::GoPq]) {
        return;
    }
    let database = Postgres::shared().database("triggers");
    let shop = install(&database).await;
    shop.prepare().await;
    shop.session().await.batch_execute(&bulk_insert(BULK_BRANCH, BULK_ROWS)).await.unwrap();
    let mut reader = Reader::start(Method::MarksInOneSnapshot, &shop.url, shop.schema).await;
    let mut observer = Observer::new(BULK_ROWS);
    observer.begin_with(shop.source().await);
    let writers = shop.clone();
    let writing = tokio::spawn(async move {
        tokio::join!(writers.write(40), foreign::write(&writers, 60), bulk(&writers));
    });
    let found = stage::watch(&mut reader, observer, &shop, &writing).await;
    writing.await.unwrap();
    found.assert_clean();
    assert!(found.changes > 2 * BULK_ROWS as u64, "{found:?}");
}

/// Two statements that change everything.
async fn bulk(shop: &Shop) {
    let session = shop.session().await;
    for _ in 0..2 {
        session.batch_execute(&bulk_update(BULK_BRANCH)).await.unwrap();
    }
}
