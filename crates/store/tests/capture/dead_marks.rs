//! One forgotten transaction keeps hundreds of thousands of deleted marks from being vacuumed: the sequencer must not read through them.

use std::time::{Duration, Instant};

use mstore_protocol::BranchKey;
use mstore_rig::{Program, have};
use mstore_store::{Admin as _, SyncStore as _};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{
    store::{BULK_BRANCH, BULK_ROWS, Scene},
    workload::{bulk_insert, bulk_update},
};

const UPDATES: usize = 3;
const SAMPLES: usize = 41;
/// A look at every deleted mark costs ten times the whole way of a write and more.
const SLOWER_MAX: u32 = 4;
/// Less than this is noise of a busy machine.
const NOISE: Duration = Duration::from_millis(10);

/// From a foreign commit until the head shows it; the middle one of many.
async fn median(scene: &Scene, writer: &Client) -> Duration {
    let key = BranchKey::parse("m", "a").unwrap();
    let mut heads = tokio::time::interval(Duration::from_micros(500));
    let mut took = Vec::new();
    for _ in 0..SAMPLES {
        let before = scene.store.head(&key).await.unwrap().unwrap().seq;
        writer
            .batch_execute("UPDATE inventory SET reorder_level_milli = reorder_level_milli + 1000 WHERE branch_id = 'a' AND id = 'g0-1'")
            .await
            .unwrap();
        let committed = Instant::now();
        while scene.store.head(&key).await.unwrap().unwrap().seq == before {
            assert!(committed.elapsed() < Duration::from_secs(60), "the write was never sequenced");
            heads.tick().await;
        }
        took.push(committed.elapsed());
    }
    took.sort_unstable();
    took[SAMPLES / 2]
}

/// Blocks that a plain look for marks reads: what a poll without a floor costs here.
async fn blocks_of_a_naive_look(writer: &Client) -> i64 {
    let answer = writer.simple_query("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT FROM mark LIMIT 1").await.unwrap();
    let text = answer.iter().find_map(|message| if let SimpleQueryMessage::Row(row) = message { row.get(0) } else { None }).unwrap();
    let plan: serde_json::Value = serde_json::from_str(text).unwrap();
    let blocks = |name: &str| plan[0]["Plan"][name].as_i64().unwrap();
    blocks("Shared Hit Blocks") + blocks("Shared Read Blocks")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_marks_under_an_old_snapshot_slow_nobody_down() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let scene = Scene::open(&["a", "b", "c", BULK_BRANCH]).await;
    let writer = scene.shop.session().await;
    writer.batch_execute(&bulk_insert(BULK_BRANCH, BULK_ROWS)).await.unwrap();
    scene.store.upkeep().await.unwrap();
    let before = median(&scene, &writer).await;

    let forgotten = scene.shop.session().await;
    forgotten.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM mark").await.unwrap();
    for _ in 0..UPDATES {
        writer.batch_execute(&bulk_update(BULK_BRANCH)).await.unwrap();
        scene.store.upkeep().await.unwrap();
    }
    assert_eq!(writer.number("SELECT count(*) FROM mark WHERE branch_id = 'bulk'").await, 0, "all sequenced");
    let naive = blocks_of_a_naive_look(&writer).await;
    assert!(naive > 1_000, "the trap is there: {naive} blocks");
    let after = median(&scene, &writer).await;
    println!("median {before:?} before, {after:?} with {} dead marks; a naive look reads {naive} blocks", UPDATES * BULK_ROWS);
    assert!(after < before * SLOWER_MAX + NOISE, "{before:?} before, {after:?} with dead marks");
    forgotten.batch_execute("COMMIT").await.unwrap();
    scene.store.close().await.unwrap();
}
