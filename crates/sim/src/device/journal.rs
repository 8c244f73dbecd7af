//! The journal's part of the database: operations, their verdicts, and how long each counts as pending.

use mstore_engine::{
    QueuedOperation,
    overlay::{StockEffect, effects_of, shown},
};
use mstore_protocol::{
    Code, Cursor, Epoch, Operation, OperationId, OperationKind, Quantity, Row, StockTarget, Timestamp, Verdict, VerdictStatus,
};

use super::db::Db;
use crate::{bug::Bug, shop};

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Queued,
    Accepted,
    Rejected,
}

/// An operation as the journal has it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) operation: Operation,
    pub(crate) effects: Vec<StockEffect>,
    pub(crate) state: State,
    /// The stream contains it.
    pub(crate) shown: bool,
    /// A commit has named it, or it was handed in again because none did.
    named: bool,
    epoch: Option<Epoch>,
    pub(crate) seq: Option<u64>,
    /// It belongs to a branch that the device has left.
    pub(crate) elsewhere: bool,
    pub(crate) code: Option<Code>,
}

impl Db {
    /// Writes an operation and its effect on the overlay.
    pub(super) fn commit(&mut self, id: OperationId, occurred_at: Timestamp, make: impl FnOnce(u64) -> OperationKind) -> Operation {
        let device_seq = self.next_device_seq;
        self.next_device_seq += 1;
        let kind = make(device_seq);
        let effects = effects_of(&kind, |id| self.rows.get(&(mstore_protocol::Collection::product(), id.to_owned())).cloned());
        let operation = Operation { id, device_seq, occurred_at, replaces: None, kind };
        let entry = Entry {
            operation: operation.clone(),
            effects,
            state: State::Queued,
            shown: false,
            named: false,
            epoch: None,
            seq: None,
            elsewhere: false,
            code: None,
        };
        self.journal.push(entry);
        operation
    }

    /// Operations without a verdict, by number.
    pub(crate) fn queue(&self) -> Vec<QueuedOperation> {
        let queued = self.journal.iter().filter(|entry| entry.state == State::Queued);
        queued.map(|entry| QueuedOperation { id: entry.operation.id, at: entry.operation.occurred_at }).collect()
    }

    pub(crate) fn operations(&self, ids: &[OperationId]) -> Vec<Operation> {
        let find = |id: &OperationId| self.journal.iter().find(|entry| entry.operation.id == *id);
        ids.iter().filter_map(find).map(|entry| entry.operation.clone()).collect()
    }

    /// Operations that the stream contains from here on are no longer pending: those it names, and those whose commit it has passed. One whose
    /// commit went by without naming it waits for a verdict again, once.
    pub(super) fn leave_overlay(&mut self, cursor: Cursor, ops: &[OperationId]) {
        for entry in &mut self.journal {
            if ops.contains(&entry.operation.id) && !entry.named {
                entry.shown = true;
                entry.named = true;
            }
            let here = entry.epoch.is_none_or(|epoch| epoch == cursor.epoch);
            let passed = here && entry.seq.is_some_and(|seq| seq <= cursor.seq);
            if entry.state == State::Accepted && !entry.shown && passed {
                entry.state = if entry.named { entry.state } else { State::Queued };
                entry.shown = true;
                entry.named = true;
            }
        }
    }

    /// Whether an operation that had its verdict waits for one again.
    pub(super) fn has_requeued(&self) -> bool {
        self.journal.iter().any(|entry| entry.state == State::Queued && entry.seq.is_some())
    }

    pub(super) fn queue_accepted(&mut self) {
        for entry in self.journal.iter_mut().filter(|entry| entry.state == State::Accepted && !entry.elsewhere) {
            entry.state = State::Queued;
        }
    }

    /// What has a verdict but was not shown waits for one again: a new session does not know what number it was given.
    pub(super) fn queue_unshown(&mut self) {
        let unshown = |entry: &&mut Entry| entry.state == State::Accepted && !entry.shown && !entry.elsewhere;
        self.journal.iter_mut().filter(unshown).for_each(|entry| entry.state = State::Queued);
    }

    pub(super) fn settle_elsewhere(&mut self) {
        for entry in self.journal.iter_mut().filter(|entry| entry.state == State::Accepted) {
            entry.elsewhere = true;
            entry.shown = true;
            entry.named = true;
        }
    }

    /// Writes verdicts down; true when some operation waits for one again.
    pub(super) fn settle(&mut self, verdicts: &[Verdict], bug: Option<Bug>) -> bool {
        let epoch = self.cursor.map(|cursor| cursor.epoch);
        for verdict in verdicts {
            let waits = |entry: &&mut Entry| entry.state == State::Queued && entry.operation.id.to_string() == verdict.id;
            let Some(entry) = self.journal.iter_mut().find(waits) else { continue };
            entry.code = verdict.code;
            match verdict.status {
                VerdictStatus::Accepted | VerdictStatus::Duplicate => {
                    entry.state = State::Accepted;
                    entry.epoch = epoch;
                    entry.seq = verdict.seq;
                    entry.shown |= bug == Some(Bug::OverlayEndsAtVerdict);
                }
                VerdictStatus::Rejected => entry.state = State::Rejected,
            }
        }
        if let Some(cursor) = self.cursor {
            self.leave_overlay(cursor, &[]);
        }
        self.has_requeued()
    }

    /// The figure that the app shows: the server's, and what is pending.
    pub(crate) fn figure(&self, target: StockTarget, id: &str) -> Option<Quantity> {
        let server = figure_of(self.rows.get(&(shop::collection_of(target), id.to_owned()))?, target)?;
        let pending = self.journal.iter().filter(|entry| !entry.shown && entry.state != State::Rejected);
        let effects = pending.flat_map(|entry| &entry.effects).filter(|effect| effect.target == target && effect.item_id == id);
        Some(shown(server, effects.map(|effect| effect.change)))
    }
}

/// The server's figure in a row.
pub(crate) fn figure_of(row: &Row, target: StockTarget) -> Option<Quantity> {
    Quantity::parse(row.to_map().get(shop::figure_field(target))?.as_str()?).ok()
}
