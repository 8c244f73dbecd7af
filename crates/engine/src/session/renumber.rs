//! Another numbering: compare with the server, fetch only the ranges that differ, and show them together with its cursor.
//!
//! Everything that is fetched is of the head that it began with, or later; one catch-up from that head on top makes it whole. Nothing is shown
//! before: a device goes from a state that the server had to a state that it has.

use std::collections::BTreeMap;

use mstore_protocol::{Collection, Cursor, Digest, Head};

use super::{
    Session,
    frames::differing,
    pull::{HeadFor, Running},
};
use crate::{
    Moment,
    effect::{Ask, Effect, Reason},
    input::{CatchUpOutcome, Comparison, Fault},
};

/// Comparisons that came to nothing, in a row, before everything is fetched anew.
const ATTEMPTS_MAX: u32 = 3;

#[derive(Debug)]
struct Run {
    /// The head that it began with.
    base: Head,
    /// Collections not yet compared.
    todo: Vec<Collection>,
    /// Ranges not yet fetched.
    fetch: Vec<(Collection, Vec<u8>)>,
    /// How many ranges differ.
    ranges: u64,
}

/// At most one at a time, while [`Running`] keeps every other call away.
#[derive(Debug, Default)]
pub(super) struct Renumbering {
    run: Option<Run>,
    attempts: u32,
}

impl Renumbering {
    pub(super) fn is_running(&self) -> bool {
        self.run.is_some()
    }
}

impl Session {
    pub(super) fn fetch_head(&mut self, purpose: HeadFor) {
        assert!(self.pull.running.is_none(), "a call of /head beside another");
        self.pull.running = Some(Running::Head(purpose));
        self.effects.push_back(Effect::FetchHead);
    }

    /// A `304` says nothing of the rows. When no head has come over MQTT for long, its digests are asked for.
    pub(super) fn prove_digests(&mut self, now: Moment) {
        let lately = |at: Moment| now.saturating_sub(at) < self.pull.poll_interval_ms / 2;
        if !self.compared_at.is_some_and(lately) && self.pull.running.is_none() {
            self.fetch_head(HeadFor::Digests);
        }
    }

    pub(super) fn head_fetched(&mut self, now: Moment, result: Result<Head, Fault>) {
        let Some(Running::Head(purpose)) = self.pull.running.take() else { panic!("a call of /head ended that was not begun") };
        match (purpose, result) {
            (HeadFor::Renumbering, Ok(head)) => {
                self.reached();
                self.renumber(now, head);
            }
            (HeadFor::Renumbering, Err(fault)) => self.failed(now, Reason::Renumbered, fault),
            (HeadFor::Digests, Ok(head)) => {
                self.reached();
                self.head_arrived(now, head);
            }
            // The next poll asks again.
            (HeadFor::Digests, Err(_)) => {}
        }
    }

    fn renumber(&mut self, now: Moment, head: Head) {
        let Some((cursor, digests)) = &self.shown else { return self.give_up_ranges(now) };
        if cursor.epoch == head.epoch {
            // Too old for changes of this numbering.
            return self.give_up_ranges(now);
        }
        if self.cursor != Some(*cursor) || self.repair.is_asking() {
            return self.want(now + self.config.reorder_window_ms, Reason::Renumbered, None);
        }
        let todo = differing(digests, &head.digests);
        if todo.is_empty() {
            self.effects.push_back(Effect::Adopt(head.cursor()));
            return self.renumbered(now, head.cursor());
        }
        self.renumbering.attempts += 1;
        if self.renumbering.attempts > ATTEMPTS_MAX {
            return self.give_up_ranges(now);
        }
        self.repair.cancel();
        self.effects.push_back(Effect::DropStaged);
        self.pull.running = Some(Running::Ranges);
        self.renumbering.run = Some(Run { base: head, todo, fetch: Vec::new(), ranges: 0 });
        self.next_of_renumbering();
    }

    /// Everything is fetched anew.
    fn give_up_ranges(&mut self, now: Moment) {
        self.end_ranges();
        self.renumbering.attempts = 0;
        self.pull.forced_snapshot = true;
        self.want(now, Reason::Renumbered, None);
    }

    fn end_ranges(&mut self) {
        if self.renumbering.run.take().is_some() {
            self.pull.running = None;
            self.effects.push_back(Effect::DropStaged);
        }
    }

