//! A model of a device's database: rows, position and journal move in one transaction, as in the client's own; SQLite itself is not here.

use std::collections::BTreeMap;

use mstore_engine::{Ask, ReadyCommit};
use mstore_protocol::{ChangeOp, Collection, Cursor, Digest, Frame, OperationId, Row, RowHash, bucket_of};

use super::journal::Entry;
use crate::{
    bug::Bug,
    promise::{Kept, Promise, broken},
    server::{Answer, Login},
    shop::Key,
};

/// Rows of an answer on their way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Staged {
    lines: Vec<(Key, Option<Box<str>>)>,
    ops: Vec<OperationId>,
    pub(crate) position: Option<String>,
    pub(crate) snapshot: bool,
    /// How often the server had been put back when the first line came.
    restores: u32,
    /// Its lines are of both sides of a restore: no position tells the server so.
    pub(crate) is_mixed: bool,
}

/// What is on a device's disk.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    pub(crate) cursor: Option<Cursor>,
    pub(crate) rows: BTreeMap<Key, Row>,
    pub(crate) digests: BTreeMap<Collection, Digest>,
    pub(crate) journal: Vec<Entry>,
    pub(crate) journal_id: String,
    pub(crate) next_device_seq: u64,
    pub(crate) staged: Option<Staged>,
    pub(crate) login: Login,
}

/// Why commits were not shown; none of them is.
#[derive(Debug)]
pub(crate) enum NotShown {
    /// A patch of a row that is not here.
    BaseMissing,
    /// The device died between two transactions that should have been one.
    Died,
}

type Pending = BTreeMap<Key, Option<Row>>;

/// The server's rows of some ranges.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) collection: Collection,
    pub(crate) ranges: Vec<u8>,
    pub(crate) rows: Vec<(Key, Box<str>)>,
}

impl Db {
    pub(super) fn new(journal_id: String, login: Login) -> Self {
        Self {
            cursor: None,
            rows: BTreeMap::new(),
            digests: BTreeMap::new(),
            journal: Vec::new(),
            journal_id,
            next_device_seq: 1,
            staged: None,
            login,
        }
    }

    /// Shows commits, each of which must follow the one before; true when operations wait for a verdict again.
    pub(super) fn apply(&mut self, commits: &[ReadyCommit], bug: Option<Bug>, dies: bool) -> Kept<Result<bool, NotShown>> {
        let Some(last) = commits.last() else { return Ok(Ok(false)) };
        self.check_whole(commits)?;
        let mut pending = Pending::new();
        for (collection, frame) in commits.iter().flat_map(|commit| &commit.frames) {
            if !self.gather(collection, frame, &mut pending)? {
                return Ok(Err(NotShown::BaseMissing));
            }
        }
        if bug == Some(Bug::CursorBeforeRows) {
            self.cursor = Some(last.cursor);
            if dies {
                return Ok(Err(NotShown::Died));
            }
        }
        pending.into_iter().for_each(|(key, row)| self.put(key, row));
        let ops: Vec<OperationId> = commits.iter().flat_map(|commit| commit.ops.iter().copied()).collect();
        Ok(Ok(self.became(last.cursor, &ops)))
    }

    fn check_whole(&self, commits: &[ReadyCommit]) -> Kept {
        let mut here = self.cursor;
        for commit in commits {
            let next = commit.cursor;
            if here.is_none_or(|here| here.epoch != next.epoch || here.seq + 1 != next.seq) {
                return broken(Promise::WholeCommits, format!("commit {next} was to be shown after {here:?}"));
            }
            let parts = commit.frames.first().map_or(0, |(_, frame)| frame.parts as usize);
            let mut held: Vec<u32> = commit.frames.iter().map(|(_, frame)| frame.part).collect();
            held.sort_unstable();
            held.dedup();
            if held.len() != parts {
                return broken(Promise::WholeCommits, format!("parts {held:?} of {parts} of commit {next} were to be shown"));
            }
            here = Some(next);
        }
        Ok(())
    }

    /// The rows after a frame; false when a patch has no base.
    fn gather(&self, collection: &Collection, frame: &Frame, pending: &mut Pending) -> Kept<bool> {
        for change in &frame.changes {
            let key = (collection.clone(), change.id.clone());
            let row = match change.op {
                ChangeOp::Put => Some(readable(change.row())?),
                ChangeOp::Delete => None,
                ChangeOp::Patch => {
                    let base = pending.get(&key).map_or_else(|| self.rows.get(&key), Option::as_ref);
                    let Some(base) = base else { return Ok(false) };
                    Some(readable(base.patched(&readable(change.patch())?))?)
                }
            };
            pending.insert(key, row);
        }
        Ok(true)
    }

    pub(super) fn put(&mut self, key: Key, row: Option<Row>) {
        let new = row.as_ref().map(|row| row.hash(&key.0));
        let old = match row {
            Some(row) => self.rows.insert(key.clone(), row),
            None => self.rows.remove(&key),
        };
        let old = old.map(|row| row.hash(&key.0));
        let digest = self.digests.entry(key.0).or_default();
        *digest = digest.replacing(old, new);
    }

    /// The end of a transaction that showed something: position and overlay move with the rows.
    fn became(&mut self, cursor: Cursor, ops: &[OperationId]) -> bool {
        self.leave_overlay(cursor, ops);
        self.cursor = Some(cursor);
        self.has_requeued()
    }

