//! Which answers are kept, how long, and that each is made by one caller while the others wait.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mstore_protocol::{BranchKey, Cursor, Head};
use mstore_store::{ChangesAsk, ChangesError, Store};
use tokio::time::Instant;

use super::lines::{Answer, AnswerKey};

/// A snapshot that was made this quickly is made again whenever the head has moved.
const QUICK: Duration = Duration::from_millis(5);
/// A slower one serves for this many times what it took to make, so that making snapshots costs at most 2 % of a core.
const AGE_PER_COST: u32 = 50;
const AGE_MAX: Duration = Duration::from_secs(10);
const SLOTS_MAX: usize = 4_096;

/// The answers kept.
pub(crate) struct Answers {
    store: Arc<dyn Store>,
    bytes_max: usize,
    slots: Mutex<HashMap<AnswerKey, Arc<Slot>>>,
    clock: AtomicU64,
}

#[derive(Default)]
struct Slot {
    kept: Mutex<Option<Kept>>,
    /// Held by whoever makes it.
    making: tokio::sync::Mutex<()>,
    used: AtomicU64,
}

#[derive(Clone)]
struct Kept {
    answer: Arc<Answer>,
    made: Instant,
    cost: Duration,
}

impl Kept {
    fn is_fresh(&self, after: Option<Cursor>, head: &Head, now: Instant) -> bool {
        let summary = &self.answer.summary;
        if summary.epoch != head.epoch {
            return false;
        }
        let age_max = if self.cost <= QUICK { Duration::ZERO } else { (self.cost * AGE_PER_COST).min(AGE_MAX) };
        summary.to >= head.seq || (after.is_none() && now.duration_since(self.made) < age_max)
    }
}

impl Answers {
    pub(crate) fn new(store: Arc<dyn Store>, bytes_max: usize) -> Self {
        Self { store, bytes_max, slots: Mutex::default(), clock: AtomicU64::new(0) }
    }

    /// The answer after a cursor, or the snapshot; shared if it can be. `head` is the branch's head a moment ago.
    pub(crate) async fn get(&self, key: &BranchKey, after: Option<Cursor>, head: &Head) -> Result<Arc<Answer>, ChangesError> {
        let slot = self.slot(AnswerKey { key: key.clone(), after });
        if let Some(answer) = slot.fresh(after, head) {
            return Ok(answer);
        }
        let _making = slot.making.lock().await;
        // Whoever held it may have made it.
        if let Some(answer) = slot.fresh(after, head) {
            return Ok(answer);
        }
        let started = Instant::now();
        let ask = ChangesAsk { key: key.clone(), after, resume: None };
        let answer = Arc::new(Answer::read(&*self.store, ask).await?);
        let kept = Kept { answer: answer.clone(), made: Instant::now(), cost: started.elapsed() };
        *slot.lock() = Some(kept);
        self.trim();
        Ok(answer)
    }

    fn slot(&self, key: AnswerKey) -> Arc<Slot> {
        let slot = self.lock().entry(key).or_default().clone();
        slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        slot
    }

    /// Drops the longest unused answers until the rest fits.
    fn trim(&self) {
        let mut slots = self.lock();
        let (mut bytes, mut count) = (slots.values().map(|slot| slot.bytes()).sum::<usize>(), slots.len());
        if bytes <= self.bytes_max && count <= SLOTS_MAX {
            return;
        }
        let mut sizes: Vec<(u64, usize, AnswerKey)> =
            slots.iter().map(|(key, slot)| (slot.used.load(Ordering::Relaxed), slot.bytes(), key.clone())).collect();
        sizes.sort_unstable_by_key(|(used, ..)| *used);
        for (_, size, key) in sizes {
            if bytes <= self.bytes_max && count <= SLOTS_MAX / 2 {
                return;
            }
            slots.remove(&key);
            bytes -= size;
            count -= 1;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AnswerKey, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn fresh(&self, after: Option<Cursor>, head: &Head) -> Option<Arc<Answer>> {
        let kept = self.lock();
        let kept = kept.as_ref()?;
        kept.is_fresh(after, head, Instant::now()).then(|| kept.answer.clone())
    }

    fn bytes(&self) -> usize {
        self.lock().as_ref().map_or(0, |kept| kept.answer.shared.stored_bytes())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
