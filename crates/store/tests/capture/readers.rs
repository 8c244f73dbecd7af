//! Who reads the store as devices do: one by cursor, over `/changes`; one by frames, as the broker would deliver them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mstore_protocol::{BranchKey, ChangeOp, Collection, Cursor, Frame, Quantity, Seq};
use mstore_store::{Admin as _, ChangeRow, ChangesAsk, OutboxMessage, RowSink, SyncStore as _, postgres::PgStore};
use serde_json::Value;
use tokio::time::Interval;

use crate::{observer::Observer, stage::Reads};

/// How often a reader that has nothing to do looks again.
const PACE: Duration = Duration::from_millis(1);
const ENTRIES: usize = 1_000;

fn branch(name: &str) -> BranchKey {
    BranchKey::parse("m", name).unwrap()
}

fn inventory() -> Collection {
    Collection::parse("inventory").unwrap()
}

/// Collects an answer.
#[derive(Default)]
struct Lines(Vec<(String, Option<String>)>);

impl RowSink for Lines {
    fn row(&mut self, row: ChangeRow<'_>) {
        assert_eq!(*row.collection, inventory());
        self.0.push((row.id.to_owned(), row.row.map(str::to_owned)));
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}

/// The rows of one branch as somebody has them.
struct Copy {
    key: BranchKey,
    rows: BTreeMap<String, String>,
    cursor: Cursor,
}

impl Copy {
    /// A snapshot.
    async fn begin(store: &PgStore, name: &str) -> Self {
        let mut copy =
            Self { key: branch(name), rows: BTreeMap::new(), cursor: store.head(&branch(name)).await.unwrap().unwrap().cursor() };
        copy.pull(store, None, &mut Observer::new(0)).await;
        copy
    }

    /// Everything after a cursor; how much that was.
    async fn pull(&mut self, store: &PgStore, after: Option<Cursor>, observer: &mut Observer) -> usize {
        let ask = ChangesAsk { key: self.key.clone(), after, resume: None };
        let (summary, sink) = store.changes(ask, Box::<Lines>::default()).await.unwrap();
        let lines = sink.into_any().downcast::<Lines>().unwrap().0;
        for (id, row) in &lines {
            self.set(id, row.clone(), observer);
        }
        assert!(summary.to >= self.cursor.seq, "an answer never goes back");
        self.cursor = Cursor { epoch: summary.epoch, seq: summary.to, tag: summary.tag };
        lines.len()
    }

    fn set(&mut self, id: &str, row: Option<String>, observer: &mut Observer) {
        let name = self.key.branch.as_str();
        match row {
            Some(row) => {
                observer.put(name, id, value(&row));
                self.rows.insert(id.to_owned(), row);
            }
            None => {
                observer.delete(name, id);
                self.rows.remove(id);
            }
        }
    }
}

/// What the row counts.
fn value(row: &str) -> i64 {
    let row: Value = serde_json::from_str(row).unwrap();
    Quantity::parse(row["reorder_level"].as_str().unwrap()).unwrap().as_milli()
}

/// Asks for what is after its cursor, again and again.
pub(crate) struct CursorReader {
    store: Arc<PgStore>,
    copies: Vec<Copy>,
    pace: Interval,
}

impl CursorReader {
    /// From a snapshot of each branch on.
    pub(crate) async fn start(store: Arc<PgStore>, branches: &[&str]) -> Self {
        let mut copies = Vec::new();
        for name in branches {
            copies.push(Copy::begin(&store, name).await);
        }
        Self { store, copies, pace: tokio::time::interval(PACE) }
    }
}

impl Reads for CursorReader {
    async fn poll(&mut self, observer: &mut Observer) -> usize {
        let mut told = 0;
        for copy in &mut self.copies {
            let head = self.store.head(&copy.key).await.unwrap().unwrap();
            if head.seq > copy.cursor.seq {
                told += copy.pull(&self.store, Some(copy.cursor), observer).await;
                observer.boundary();
            }
        }
        if told == 0 {
            self.pace.tick().await;
        }
        told
    }

    async fn settle(&mut self) {
        // Upkeep is sequenced before it returns, and all that was there with it.
        self.store.upkeep().await.unwrap();
    }
}

/// Takes frames out of the outbox in its order, as a device gets them; pulls only when a commit sends none.
pub(crate) struct FrameReader {
    store: Arc<PgStore>,
    copies: BTreeMap<BranchKey, Copy>,
    /// The last commit with inventory in it, by branch.
    last: BTreeMap<BranchKey, Seq>,
    after: u64,
    pub(crate) frames: u64,
    pub(crate) pulls: u64,
    pace: Interval,
}

impl FrameReader {
    /// From a snapshot of each branch on.
    pub(crate) async fn start(store: Arc<PgStore>, branches: &[&str]) -> Self {
        let mut copies = BTreeMap::new();
        for name in branches {
            copies.insert(branch(name), Copy::begin(&store, name).await);
        }
        let last = copies.iter().map(|(key, copy)| (key.clone(), copy.cursor.seq)).collect();
        Self { store, copies, last, after: 0, frames: 0, pulls: 0, pace: tokio::time::interval(PACE) }
    }

    fn show(&mut self, key: &BranchKey, frame: &Frame, observer: &mut Observer) {
        let copy = self.copies.get_mut(key).unwrap();
        if frame.seq <= copy.cursor.seq {
            return;
        }
        let last = self.last.insert(key.clone(), frame.seq).unwrap();
        assert_eq!((frame.seq, frame.prev), (copy.cursor.seq + 1, last), "{key}: a gap, or commits in another order than their numbers");
        for change in &frame.changes {
            let row = match change.op {
                ChangeOp::Put => Some(change.row().unwrap().as_str().to_owned()),
                ChangeOp::Patch => Some(change.patched(&copy.rows[&change.id]).unwrap().as_str().to_owned()),
                ChangeOp::Delete => None,
            };
            copy.set(&change.id, row, observer);
        }
        copy.cursor = Cursor { epoch: frame.epoch, seq: frame.seq, tag: frame.tag };
        observer.boundary();
    }

    async fn pull(&mut self, key: &BranchKey, seq: Seq, observer: &mut Observer) {
        let copy = self.copies.get_mut(key).unwrap();
        if seq > copy.cursor.seq {
            copy.pull(&self.store, Some(copy.cursor), observer).await;
            observer.boundary();
            self.last.insert(key.clone(), copy.cursor.seq);
            self.pulls += 1;
        }
    }
}

impl Reads for FrameReader {
    async fn poll(&mut self, observer: &mut Observer) -> usize {
        let entries = self.store.outbox(self.after, ENTRIES).await.unwrap();
        for entry in &entries {
            assert!(entry.id > self.after, "the outbox has an order");
            self.after = entry.id;
            match &entry.message {
                OutboxMessage::Frame { payload, .. } => {
                    self.frames += 1;
                    self.show(&entry.key, &Frame::parse(payload.as_bytes()).unwrap(), observer);
                }
                OutboxMessage::HeadOnly => self.pull(&entry.key, entry.seq, observer).await,
            }
        }
        if entries.is_empty() {
            self.pace.tick().await;
        }
        self.store.acknowledged(entries.iter().map(|entry| entry.id).collect()).await.unwrap();
        entries.len()
    }

    async fn settle(&mut self) {
        self.store.upkeep().await.unwrap();
    }
}
