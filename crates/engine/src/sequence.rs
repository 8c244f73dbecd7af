//! Sequencing decisions: what changed between mirror and source, and how a branch's differences become one commit. No IO, no clock.
//!
//! The caller has read both sides in one transaction and writes what comes out in the same one.

use std::collections::BTreeMap;

use mstore_protocol::{
    Change, ChangeOp, Collection, Digest, Epoch, Frame, Head, OperationId, PROTOCOL_VERSION, Row, RowHash, Seq, Tag, Timestamp, frame_type,
    limits::{BULK_CHANGES_MAX, FRAME_BYTES_MAX},
};
use serde_json::value::RawValue;

/// Fewer deletions than this in one collection are never held.
pub const MASS_DELETE_ROWS: u64 = 100;
/// Share of a collection, in percent, that may be deleted in one commit when it is more than [`MASS_DELETE_ROWS`].
pub const MASS_DELETE_PERCENT: u64 = 20;
/// How much of a head-only commit's pulls each device adds to the time they are spread over, milliseconds.
const PULL_SPREAD_PER_DEVICE_MS: u64 = 5;
/// Longest time that pulls are spread over, milliseconds.
const PULL_SPREAD_MAX_MS: u64 = 30_000;

/// A row as it stands on one side: canonical text and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Canonical JSON.
    pub text: Box<str>,
    /// Its hash within its collection.
    pub hash: RowHash,
}

impl Stored {
    /// Hashes a canonical text.
    pub fn new(collection: &Collection, id: &str, text: Box<str>) -> Self {
        let hash = RowHash::of(collection, id, &text);
        Self { text, hash }
    }
}

/// A row that devices have otherwise than the source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its collection.
    pub collection: Collection,
    /// Its id.
    pub id: Box<str>,
    /// What devices have; `None` when they do not have it.
    pub old: Option<Stored>,
    /// What the source has; `None` when it is gone.
    pub new: Option<Stored>,
    /// The row left its window by age: not a deletion that anybody must confirm.
    pub expired: bool,
}

impl Difference {
    /// Compares the mirror's row with the source's; equal texts make no difference.
    pub fn between(collection: &Collection, id: &str, old: Option<Stored>, new: Option<Box<str>>) -> Option<Self> {
        if old.as_ref().map(|row| &row.text) == new.as_ref() {
            return None;
        }
        let new = new.map(|text| Stored::new(collection, id, text));
        Some(Self { collection: collection.clone(), id: id.into(), old, new, expired: false })
    }

    fn is_deletion(&self) -> bool {
        self.new.is_none() && !self.expired
    }

    /// Delete when the row is gone; patch when that is shorter than the row; otherwise the whole row.
    pub fn to_change(&self) -> Change {
        let Some(new) = &self.new else {
            return Change { op: ChangeOp::Delete, id: self.id.to_string(), row: None };
        };
        let patch = self.old.as_ref().and_then(|old| patch(&old.text, &new.text)).filter(|patch| patch.len() < new.text.len());
        let (op, text) = patch.map_or_else(|| (ChangeOp::Put, new.text.to_string()), |patch| (ChangeOp::Patch, patch));
        let raw = RawValue::from_string(text).expect("a canonical text is JSON");
        Change { op, id: self.id.to_string(), row: Some(raw) }
    }
}

fn patch(old: &str, new: &str) -> Option<String> {
    // A mirror text altered by hand may not be a row any more: then the whole row is sent.
    let old = Row::parse(old).ok()?;
    let new = Row::parse(new).ok()?;
    old.patch_to(&new)
}

/// What a branch's numbering knows of one collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectionState {
    /// The sum of its row hashes.
    pub digest: Digest,
    /// The commit that last changed it; 0 if none.
    pub last_seq: Seq,
    /// How many rows it has.
    pub rows: u64,
}

/// Where a branch's numbering stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchState {
    /// The numbering.
    pub epoch: Epoch,
    /// The newest commit; 0 before the first.
    pub seq: Seq,
    /// Its tag.
    pub tag: Tag,
    /// Server time when the head was made.
    pub at: Timestamp,
    /// By name; the built-in three are always there.
    pub collections: BTreeMap<Collection, CollectionState>,
}

impl BranchState {
    /// A branch before its first commit.
    pub fn new(epoch: Epoch, at: Timestamp) -> Self {
        let collections = Collection::built_in().into_iter().map(|name| (name, CollectionState::default())).collect();
        Self { epoch, seq: 0, tag: Tag::NONE, at, collections }
    }

    /// As devices see it.
    pub fn head(&self) -> Head {
        Head {
            v: PROTOCOL_VERSION,
            epoch: self.epoch,
            seq: self.seq,
            tag: self.tag,
            at: self.at,
            digests: self.digests(),
            pull_within_ms: None,
            held_since: None,
        }
    }

    /// The digests by collection.
    pub fn digests(&self) -> BTreeMap<Collection, Digest> {
        self.collections.iter().map(|(name, of)| (name.clone(), of.digest)).collect()
    }
}

