//! Frames and heads: commits in order, gaps, and what a head says about the cursor.

use std::collections::{BTreeMap, BTreeSet};

use mstore_protocol::{Collection, Cursor, Digest, Frame, Head};

use super::Session;
use crate::{
    Moment,
    buffer::{ReadyCommit, Taken},
    effect::{Effect, Reason},
    input::ApplyFault,
    mutation::Mutation,
};

/// A local database that refuses is tried again after this, milliseconds.
const STORAGE_RETRY_MS: u64 = 2_000;

/// Nobody puts a server back to a backup faster than this, milliseconds.
const RESTORE_TAKES_MS: u64 = 30_000;

impl Session {
    pub(super) fn frame_arrived(&mut self, now: Moment, collection: Collection, frame: Frame) {
        self.counters.frames += 1;
        if let Some(cursor) = self.cursor.filter(|cursor| cursor.epoch == frame.epoch) {
            if frame.seq == cursor.seq && frame.tag != cursor.tag {
                return self.other_numbering(now, frame.epoch, frame.seq);
            }
            if frame.seq <= cursor.seq {
                self.counters.frames_dropped += 1;
                return;
            }
        } else if self.cursor.is_some() {
            self.other_numbering(now, frame.epoch, frame.seq);
        }
        let next = self.cursor.filter(|cursor| self.may_advance(*cursor));
        match self.buffer.take(now, next, collection, frame) {
            Taken::Ready(commit) => {
                self.hand_out(now, commit);
                self.advance(now);
            }
            Taken::Kept => self.watch_gap(),
            Taken::Dropped => {
                self.counters.frames_dropped += 1;
                self.watch_gap();
            }
        }
    }

    /// After a new subscription frames wait until the server or its head has confirmed the cursor, unless that was a moment ago: a server
    /// restored from a backup may number other commits alike. A repair waits for the cursor to be exactly where its rows are.
    fn may_advance(&self, cursor: Cursor) -> bool {
        let lately = self.confirmed_at.is_some_and(|at| self.last_now.saturating_sub(at) < RESTORE_TAKES_MS);
        let trusted = self.pull.knows_cursor() || self.config.planted.has(Mutation::TrustOldCursor);
        let is_free = !self.renumbering.is_running() && !self.repair.holds_at(cursor);
        !self.in_doubt && (lately || trusted) && is_free
    }

    fn hand_out(&mut self, now: Moment, commit: ReadyCommit) {
        let cursor = self.cursor.expect("a commit is ready only after a cursor");
        let follows = commit.cursor.epoch == cursor.epoch && commit.cursor.seq == cursor.seq + 1;
        assert!(follows || self.config.planted.has(Mutation::StepOverGap), "a commit out of order");
        self.cursor = Some(commit.cursor);
        self.is_held = false;
        self.drop_needless_want(commit.cursor);
        self.effects.push_back(Effect::Apply(commit));
        self.repair_reached(now);
        if self.pull.is_confirmed() {
            self.confirmed_at = Some(now);
        }
    }

    /// Hands out every commit that is next in line.
    pub(super) fn advance(&mut self, now: Moment) {
        while self.cursor.is_some_and(|cursor| self.may_advance(cursor)) {
            let Some(commit) = self.buffer.next_ready(self.cursor) else { break };
            self.hand_out(now, commit);
        }
        self.watch_gap();
    }

    fn watch_gap(&mut self) {
        let Some(cursor) = self.cursor else { return };
        if let Some((since, seq)) = self.buffer.waiting(cursor) {
            let due = since + self.config.reorder_window_ms;
            // Before the first confirmation after a subscription nothing says that frames are missing: they were never sent here.
            let reason = if self.pull.knows_cursor() { Reason::Gap } else { Reason::Returned };
            self.want(due, reason, Some(seq));
        }
    }

