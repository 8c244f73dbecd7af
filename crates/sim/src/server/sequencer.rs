//! Marks become commits, by the engine's decisions, in the transaction that holds the marks' rows.

use std::rc::Rc;

use mstore_engine::sequence::{self, Delivery, Difference};
use mstore_protocol::{OperationId, Tag, Timestamp};
use rand::{Rng as _, rngs::StdRng};

use super::{
    Made,
    changes::Question,
    database::{Database, Entry, Message},
};
use crate::{bug::Bug, shop::BRANCHES, shop::Key};

/// Between two new epochs of a branch passes at least this, as in the store.
const EPOCH_MIN_MS: u64 = 60_000;

impl Database {
    /// All marks of every branch that has some; what they put into the outbox comes back with the commits.
    pub(super) fn sequence(&mut self, dice: &mut StdRng, at: Timestamp, bug: Option<Bug>) -> (Vec<Made>, Vec<Entry>) {
        let (mut made, mut entries) = (Vec::new(), Vec::new());
        for branch in 0..BRANCHES {
            let (mut taken, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.marks).into_iter().partition(|(of, _)| *of == branch);
            self.marks = left;
            if bug == Some(Bug::LeaveMarks) && taken.len() > 1 {
                let rest = taken.split_off(taken.len() / 2);
                self.marks.extend(rest);
            }
            let mut keys: Vec<Key> = taken.into_iter().map(|(_, key)| key).collect();
            keys.sort();
            keys.dedup();
            made.extend(self.sequence_branch(dice, at, branch, &keys, &mut entries));
        }
        (made, entries)
    }

    fn sequence_branch(&mut self, dice: &mut StdRng, at: Timestamp, branch: usize, keys: &[Key], entries: &mut Vec<Entry>) -> Option<Made> {
        let mut differences: Vec<Difference> = keys.iter().filter_map(|key| self.difference(branch, key)).collect();
        sequence::sort(&mut differences);
        assert!(sequence::mass_deletion(&self.branches[branch].state, &differences).is_none(), "nobody deletes so much here");
        let ops = self.unsequenced(branch);
        let commit = sequence::commit(&self.branches[branch].state, &differences, &ops, Tag::from_bits(dice.random()), at);
        let seq = commit.as_ref().map_or(self.branches[branch].state.seq, |commit| commit.state.seq);
        for id in &ops {
            if let Some(recorded) = self.operations.get_mut(id) {
                recorded.seq = Some(seq);
            }
        }
        let commit = commit?;
        let of = &mut self.branches[branch];
        for difference in differences {
            let key = (difference.collection, difference.id.to_string());
            match difference.new {
                Some(new) => {
                    of.tombs.remove(&key);
                    of.mirror.insert(key, (new, seq));
                }
                None => {
                    of.mirror.remove(&key);
                    of.tombs.insert(key, seq);
                }
            }
        }
        of.state = commit.state;
        of.tags.insert(seq, of.state.tag);
        let (cursor, digests) = (of.cursor(), of.digests());
        let messages = match commit.delivery {
            Delivery::Frames(frames) => {
                frames.into_iter().map(|(collection, payload)| Message::Frame(collection, Rc::from(payload))).collect()
            }
            Delivery::HeadOnly => vec![Message::HeadOnly],
        };
        let first = self.last_entry + 1;
        for message in messages {
            self.last_entry += 1;
            entries.push(Entry { id: self.last_entry, branch, message });
        }
        Some(Made { branch, cursor, digests, ops, entries: (first..=self.last_entry).collect() })
    }

    fn difference(&self, branch: usize, key: &Key) -> Option<Difference> {
        let old = self.branches[branch].mirror.get(key).map(|(stored, _)| stored.clone());
        let difference = Difference::between(&key.0, &key.1, old, self.source_row(branch, key))?;
        Some(Difference { expired: self.is_expired(branch, key), ..difference })
    }

    fn unsequenced(&self, branch: usize) -> Vec<OperationId> {
        let waits = |id: &&OperationId| {
            self.operations.get(id).is_some_and(|recorded| recorded.branch == branch && recorded.accepted && recorded.seq.is_none())
        };
        let mut ids: Vec<OperationId> = self.arrivals.iter().filter(waits).copied().collect();
        ids.dedup();
        ids
    }

    /// A cursor that this database never gave out: a new epoch, unless somebody started one a moment ago.
    pub(super) fn new_epoch(&mut self, dice: &mut StdRng, now: u64, ask: &Question) -> Option<Made> {
        let branch = &mut self.branches[ask.branch];
        let seen = ask.after.is_some_and(|cursor| cursor.epoch == branch.state.epoch);
        if !seen || branch.restarted_at.is_some_and(|at| now.saturating_sub(at) < EPOCH_MIN_MS) {
            return None;
        }
        branch.restarted_at = Some(now);
        branch.state.epoch = mstore_protocol::Epoch::from_bits(dice.random());
        let (cursor, digests) = (branch.cursor(), branch.digests());
        self.last_entry += 1;
        self.outbox.push_back(Entry { id: self.last_entry, branch: ask.branch, message: Message::HeadOnly });
        Some(Made { branch: ask.branch, cursor, digests, ops: Vec::new(), entries: vec![self.last_entry] })
    }
}