/// How a commit reaches the devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// One payload per changed collection, by name.
    Frames(Vec<(Collection, String)>),
    /// Too large for frames: the head tells the devices to pull.
    HeadOnly,
}

/// A commit as it is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The branch after it.
    pub state: BranchState,
    /// The collections that it changes.
    pub changed: Vec<Collection>,
    /// What is published.
    pub delivery: Delivery,
}

/// More deletions at once than anybody makes by intention.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a commit would delete {deletes} of the {rows} rows of {collection}")]
pub struct MassDeletion {
    /// Where.
    pub collection: Collection,
    /// How many rows would go.
    pub deletes: u64,
    /// Of how many.
    pub rows: u64,
}

/// Puts differences into the order of a commit: collections by name, changes by id.
pub fn sort(differences: &mut [Difference]) {
    differences.sort_unstable_by(|a, b| a.collection.cmp(&b.collection).then_with(|| a.id.cmp(&b.id)));
}

/// The first collection that would lose more than max([`MASS_DELETE_ROWS`], [`MASS_DELETE_PERCENT`] %) of its rows.
pub fn mass_deletion(state: &BranchState, differences: &[Difference]) -> Option<MassDeletion> {
    let mut deletes: BTreeMap<&Collection, u64> = BTreeMap::new();
    for difference in differences.iter().filter(|difference| difference.is_deletion()) {
        *deletes.entry(&difference.collection).or_default() += 1;
    }
    deletes.into_iter().find_map(|(collection, deletes)| {
        let rows = state.collections.get(collection).map_or(0, |of| of.rows);
        let allowed = MASS_DELETE_ROWS.max(rows * MASS_DELETE_PERCENT / 100);
        (deletes > allowed).then(|| MassDeletion { collection: collection.clone(), deletes, rows })
    })
}

/// One commit of all differences, which are sorted; `None` when there are none.
pub fn commit(before: &BranchState, differences: &[Difference], ops: &[OperationId], tag: Tag, at: Timestamp) -> Option<Commit> {
    if differences.is_empty() {
        return None;
    }
    let mut state = BranchState { seq: before.seq + 1, tag, at, ..before.clone() };
    let mut changed = Vec::new();
    for group in differences.chunk_by(|a, b| a.collection == b.collection) {
        let collection = group[0].collection.clone();
        let entry = state.collections.entry(collection.clone()).or_default();
        for difference in group {
            let (old, new) = (difference.old.as_ref(), difference.new.as_ref());
            entry.digest = entry.digest.replacing(old.map(|row| row.hash), new.map(|row| row.hash));
            entry.rows = (entry.rows + u64::from(new.is_some())).saturating_sub(u64::from(old.is_some()));
        }
        entry.last_seq = state.seq;
        changed.push(collection);
    }
    let delivery = if differences.len() > BULK_CHANGES_MAX { Delivery::HeadOnly } else { frames(before, &state, differences, ops) };
    Some(Commit { state, changed, delivery })
}

/// A commit that changes no row: it is there to name operations whose tills wait to hear of them. It has no frames, its head tells the devices to pull.
pub fn naming(before: &BranchState, tag: Tag, at: Timestamp) -> Commit {
    let state = BranchState { seq: before.seq + 1, tag, at, ..before.clone() };
    Commit { state, changed: Vec::new(), delivery: Delivery::HeadOnly }
}

fn frames(before: &BranchState, after: &BranchState, differences: &[Difference], ops: &[OperationId]) -> Delivery {
    let groups: Vec<_> = differences.chunk_by(|a, b| a.collection == b.collection).collect();
    let parts = u32::try_from(groups.len()).expect("at most one part per collection");
    let mut payloads = Vec::with_capacity(groups.len());
    for (part, group) in (1..).zip(groups) {
        let collection = &group[0].collection;
        let changes: Vec<Change> = group.iter().map(Difference::to_change).collect();
        let frame = Frame {
            v: PROTOCOL_VERSION,
            frame_type: frame_type(collection, &changes),
            epoch: after.epoch,
            seq: after.seq,
            tag: after.tag,
            prev: before.collections.get(collection).map_or(0, |of| of.last_seq),
            part,
            parts,
            at: after.at,
            ops: if part == 1 { ops.to_vec() } else { Vec::new() },
            changes,
        };
        let payload = frame.to_json();
        if payload.len() > FRAME_BYTES_MAX {
            return Delivery::HeadOnly;
        }
        payloads.push((collection.clone(), payload));
    }
    Delivery::Frames(payloads)
}

/// The time over which so many devices spread the pulls of a head-only commit, milliseconds.
pub fn pull_within_ms(devices: usize) -> u64 {
    let others = u64::try_from(devices).unwrap_or(u64::MAX).saturating_sub(1);
    others.saturating_mul(PULL_SPREAD_PER_DEVICE_MS).min(PULL_SPREAD_MAX_MS)
}

#[cfg(test)]
mod tests;
