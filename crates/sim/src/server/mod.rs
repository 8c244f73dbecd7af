//! A model of the server: one durable database whose transactions are whole, and what a process holds in memory beside it.

pub(crate) mod changes;
pub(crate) mod database;
mod ledger;
mod operations;
mod registry;
mod sequencer;

use std::collections::BTreeMap;

use mstore_engine::stock::BelowZero;
use mstore_protocol::{Collection, Cursor, Digest, Head, OperationId, PROTOCOL_VERSION, Timestamp, Verdict};
use rand::{Rng as _, rngs::StdRng};

pub(crate) use changes::{Answer, Reply};
pub(crate) use database::{Database, Entry, Message};
pub(crate) use ledger::{Figure, Movement};
pub(crate) use operations::Upload;
pub(crate) use registry::{Login, Registered};

use crate::{bug::Bug, plan::Edit, shop::BRANCHES};

/// A commit that became durable.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) branch: usize,
    pub(crate) cursor: Cursor,
    pub(crate) digests: BTreeMap<Collection, Digest>,
    pub(crate) ops: Vec<OperationId>,
    /// What it put into the outbox.
    pub(crate) entries: Vec<u64>,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Server {
    /// On disk.
    pub(crate) db: Database,
    backup: Option<Box<Database>>,
    /// Snapshots in memory, by branch.
    cached: [Option<Answer>; BRANCHES],
    /// Only with [`Bug::OutboxBesideCommit`]: what the second transaction would write.
    unwritten: Vec<Entry>,
    pub(crate) is_up: bool,
    /// How often it was started.
    pub(crate) life: u32,
    /// No room on its disk: every write answers so.
    pub(crate) is_full: bool,
    /// Milliseconds that its clock is ahead.
    pub(crate) skew_ms: i64,
    pub(crate) restores: u32,
    bug: Option<Bug>,
}

impl Server {
    pub(crate) fn new(dice: &mut StdRng, devices: usize, policy: BelowZero, bug: Option<Bug>) -> Self {
        Self {
            db: Database::new(dice, devices, policy),
            backup: None,
            cached: [None, None],
            unwritten: Vec::new(),
            is_up: true,
            life: 0,
            is_full: false,
            skew_ms: 0,
            restores: 0,
            bug,
        }
    }

    pub(crate) fn bug(&self) -> Option<Bug> {
        self.bug
    }

    /// Its clock.
    pub(crate) fn clock(&self, now: u64) -> Timestamp {
        Timestamp::from_ms(i64::try_from(now).unwrap_or(i64::MAX)).plus_ms(self.skew_ms)
    }

    pub(crate) fn head(&self, branch: usize, now: u64, pull_within_ms: Option<u64>) -> Head {
        let state = &self.db.branches[branch].state;
        Head {
            v: PROTOCOL_VERSION,
            epoch: state.epoch,
            seq: state.seq,
            tag: state.tag,
            at: self.clock(now),
            digests: self.db.branches[branch].digests(),
            pull_within_ms,
            held_since: None,
        }
    }

    /// One writer's transaction through the server's own interface: sequenced before it is durable.
    pub(crate) fn write(&mut self, dice: &mut StdRng, now: u64, edits: &[Edit]) -> Vec<Made> {
        if self.is_full {
            return Vec::new();
        }
        let at = self.clock(now);
        self.db.edit(at, edits);
        self.sequence(dice, now)
    }

    /// One transaction of another program: it leaves marks, nothing else.
    pub(crate) fn write_by_hand(&mut self, now: u64, edits: &[Edit]) {
        let at = self.clock(now);
        self.db.edit(at, edits);
    }

    /// Makes commits of the marks that are there.
    pub(crate) fn sequence(&mut self, dice: &mut StdRng, now: u64) -> Vec<Made> {
        if self.is_full {
            return Vec::new();
        }
        let at = self.clock(now);
        let (made, entries) = self.db.sequence(dice, at, self.bug);
        if self.bug == Some(Bug::OutboxBesideCommit) {
            self.unwritten.extend(entries);
        } else {
            self.db.outbox.extend(entries);
        }
        made
    }

    /// The second transaction of [`Bug::OutboxBesideCommit`].
    pub(crate) fn write_outbox(&mut self) {
        let entries = std::mem::take(&mut self.unwritten);
        self.db.outbox.extend(entries);
    }

    /// Judges an upload; `None`: the disk is full.
    pub(crate) fn accept(&mut self, dice: &mut StdRng, now: u64, upload: &Upload) -> Option<(Vec<Verdict>, Vec<Made>)> {
        if self.is_full {
            return None;
        }
        let at = self.clock(now);
        let mut verdicts = self.db.accept(at, upload, self.bug);
        let made = self.sequence(dice, now);
        self.db.fill_in(&mut verdicts);
        Some((verdicts, made))
    }

    /// `GET /changes`; a new epoch, if the question started one.
    pub(crate) fn changes(&mut self, dice: &mut StdRng, now: u64, ask: &changes::Question) -> (Reply, Option<Made>) {
        let cached = &mut self.cached[ask.branch];
        if ask.after.is_none() && ask.resume.is_none() {
            let epoch = self.db.branches[ask.branch].state.epoch;
            if let Some(old) = cached.as_ref().filter(|old| old.to.epoch == epoch && dice.random_bool(0.5)) {
                let mut answer = old.clone();
                answer.first.ops = self.db.own_operations(ask.branch, &ask.device, 0, old.to.seq);
                return (Reply::Lines(answer), None);
            }
        }
        let reply = self.db.changes(ask, self.bug);
        match reply {
            Reply::Lines(answer) if ask.after.is_none() && ask.resume.is_none() => {
                *cached = Some(answer.clone());
                (Reply::Lines(answer), None)
            }
            Reply::Restored => {
                let made = if self.is_full { None } else { self.db.new_epoch(dice, now, ask) };
                if made.is_some() {
                    self.cached[ask.branch] = None;
                }
                (Reply::SnapshotRequired, made)
            }
            other @ (Reply::Lines(_) | Reply::Unchanged | Reply::SnapshotRequired) => (other, None),
        }
    }

    /// The process dies: what is not on disk is gone.
    pub(crate) fn kill(&mut self) {
        self.is_up = false;
        self.life += 1;
        self.cached = [None, None];
        self.unwritten.clear();
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = Some(Box::new(self.db.clone()));
    }

    /// The disk was lost and the backup is put in its place; nobody tells the server so. The registry is not in it: who may log in is kept elsewhere.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = self.backup.take() else { return false };
        let registry = std::mem::take(&mut self.db.registry);
        self.db = *backup;
        self.db.registry = registry;
        self.restores += 1;
        true
    }
}
