//! The shortest schedules in which the naive methods fail: the same every time, and an explanation of why the store does not use them.

use std::time::Duration;

use mstore_rig::{Program, have};

use crate::{
    naive::{self, Method, Reader, SCHEMA},
    observer::Observer,
    session::Session,
    stage::Reads as _,
    workload::STEP,
};

/// A schedule that does not come to its end by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two writers and a reader.
struct Scene {
    database: mstore_rig::Database<'static>,
    early: Session,
    late: Session,
    reader: Reader,
    observer: Observer,
}

impl Scene {
    async fn open(method: Method) -> Self {
        let database = naive::server().database("scene");
        let url = database.url();
        method.install(&url).await;
        let reader = Reader::start(method, &url, SCHEMA).await;
        let (early, late) = (Session::open(&url, SCHEMA).await, Session::open(&url, SCHEMA).await);
        Self { database, early, late, reader, observer: Observer::new(0) }
    }

    async fn poll(&mut self) -> usize {
        self.reader.poll(&mut self.observer).await
    }

    /// Polls until so many changes were told: transactions of other databases hold up a watermark too.
    async fn poll_for(&mut self, mut changes: usize) {
        let told = async {
            while changes > 0 {
                changes = changes.checked_sub(self.poll().await).expect("more was told than happened");
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("not everything was told");
    }

    /// What the reader's audience believes the row to be.
    fn believed(&self, id: &str) -> Option<i64> {
        self.observer.value("a", id)
    }
}

fn put(id: &str, value: i64) -> String {
    format!(
        "INSERT INTO inventory (merchant_id, branch_id, id, reorder_level_milli) VALUES ('m', 'a', '{id}', {value})
         ON CONFLICT (merchant_id, branch_id, id) DO UPDATE SET reorder_level_milli = excluded.reorder_level_milli;"
    )
}

#[tokio::test]
async fn an_id_cursor_passes_a_lower_id_that_commits_later() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let mut scene = Scene::open(Method::IdCursor).await;
    scene.early.batch_execute(&format!("BEGIN; {}", put("slow-1", STEP))).await.unwrap();
    scene.late.batch_execute(&put("quick-1", STEP)).await.unwrap();
    assert_eq!(scene.poll().await, 1);
    scene.early.batch_execute("COMMIT").await.unwrap();
    assert_eq!(scene.poll().await, 0);
    assert_eq!((scene.believed("quick-1"), scene.believed("slow-1")), (Some(STEP), None), "the committed row is never heard of");
}

#[tokio::test]
async fn an_xmin_watermark_replays_in_an_order_that_never_was() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let mut scene = Scene::open(Method::XminWatermark).await;
    scene.early.batch_execute(&format!("BEGIN; {}", put("other-1", STEP))).await.unwrap();
    scene.late.batch_execute(&put("row-1", STEP)).await.unwrap();
    scene.early.batch_execute(&format!("{} COMMIT", put("row-1", 2 * STEP))).await.unwrap();
    scene.poll_for(3).await;
    assert_eq!(scene.believed("row-1"), Some(STEP), "the row has the second value, and whoever listened believes the first");
    assert_eq!(scene.observer.found.inverted, 1);
}

#[tokio::test]
async fn an_xmin_watermark_waits_for_whoever_does_nothing() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let mut scene = Scene::open(Method::XminWatermark).await;
    // A report: it writes to nothing that anybody captures.
    scene.early.batch_execute("BEGIN; CREATE TEMP TABLE report (a int)").await.unwrap();
    scene.late.batch_execute(&put("row-1", STEP)).await.unwrap();
    assert_eq!(scene.poll().await, 0, "committed, and nobody is told while the report runs");
    scene.early.batch_execute("COMMIT").await.unwrap();
    scene.poll_for(1).await;
}

#[tokio::test]
async fn a_lock_taken_inside_a_snapshot_is_newer_than_it() {
    if !have(&[Program::Postgres]) {
        return;
    }
    // Two sequencers that take turns by an advisory lock: the one that waited still sees what the other has removed.
    let mut scene = Scene::open(Method::MarksInOneSnapshot).await;
    let first = Session::open(&scene.database.url(), SCHEMA).await;
    scene.late.batch_execute(&put("row-1", STEP)).await.unwrap();
    first.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_advisory_xact_lock(7)").await.unwrap();
    let waiting = async {
        scene.early.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_advisory_xact_lock(7)").await.unwrap();
        scene.early.number("SELECT count(*) FROM mark").await
    };
    let taking = async {
        // The other one waits for the lock, with its snapshot taken, before this one goes on.
        let waiters = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
            WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted";
        while first.number(waiters).await == 0 {}
        first.batch_execute("DELETE FROM mark; COMMIT").await.unwrap();
    };
    let both = async { tokio::join!(waiting, taking) };
    let (seen, ()) = tokio::time::timeout(PATIENCE, both).await.expect("nobody waits for the lock");
    assert_eq!(seen, 1, "it would sequence the mark a second time");
    assert_eq!(scene.late.number("SELECT count(*) FROM mark").await, 0);
    assert_eq!(scene.poll().await, 0);
}
