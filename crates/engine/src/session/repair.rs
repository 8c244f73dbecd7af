//! Repair: find the ranges whose digests differ, fetch them, put them in place at exactly the commit they belong to.

use mstore_protocol::{Collection, Cursor};

use super::Session;
use crate::{
    Moment,
    backoff::patience,
    effect::{Effect, Reason},
    input::{Comparison, Fault},
};

/// More differing ranges of a collection than this: a snapshot is cheaper, unless they hold few rows.
const RANGES_MAX: usize = 128;
/// Rows that are fetched by ranges in any case.
const ROWS_FEW: usize = 2_000;
/// Repairs in a row before everything is fetched anew.
const ATTEMPTS_MAX: u32 = 3;
/// Rest after that, milliseconds: a server that contradicts itself must not be asked for ever.
const REST_MS: u64 = 600_000;
/// Between two attempts, milliseconds, growing with their number.
const RETRY_MS: u64 = 1_000;

#[derive(Debug, Default)]
enum Step {
    #[default]
    Idle,
    Waiting {
        due: Moment,
        collection: Collection,
    },
    Comparing {
        collection: Collection,
    },
    Fetching {
        collection: Collection,
        ranges: Vec<u8>,
    },
    /// The rows are here, as of a commit that is not shown yet.
    Holding {
        collection: Collection,
        ranges: Vec<u8>,
        at: Cursor,
    },
}

impl Comparison {
    /// Fetching everything is cheaper.
    pub(super) fn is_too_much(&self) -> bool {
        self.ranges.len() > RANGES_MAX && self.rows > ROWS_FEW
    }
}

/// At most one repair at a time.
#[derive(Debug)]
pub(super) struct Repair {
    step: Step,
    todo: Vec<Collection>,
    attempts: u32,
    rest_until: Moment,
    /// When the rows are counted anew: nobody tells a device that its file was edited or that its disk forgets.
    recount_at: Moment,
    is_recounting: bool,
}

impl Repair {
    pub(super) fn new(recount_at: Moment) -> Self {
        Self { step: Step::Idle, todo: Vec::new(), attempts: 0, rest_until: 0, recount_at, is_recounting: false }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let recount = (!self.is_recounting).then_some(self.recount_at);
        [self.step_due(), recount].into_iter().flatten().min()
    }

    fn step_due(&self) -> Option<Moment> {
        match &self.step {
            Step::Waiting { due, .. } => Some(*due),
            Step::Idle | Step::Comparing { .. } | Step::Fetching { .. } | Step::Holding { .. } => None,
        }
    }

    /// A call of its own is under way.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.step, Step::Comparing { .. } | Step::Fetching { .. })
    }

    /// Another numbering is taken over: all that it would mend is compared there.
    pub(super) fn cancel(&mut self) {
        self.todo.clear();
        self.step = Step::Idle;
    }

    pub(super) fn holds_at(&self, cursor: Cursor) -> bool {
        matches!(&self.step, Step::Holding { at, .. } if *at == cursor)
    }
}

impl Session {
    pub(super) fn begin_repair(&mut self, now: Moment, collections: Vec<Collection>) {
        let is_busy = !matches!(self.repair.step, Step::Idle) || self.renumbering.is_running();
        if is_busy || now < self.repair.rest_until {
            return;
        }
        self.repair.attempts += 1;
        if self.repair.attempts > ATTEMPTS_MAX {
            self.repair.attempts = 0;
            self.repair.rest_until = now + REST_MS;
            return self.force_snapshot(now, Reason::Repair);
        }
        self.repair.todo = collections;
        self.next_collection(now);
    }

    fn next_collection(&mut self, now: Moment) {
        self.repair.step = match self.repair.todo.pop() {
            Some(collection) => Step::Waiting { due: now, collection },
            None => Step::Idle,
        };
    }

    pub(super) fn repair_succeeded(&mut self) {
        if matches!(self.repair.step, Step::Idle) {
            self.repair.attempts = 0;
        }
    }

    /// The rows are counted as soon as may be.
    pub(super) fn recount_soon(&mut self, now: Moment) {
        self.repair.recount_at = self.repair.recount_at.min(now);
    }

    fn run_recount(&mut self, now: Moment) {
        if self.repair.is_recounting || self.repair.recount_at > now {
            return;
        }
        self.repair.recount_at = now + self.config.poll_interval_ms;
        if self.cursor.is_some() {
            self.repair.is_recounting = true;
            self.effects.push_back(Effect::Recount);
        }
    }

