//! Frames that cannot be shown yet: out of order, or a commit of which parts are missing.

use std::collections::BTreeMap;

use mstore_protocol::{Collection, Cursor, Frame, OperationId, Timestamp};

use crate::{
    Moment,
    mutation::{Mutation, Planted},
};

/// A commit with all its parts, next in line.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadyCommit {
    /// The cursor after it.
    pub cursor: Cursor,
    /// Server time of the commit.
    pub at: Timestamp,
    /// The device operations whose effect it contains.
    pub ops: Vec<OperationId>,
    /// One frame per collection.
    pub frames: Vec<(Collection, Frame)>,
}

impl ReadyCommit {
    fn of(frames: Vec<(Collection, Frame)>) -> Self {
        let first = &frames[0].1;
        let cursor = Cursor { epoch: first.epoch, seq: first.seq, tag: first.tag };
        let at = first.at;
        let ops = frames.iter().flat_map(|(_, frame)| frame.ops.iter().copied()).collect();
        Self { cursor, at, ops, frames }
    }

    /// How many changes it holds.
    pub fn changes(&self) -> usize {
        self.frames.iter().map(|(_, frame)| frame.changes.len()).sum()
    }
}

/// Commits held at most: beyond it the frame is dropped and a catch-up fills the gap.
const COMMITS_MAX: usize = 1_024;

#[derive(Debug)]
struct Assembly {
    first_at: Moment,
    frames: Vec<(Collection, Frame)>,
}

/// The reorder window.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    planted: Planted,
    commits: BTreeMap<(mstore_protocol::Epoch, u64), Assembly>,
}

/// What the buffer says of a frame.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It completes the very next commit.
    Ready(ReadyCommit),
    /// It is kept.
    Kept,
    /// It is a repetition, or there is no room.
    Dropped,
}

impl Buffer {
    pub(crate) fn new(planted: Planted) -> Self {
        Self { planted, ..Self::default() }
    }

    /// Takes a frame above the cursor.
    pub(crate) fn take(&mut self, now: Moment, next: Option<Cursor>, collection: Collection, frame: Frame) -> Taken {
        let is_next =
            next.is_some_and(|cursor| cursor.epoch == frame.epoch && (cursor.seq + 1 == frame.seq || self.steps_over(cursor, &frame)));
        if is_next && (frame.parts == 1 || self.planted.has(Mutation::IgnoreParts)) {
            self.commits.remove(&(frame.epoch, frame.seq));
            return Taken::Ready(ReadyCommit::of(vec![(collection, frame)]));
        }
        let key = (frame.epoch, frame.seq);
        if !self.commits.contains_key(&key) && self.commits.len() >= COMMITS_MAX {
            return Taken::Dropped;
        }
        let assembly = self.commits.entry(key).or_insert_with(|| Assembly { first_at: now, frames: Vec::new() });
        let twin = assembly.frames.first().map(|(_, first)| (first.tag, first.parts));
        if twin.is_some_and(|twin| twin != (frame.tag, frame.parts)) {
            // Two commits with one number: the server was restored. The later one stays; its tag decides at the next request.
            assembly.frames.clear();
        }
        if assembly.frames.iter().any(|(_, held)| held.part == frame.part) && !self.planted.has(Mutation::CountPartTwice) {
            return Taken::Dropped;
        }
        assembly.frames.push((collection, frame));
        if is_next { self.next_ready(next).map_or(Taken::Kept, Taken::Ready) } else { Taken::Kept }
    }

    fn steps_over(&self, cursor: Cursor, frame: &Frame) -> bool {
        self.planted.has(Mutation::StepOverGap) && frame.seq > cursor.seq && frame.parts == 1
    }

    /// The commit after the cursor, if all its parts are there.
    pub(crate) fn next_ready(&mut self, cursor: Option<Cursor>) -> Option<ReadyCommit> {
        let cursor = cursor?;
        let key = (cursor.epoch, cursor.seq + 1);
        let assembly = self.commits.get(&key)?;
        let parts = assembly.frames.first().map_or(0, |(_, frame)| frame.parts as usize);
        if parts == 0 || assembly.frames.len() < parts {
            return None;
        }
        let mut frames = self.commits.remove(&key)?.frames;
        frames.sort_by_key(|(_, frame)| frame.part);
        Some(ReadyCommit::of(frames))
    }

    /// Forgets what is at or below the cursor, and other numberings.
    pub(crate) fn drop_shown(&mut self, cursor: Cursor) {
        self.commits.retain(|(epoch, seq), _| *epoch == cursor.epoch && *seq > cursor.seq);
    }

    /// A server that ends at `to` had no later commit when it was asked: later frames that were here by then are of a numbering that is gone.
    pub(crate) fn drop_disowned(&mut self, to: Cursor, asked_at: Moment) {
        self.commits.retain(|(epoch, seq), assembly| *epoch != to.epoch || *seq <= to.seq || assembly.first_at >= asked_at);
    }

    /// The oldest thing that waits: since when, and for which seq.
    pub(crate) fn waiting(&self, cursor: Cursor) -> Option<(Moment, u64)> {
        let above = self.commits.iter().filter(|((epoch, _), _)| *epoch == cursor.epoch);
        above.map(|((_, seq), assembly)| (assembly.first_at, *seq)).min()
    }

    pub(crate) fn clear(&mut self) {
        self.commits.clear();
    }
}
