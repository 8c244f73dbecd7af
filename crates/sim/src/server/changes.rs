//! What devices read: rows since a cursor or all of them, own operations, sub-digests and ranges, as the store answers it.

use std::collections::BTreeMap;

use mstore_protocol::{ChangesFirst, Collection, Cursor, Digest, OperationId, Position, Seq, Tag, bucket_of};

use super::database::{Branch, Database};
use crate::{bug::Bug, shop::Key};

/// What a device asks of `/changes`.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) branch: usize,
    pub(crate) device: String,
    pub(crate) after: Option<Cursor>,
    pub(crate) resume: Option<String>,
    /// All own operations contained are named, not only those since the cursor.
    pub(crate) names_all: bool,
}

/// One row line of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) key: Key,
    pub(crate) text: Option<Box<str>>,
    pub(crate) position: String,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) first: ChangesFirst,
    pub(crate) lines: Vec<Line>,
    pub(crate) to: Cursor,
    pub(crate) digests: BTreeMap<Collection, Digest>,
}

/// What `/changes` says.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Lines(Answer),
    Unchanged,
    SnapshotRequired,
    /// As [`Self::SnapshotRequired`], and a new epoch is due.
    Restored,
}

/// Where an answer starts.
struct Start {
    from: Seq,
    after: Option<Key>,
    with_tombs: bool,
}

impl Database {
    pub(super) fn changes(&self, ask: &Question, bug: Option<Bug>) -> Reply {
        let branch = &self.branches[ask.branch];
        let position = ask.resume.as_deref().map(|raw| Position::parse(raw).expect("devices send back what they got"));
        let start = match (position, ask.after) {
            (Some(position), after) => {
                let known = |cursor: &Cursor| cursor.seq == 0 || branch.tags.get(&cursor.seq) == Some(&cursor.tag);
                if after.is_some_and(|cursor| cursor.epoch == branch.state.epoch && cursor.seq >= branch.floor && !known(&cursor)) {
                    return Reply::Restored;
                }
                let needed = after.filter(|cursor| cursor.seq > 0).map_or(position.to, |cursor| cursor.seq);
                if position.epoch != branch.state.epoch || position.to > branch.state.seq || branch.floor > needed {
                    return Reply::SnapshotRequired;
                }
                Start { from: position.seq, after: Some((position.collection, position.id)), with_tombs: true }
            }
            (None, Some(after)) => match since(branch, after, bug) {
                Ok(start) => start,
                Err(reply) if matches!(*reply, Reply::Unchanged) && ask.names_all => {
                    Start { from: after.seq, after: None, with_tombs: true }
                }
                Err(reply) => return *reply,
            },
            (None, None) => Start { from: 0, after: None, with_tombs: false },
        };
        let with_tombs = start.with_tombs && bug != Some(Bug::ForgetTombstones);
        Reply::Lines(self.answer(ask, &Start { with_tombs, ..start }))
    }

    /// Lines after a place: everything with a higher seq, and of the same seq what comes later.
    fn answer(&self, ask: &Question, start: &Start) -> Answer {
        let branch = &self.branches[ask.branch];
        let to = branch.cursor();
        let puts = branch.mirror.iter().map(|(key, (stored, seq))| (*seq, key, Some(&stored.text)));
        let gone = branch.tombs.iter().filter(|_| start.with_tombs).map(|(key, seq)| (*seq, key, None));
        let wanted = |line: &(Seq, &Key, Option<&Box<str>>)| match &start.after {
            Some(place) => (line.0, line.1) > (start.from, place),
            None => line.0 > start.from,
        };
        let mut lines: Vec<_> = puts.chain(gone).filter(wanted).collect();
        lines.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let line = |(seq, key, text): (Seq, &Key, Option<&Box<str>>)| {
            let place = Position { epoch: to.epoch, to: to.seq, seq, collection: key.0.clone(), id: key.1.clone() };
            Line { key: key.clone(), text: text.cloned(), position: place.to_string() }
        };
        let lines: Vec<Line> = lines.into_iter().map(line).collect();
        let from = ask.after.filter(|_| !ask.names_all).map_or(0, |cursor| cursor.seq);
        let ops = self.own_operations(ask.branch, &ask.device, from, to.seq);
        let first = ChangesFirst { epoch: to.epoch, from: start.from, to: to.seq, rows: lines.len() as u64, ops };
        Answer { first, lines, to, digests: branch.digests() }
    }

    /// The device's own operations in a range of commits.
    pub(super) fn own_operations(&self, branch: usize, device: &str, from: Seq, to: Seq) -> Vec<OperationId> {
        let own = self.operations.iter().filter(|(_, of)| of.accepted && of.branch == branch && of.device == device);
        own.filter(|(_, of)| of.seq.is_some_and(|seq| seq > from && seq <= to)).map(|(id, _)| *id).collect()
    }

    pub(crate) fn differing_ranges(&self, branch: usize, collection: &Collection, theirs: &[Digest; 256]) -> Vec<u8> {
        let mut ours = [Digest::EMPTY; 256];
        for ((_, id), (stored, _)) in self.branches[branch].mirror.iter().filter(|((of, _), _)| of == collection) {
            let sum = &mut ours[usize::from(bucket_of(id))];
            *sum = sum.with(stored.hash);
        }
        (0..=u8::MAX).filter(|range| ours[usize::from(*range)] != theirs[usize::from(*range)]).collect()
    }

    pub(crate) fn range_rows(&self, branch: usize, collection: &Collection, ranges: &[u8]) -> Vec<(Key, Box<str>)> {
        let wanted = |key: &&Key| key.0 == *collection && ranges.contains(&bucket_of(&key.1));
        let mirror = &self.branches[branch].mirror;
        mirror.iter().filter(|(key, _)| wanted(key)).map(|(key, (stored, _))| (key.clone(), stored.text.clone())).collect()
    }
}

fn since(branch: &Branch, cursor: Cursor, bug: Option<Bug>) -> Result<Start, Box<Reply>> {
    if cursor.epoch != branch.state.epoch || (cursor.seq == 0 && cursor.tag != Tag::NONE) {
        return Err(Box::new(Reply::SnapshotRequired));
    }
    if cursor.seq > 0 && cursor.seq < branch.floor && bug != Some(Bug::IgnoreFloor) {
        return Err(Box::new(Reply::SnapshotRequired));
    }
    let believed = matches!(bug, Some(Bug::IgnoreTag | Bug::IgnoreFloor)) && cursor.seq <= branch.state.seq;
    if cursor.seq > 0 && branch.tags.get(&cursor.seq) != Some(&cursor.tag) && !believed {
        return Err(Box::new(Reply::Restored));
    }
    if cursor.seq == branch.state.seq {
        return Err(Box::new(Reply::Unchanged));
    }
    Ok(Start { from: cursor.seq, after: None, with_tombs: cursor.seq > 0 })
}
