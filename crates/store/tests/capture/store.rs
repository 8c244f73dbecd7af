//! The store itself under every writer there is, with a cursor reader and a frame reader beside them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use mstore_protocol::{BranchKey, Timestamp};
use mstore_rig::{Database, Postgres, Program, have};
use mstore_store::{
    Admin as _, SourceWrite, SyncStore as _,
    postgres::{PgConfig, PgStore},
};

use crate::{
    foreign,
    observer::{Findings, Key, Observer},
    readers::{CursorReader, FrameReader},
    session::Session,
    stage,
    workload::{BRANCHES, Shop, bulk_insert, bulk_update},
};

pub(crate) const BULK_ROWS: usize = 100_000;
pub(crate) const BULK_BRANCH: &str = "bulk";

/// A store on a database of its own, with the shop that the writers write to.
pub(crate) struct Scene {
    pub(crate) store: Arc<PgStore>,
    pub(crate) shop: Shop,
    branches: Vec<&'static str>,
    /// Last: the store lets go of it first.
    _database: Database<'static>,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap())
}

impl Scene {
    pub(crate) async fn open(branches: &[&'static str]) -> Self {
        let postgres = Postgres::shared();
        let database = postgres.database("capture");
        let store = PgStore::open(PgConfig::new(database.url(), Arc::new(now))).await.unwrap();
        let merchant = "INSERT INTO mstore.merchant (merchant_id, name, currency) VALUES ('m', 'M', 'IDR')";
        Session::open(&database.url(), "mstore").await.batch_execute(merchant).await.unwrap();
        for name in branches {
            let key = BranchKey::parse("m", name).unwrap();
            store.write(SourceWrite::PutBranch { key, name: (*name).to_owned() }).await.unwrap();
        }
        let shop = Shop { url: database.url(), schema: "mstore", has_merge: postgres.major_version() >= 15 };
        shop.prepare().await;
        Self { store, shop, branches: branches.to_vec(), _database: database }
    }

    /// Both readers beside the writers, to the end; what each of them found.
    async fn play(&self, bulk_rows: usize, writing: impl Future<Output = ()> + Send + 'static) -> [Findings; 2] {
        self.store.upkeep().await.unwrap();
        let mut by_cursor = CursorReader::start(Arc::clone(&self.store), &self.branches).await;
        let mut by_frames = FrameReader::start(Arc::clone(&self.store), &self.branches).await;
        let source = self.shop.source().await;
        let writing = tokio::spawn(writing);
        let (cursor, frames) = tokio::join!(
            stage::watch(&mut by_cursor, observer(&source, bulk_rows), &self.shop, &writing),
            stage::watch(&mut by_frames, observer(&source, bulk_rows), &self.shop, &writing),
        );
        writing.await.unwrap();
        println!("{} frames, {} pulls", by_frames.frames, by_frames.pulls);
        assert!(by_frames.frames > 10, "commits are sent as frames");
        assert_eq!(self.store.sweep(None, 1_000_000).await.unwrap().differing, 0);
        self.store.close().await.unwrap();
        [cursor, frames]
    }
}

fn observer(source: &BTreeMap<Key, i64>, bulk_rows: usize) -> Observer {
    let mut observer = Observer::new(bulk_rows);
    observer.begin_with(source.clone());
    observer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_lose_tear_and_turn_round_nothing() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let scene = Scene::open(&BRANCHES).await;
    let shop = scene.shop.clone();
    for found in scene.play(0, async move { shop.write(60).await }).await {
        found.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_program_in_any_language_escapes_the_store() {
    if !have(&[Program::Postgres, Program::Psycopg2, Program::GoPq]) {
        return;
    }
    let branches = [&BRANCHES[..], &[BULK_BRANCH]].concat();
    let scene = Scene::open(&branches).await;
    scene.shop.session().await.batch_execute(&bulk_insert(BULK_BRANCH, BULK_ROWS)).await.unwrap();
    let shop = scene.shop.clone();
    let found = scene.play(BULK_ROWS, async move {
        tokio::join!(shop.write(30), foreign::write(&shop, 60), bulk(&shop));
    });
    for found in found.await {
        found.assert_clean();
        assert!(found.changes > BULK_ROWS as u64, "{found:?}");
    }
}

/// Two statements that change everything, each in one commit or both in one.
async fn bulk(shop: &Shop) {
    let session = shop.session().await;
    for _ in 0..2 {
        session.batch_execute(&bulk_update(BULK_BRANCH)).await.unwrap();
    }
}