    fn next_of_renumbering(&mut self) {
        let Some(run) = &self.renumbering.run else { return };
        if let Some(collection) = run.todo.last() {
            self.effects.push_back(Effect::FetchSubDigests(collection.clone()));
        } else if let Some((collection, ranges)) = run.fetch.last() {
            self.effects.push_back(Effect::FetchRows { collection: collection.clone(), ranges: ranges.clone() });
        } else {
            let after = Some(run.base.cursor());
            self.pull.running = None;
            self.counters.catch_ups += 1;
            let reason = Reason::Renumbered;
            self.begin(Ask { after, resume: None, keep_staged: false, over_ranges: true, reason, is_fallback: false });
        }
    }

    /// Whether an answer is of the numbering that is being taken over, and no older than its beginning.
    fn continues(&self, at: Cursor) -> bool {
        self.renumbering.run.as_ref().is_some_and(|run| at.epoch == run.base.epoch && at.seq >= run.base.seq)
    }

    pub(super) fn renumbering_compared(&mut self, now: Moment, result: Result<Comparison, Fault>) {
        let found = match result {
            Ok(found) if self.continues(found.at) => found,
            Ok(_) => return self.ranges_failed(now, Fault { retry_after_ms: None, reached: true }),
            Err(fault) => return self.ranges_failed(now, fault),
        };
        if found.is_too_much() {
            return self.give_up_ranges(now);
        }
        if let Some(run) = &mut self.renumbering.run {
            let collection = run.todo.pop().expect("it was asked for");
            run.ranges += found.ranges.len() as u64;
            if !found.ranges.is_empty() {
                run.fetch.push((collection, found.ranges));
            }
        }
        self.next_of_renumbering();
    }

    pub(super) fn renumbering_fetched(&mut self, now: Moment, result: Result<Cursor, Fault>) {
        match result {
            Ok(at) if self.continues(at) => {
                if let Some(run) = &mut self.renumbering.run {
                    run.fetch.pop();
                }
                self.next_of_renumbering();
            }
            Ok(_) => self.ranges_failed(now, Fault { retry_after_ms: None, reached: true }),
            Err(fault) => self.ranges_failed(now, fault),
        }
    }

    /// What came since the comparison began is here, or nothing did: all of it can be shown.
    pub(super) fn renumbering_caught_up(&mut self, now: Moment, outcome: CatchUpOutcome) {
        match outcome {
            CatchUpOutcome::Complete { to, digests } if self.continues(to) => self.show_ranges(now, to, Some(digests)),
            CatchUpOutcome::Unchanged => {
                let base = self.renumbering.run.as_ref().map(|run| run.base.cursor());
                self.show_ranges(now, base.expect("a catch-up over ranges belongs to a comparison"), None);
            }
            CatchUpOutcome::Refused(code) => {
                self.end_ranges();
                self.refused(now, Reason::Renumbered, code);
            }
            CatchUpOutcome::Failed(fault) => self.ranges_failed(now, fault),
            CatchUpOutcome::Broken { .. } => self.ranges_failed(now, Fault::default()),
            CatchUpOutcome::Complete { .. } | CatchUpOutcome::SnapshotRequired => {
                self.ranges_failed(now, Fault { retry_after_ms: None, reached: true });
            }
        }
    }

    fn ranges_failed(&mut self, now: Moment, fault: Fault) {
        self.end_ranges();
        if !fault.reached {
            self.renumbering.attempts = self.renumbering.attempts.saturating_sub(1);
        }
        self.failed(now, Reason::Renumbered, fault);
    }

    fn show_ranges(&mut self, now: Moment, to: Cursor, digests: Option<BTreeMap<Collection, Digest>>) {
        let run = self.renumbering.run.take().expect("there is something to show");
        self.reached();
        self.counters.ranges_repaired += run.ranges;
        self.effects.push_back(Effect::Renumber { to });
        self.expected = Some((to, digests.unwrap_or(run.base.digests)));
        self.renumbered(now, to);
    }

    fn renumbered(&mut self, now: Moment, to: Cursor) {
        self.renumbering.attempts = 0;
        self.pull.needs_snapshot = false;
        self.move_to(now, to, true);
        self.confirm(now);
        self.advance(now);
        self.look_at_head(now);
    }
}