    /// Rows that are not what was stored: somebody edited the file, or the disk forgot.
    pub(super) fn recounted(&mut self, now: Moment, counted: Option<(Cursor, Vec<Collection>)>) {
        self.repair.is_recounting = false;
        let Some((cursor, altered)) = counted else { return };
        let is_same_numbering = self.cursor.is_some_and(|here| here.epoch == cursor.epoch);
        if !altered.is_empty() && is_same_numbering {
            self.counters.digest_mismatches += 1;
            self.begin_repair(now, altered);
        }
    }

    pub(super) fn run_repair(&mut self, now: Moment) {
        self.run_recount(now);
        if self.repair.step_due().is_none_or(|due| due > now) {
            return;
        }
        let Step::Waiting { collection, .. } = std::mem::take(&mut self.repair.step) else { return };
        self.effects.push_back(Effect::FetchSubDigests(collection.clone()));
        self.repair.step = Step::Comparing { collection };
    }

    pub(super) fn compared(&mut self, now: Moment, result: Result<Comparison, Fault>) {
        let Step::Comparing { collection } = std::mem::take(&mut self.repair.step) else {
            panic!("sub-digests came that nobody asked for")
        };
        match result {
            Err(fault) => self.repair_later(now, collection, fault),
            // The rows are right: it is their stored digest or a stored hash that is not.
            Ok(found) if found.ranges.is_empty() => {
                self.effects.push_back(Effect::ReplaceRanges { collection, ranges: Vec::new() });
                self.next_collection(now);
            }
            Ok(found) if found.is_too_much() => {
                self.repair.todo.clear();
                self.force_snapshot(now, Reason::Repair);
            }
            Ok(Comparison { ranges, .. }) => {
                self.effects.push_back(Effect::FetchRows { collection: collection.clone(), ranges: ranges.clone() });
                self.repair.step = Step::Fetching { collection, ranges };
            }
        }
    }

    fn repair_later(&mut self, now: Moment, collection: Collection, fault: Fault) {
        let wait = RETRY_MS * u64::from(self.repair.attempts.max(1)) + self.dice.up_to(RETRY_MS);
        self.repair.step = Step::Waiting { due: now + fault.retry_after_ms.map_or(0, patience).max(wait), collection };
    }

    pub(super) fn rows_fetched(&mut self, now: Moment, result: Result<Cursor, Fault>) {
        let Step::Fetching { collection, ranges } = std::mem::take(&mut self.repair.step) else {
            panic!("rows came that nobody asked for")
        };
        let at = match result {
            Err(fault) => return self.repair_later(now, collection, fault),
            Ok(at) => at,
        };
        let Some(cursor) = self.cursor else { return };
        if at == cursor {
            self.replace(now, collection, ranges, at);
        } else if at.epoch == cursor.epoch && at.seq > cursor.seq {
            self.repair.step = Step::Holding { collection, ranges, at };
            self.want(now + self.config.reorder_window_ms, Reason::Repair, Some(at.seq));
        } else {
            // The cursor has passed these rows, or they are of another numbering: fetch them as they are now.
            self.repair_later(now, collection, Fault::default());
        }
    }

    fn replace(&mut self, now: Moment, collection: Collection, ranges: Vec<u8>, at: Cursor) {
        debug_assert_eq!(self.cursor, Some(at));
        self.counters.ranges_repaired += ranges.len() as u64;
        self.effects.push_back(Effect::ReplaceRanges { collection, ranges });
        self.next_collection(now);
    }

    /// The cursor moved on by one commit; rows that wait for it are put in place before the next.
    pub(super) fn repair_reached(&mut self, now: Moment) {
        let Some(cursor) = self.cursor else { return };
        if self.repair.holds_at(cursor) {
            let Step::Holding { collection, ranges, at } = std::mem::take(&mut self.repair.step) else { return };
            self.replace(now, collection, ranges, at);
        }
    }

    /// The cursor jumped, or fell back: rows that wait are in place now, or useless.
    pub(super) fn repair_overtaken(&mut self, now: Moment) {
        if matches!(self.repair.step, Step::Holding { .. }) {
            self.repair_reached(now);
            // Put in place, they may have made way for the next collection.
            if let Step::Holding { collection, .. } = &self.repair.step {
                let collection = collection.clone();
                self.repair_later(now, collection, Fault::default());
            }
        }
    }
}