    /// Takes in an answer, or as many of its lines as came; they outlive the process only when the answer broke off.
    pub(super) fn stage(&mut self, ask: &Ask, answer: &Answer, lines: usize, restores: u32) {
        let fresh = || Staged { snapshot: ask.after.is_none(), restores, ..Staged::default() };
        let mut staged = self.staged.take().filter(|_| ask.keep_staged).unwrap_or_else(fresh);
        staged.is_mixed |= staged.restores != restores;
        staged.ops.extend(&answer.first.ops);
        for line in answer.lines.iter().take(lines) {
            staged.lines.push((line.key.clone(), line.text.clone()));
            staged.position = Some(line.position.clone());
        }
        if ask.over_ranges {
            // The ranges below it are in memory only.
            staged.position = None;
        }
        self.staged = Some(staged);
    }

    /// Takes over another numbering: ranges first, what came since they were compared on top; true when operations wait for a verdict again.
    pub(super) fn renumber(&mut self, to: Cursor, fetched: Vec<Fetched>, bug: Option<Bug>) -> Kept<bool> {
        let staged = self.staged.take().unwrap_or_default();
        for range in fetched {
            self.replace(&range)?;
        }
        for (key, text) in staged.lines {
            let row = text.map(|text| Row::parse(&text)).transpose();
            self.put(key, readable(row)?);
        }
        self.leave_overlay(to, &staged.ops);
        self.if_renumbered(to, false, bug);
        self.cursor = Some(to);
        Ok(self.has_requeued())
    }

    /// The collections whose rows do not add up to their stored digest.
    pub(super) fn altered(&self) -> Vec<Collection> {
        let mut sums: BTreeMap<&Collection, Digest> = self.digests.keys().map(|name| (name, Digest::EMPTY)).collect();
        for ((name, id), row) in &self.rows {
            let sum = sums.entry(name).or_default();
            *sum = sum.with(RowHash::of(name, id, row.as_str()));
        }
        sums.into_iter().filter(|(name, sum)| self.digests.get(*name) != Some(sum)).map(|(name, _)| name.clone()).collect()
    }

    /// How many rows lie in some ranges.
    pub(crate) fn rows_in(&self, collection: &Collection, ranges: &[u8]) -> usize {
        self.rows.keys().filter(|(of, id)| of == collection && ranges.contains(&bucket_of(id))).count()
    }

    /// Shows what is staged; true when operations wait for a verdict again.
    pub(super) fn show(&mut self, to: Cursor, snapshot: bool, bug: Option<Bug>) -> Kept<bool> {
        let staged = self.staged.take().unwrap_or_default();
        if staged.snapshot != snapshot {
            return broken(Promise::Assertion, format!("shown as a snapshot: {snapshot}; staged as one: {}", staged.snapshot));
        }
        if snapshot && bug != Some(Bug::SnapshotKeepsRows) {
            self.rows.clear();
            self.digests.clear();
        }
        for (key, text) in staged.lines {
            let row = text.map(|text| Row::parse(&text)).transpose();
            self.put(key, readable(row)?);
        }
        let named = if bug == Some(Bug::OverlayOutlivesAnswer) { &[][..] } else { &staged.ops };
        self.leave_overlay(to, named);
        self.if_renumbered(to, snapshot, bug);
        self.cursor = Some(to);
        Ok(self.has_requeued())
    }

    /// The server has the same rows under another numbering.
    pub(super) fn adopt(&mut self, to: Cursor, bug: Option<Bug>) {
        self.if_renumbered(to, false, bug);
        self.cursor = Some(to);
    }

    /// Another numbering, or everything anew: accepted operations wait for a verdict again, in the same transaction.
    fn if_renumbered(&mut self, to: Cursor, snapshot: bool, bug: Option<Bug>) {
        if self.cursor.is_some_and(|from| snapshot || from.epoch != to.epoch) && bug != Some(Bug::ForgetReplay) {
            self.queue_accepted();
        }
    }

    pub(crate) fn sub_digests(&self, collection: &Collection) -> Box<[Digest; 256]> {
        let mut sums = Box::new([Digest::EMPTY; 256]);
        for ((of, id), row) in self.rows.iter().filter(|((of, _), _)| of == collection) {
            let sum = &mut sums[usize::from(bucket_of(id))];
            *sum = sum.with(RowHash::of(of, id, row.as_str()));
        }
        sums
    }

    /// Puts the server's rows in the place of whatever is in those ranges.
    pub(super) fn replace(&mut self, fetched: &Fetched) -> Kept {
        let there = |key: &&Key| key.0 == fetched.collection && fetched.ranges.contains(&bucket_of(&key.1));
        let old: Vec<Key> = self.rows.keys().filter(there).cloned().collect();
        old.into_iter().for_each(|key| self.put(key, None));
        for (key, text) in &fetched.rows {
            self.put(key.clone(), Some(readable(Row::parse(text))?));
        }
        Ok(())
    }

    /// The device belongs to another branch now; what it did at the old one is settled there.
    pub(super) fn leave_branch(&mut self, bug: Option<Bug>) {
        if bug != Some(Bug::KeepOldBranch) {
            self.rows.clear();
            self.digests.clear();
            self.cursor = None;
        }
        self.staged = None;
        self.settle_elsewhere();
    }

    /// Somebody alters a row on the disk.
    pub(super) fn rot(&mut self, n: usize) {
        let count = self.rows.len().max(1);
        let Some(key) = self.rows.keys().nth(n % count).cloned() else { return };
        let rotten = format!(r#"{{"id":"{}","stock":"666"}}"#, key.1);
        self.put(key, Row::parse(&rotten).ok());
    }
}

/// What came from the server must be what the contract says.
fn readable<T, E: std::fmt::Display>(parsed: Result<T, E>) -> Kept<T> {
    parsed.or_else(|error| broken(Promise::Assertion, format!("the device cannot read what came: {error}")))
}