    pub(super) fn head_arrived(&mut self, now: Moment, head: Head) {
        let unknown: Vec<Collection> = head.digests.keys().filter(|c| !self.config.collections.contains(c)).cloned().collect();
        for collection in unknown {
            self.config.collections.push(collection.clone());
            self.effects.push_back(Effect::Subscribe(collection));
            self.want(now, Reason::Renumbered, None);
        }
        self.head = Some((head, now));
        self.look_at_head(now);
    }

    /// What the newest head means for the cursor as it is now.
    pub(super) fn look_at_head(&mut self, now: Moment) {
        let (Some((head, at)), Some(cursor)) = (self.head.clone(), self.cursor) else { return };
        if head.epoch != cursor.epoch || (head.seq == cursor.seq && head.tag != cursor.tag) {
            return self.other_numbering(now, head.epoch, head.seq);
        }
        if head.seq == cursor.seq {
            self.expected = Some((cursor, head.digests.clone()));
            self.is_held = head.held_since.is_some();
            if at == now {
                self.drop_confirmed_want();
                self.confirm(now);
                self.advance(now);
            }
            self.check_digests(now);
        } else if head.seq > cursor.seq {
            match head.pull_within_ms {
                Some(within) => {
                    // A head that allows more time than a poll would take is not believed.
                    let due = now + self.dice.up_to(within.min(self.config.poll_interval_ms));
                    self.want(due, Reason::Pull, Some(head.seq));
                }
                None => self.want(now + self.config.reorder_window_ms, Reason::HeadAhead, Some(head.seq)),
            }
        }
    }

    /// One question to the server for each other numbering that MQTT speaks of: only HTTP decides.
    fn other_numbering(&mut self, now: Moment, epoch: mstore_protocol::Epoch, seq: u64) {
        let other_epoch = self.cursor.is_some_and(|cursor| cursor.epoch != epoch);
        let asked = self.asked_about.is_some_and(|(asked, at)| asked == epoch && (at == seq || other_epoch));
        if !asked {
            self.in_doubt |= !other_epoch;
            self.asked_about = Some((epoch, seq));
            let due = now + self.dice.up_to(self.config.return_spread_ms);
            self.want(due, Reason::Renumbered, None);
        }
    }

    pub(super) fn applied(&mut self, now: Moment, cursor: Cursor, digests: BTreeMap<Collection, Digest>) {
        self.shown = Some((cursor, digests));
        self.check_digests(now);
        if self.is_proven() {
            self.repair_succeeded();
        }
    }

    /// What is shown has the digests that the server gave for this very commit.
    fn is_proven(&self) -> bool {
        let (Some((at, local)), Some((of, truth))) = (&self.shown, &self.truth) else { return false };
        at == of && differing(local, truth).is_empty()
    }

    pub(super) fn check_digests(&mut self, now: Moment) {
        let (Some((at, local)), Some((expected_at, expected))) = (&self.shown, &self.expected) else { return };
        if at != expected_at {
            return;
        }
        let differing = differing(local, expected);
        self.truth = self.expected.take();
        self.compared_at = Some(now);
        if differing.is_empty() {
            self.repair_succeeded();
        } else {
            self.counters.digest_mismatches += 1;
            self.begin_repair(now, differing);
        }
    }

    pub(super) fn apply_failed(&mut self, now: Moment, cursor: Option<Cursor>, fault: ApplyFault) {
        self.cursor = cursor;
        self.buffer.clear();
        self.repair_overtaken(now);
        let due = match fault {
            ApplyFault::BaseMissing => now,
            ApplyFault::Storage => now + STORAGE_RETRY_MS,
        };
        self.want(due, Reason::Repair, None);
    }
}

/// The collections whose digests are not equal; one that is not named is empty.
pub(super) fn differing(ours: &BTreeMap<Collection, Digest>, theirs: &BTreeMap<Collection, Digest>) -> Vec<Collection> {
    let names: BTreeSet<&Collection> = ours.keys().chain(theirs.keys()).collect();
    let of = |digests: &BTreeMap<Collection, Digest>, name: &Collection| digests.get(name).copied().unwrap_or_default();
    names.into_iter().filter(|name| of(ours, name) != of(theirs, name)).cloned().collect()
}
