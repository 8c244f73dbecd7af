//! Repair: find the ranges whose digests differ, fetch them, put them in place at exactly the commit they belong to.

use mstore_protocol::{Collection, Cursor};

use super::Session;
use crate::{
    Moment,
    backoff::patience,
    effect::{Effect, Reason},
    input::Fault,
};

/// More differing ranges than this: a snapshot is cheaper.
const RANGES_MAX: usize = 128;
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

/// At most one repair at a time.
#[derive(Debug, Default)]
pub(super) struct Repair {
    step: Step,
    todo: Vec<Collection>,
    attempts: u32,
    rest_until: Moment,
}

impl Repair {
    pub(super) fn deadline(&self) -> Option<Moment> {
        match &self.step {
            Step::Waiting { due, .. } => Some(*due),
            Step::Idle | Step::Comparing { .. } | Step::Fetching { .. } | Step::Holding { .. } => None,
        }
    }

    pub(super) fn holds_at(&self, cursor: Cursor) -> bool {
        matches!(&self.step, Step::Holding { at, .. } if *at == cursor)
    }
}

impl Session {
    pub(super) fn begin_repair(&mut self, now: Moment, collections: Vec<Collection>) {
        if !matches!(self.repair.step, Step::Idle) || now < self.repair.rest_until {
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

    pub(super) fn run_repair(&mut self, now: Moment) {
        if self.repair.deadline().is_none_or(|due| due > now) {
            return;
        }
        let Step::Waiting { collection, .. } = std::mem::take(&mut self.repair.step) else { return };
        self.effects.push_back(Effect::FetchSubDigests(collection.clone()));
        self.repair.step = Step::Comparing { collection };
    }

    pub(super) fn compared(&mut self, now: Moment, result: Result<Vec<u8>, Fault>) {
        let Step::Comparing { collection } = std::mem::take(&mut self.repair.step) else {
            panic!("sub-digests came that nobody asked for")
        };
        match result {
            Err(fault) => self.repair_later(now, collection, fault),
            Ok(ranges) if ranges.is_empty() => self.next_collection(now),
            Ok(ranges) if ranges.len() > RANGES_MAX => {
                self.repair.todo.clear();
                self.force_snapshot(now, Reason::Repair);
            }
            Ok(ranges) => {
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
            if let Step::Holding { collection, .. } = std::mem::take(&mut self.repair.step) {
                self.repair_later(now, collection, Fault::default());
            }
        }
    }
}
