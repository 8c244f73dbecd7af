//! What is true, kept apart from server and devices: every state the server ever had, every completed operation. The checks compare with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use mstore_engine::stock::Happened;
use mstore_protocol::{Collection, Cursor, Digest, Epoch, OperationId, Quantity, Row, Seq, StockTarget, Tag};

use crate::{
    device::{
        Device,
        journal::{State, figure_of},
    },
    promise::{Broken, Kept, Promise, broken},
    server::{Database, Figure, Made, Movement},
    shop::{self, BRANCHES, CELLAR, PAIR_MILLI, SHELF},
};

type Place = (Epoch, Seq, Tag);

fn place(cursor: Cursor) -> Place {
    (cursor.epoch, cursor.seq, cursor.tag)
}

/// A state that the server had.
#[derive(Debug, Clone)]
struct Moment {
    branch: usize,
    digests: BTreeMap<Collection, Digest>,
    /// The operations that it contains.
    ops: Rc<BTreeSet<OperationId>>,
}

/// The truth.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    moments: BTreeMap<Place, Moment>,
    /// Where each branch is.
    heads: Vec<Option<Place>>,
    /// Operations of which a cashier was told that they are done, by device.
    pub(crate) completed: BTreeMap<OperationId, usize>,
    /// Their journal was lost before the server had them: nobody can have them any more.
    pub(crate) lost_with_disk: BTreeSet<OperationId>,
    /// No journal has them: only the server's own disk does.
    orphans: BTreeSet<OperationId>,
    /// Accepted, and at some time forgotten by a server that was put back.
    pub(crate) lost_by_restore: BTreeSet<OperationId>,
    /// Accepted, and without any effect on a row.
    idle: BTreeSet<OperationId>,
    /// A server or a device was put back to a backup.
    pub(crate) has_lost_disk: bool,
    has_restored_server: bool,
    /// Messages that the broker has not taken yet.
    due: BTreeSet<u64>,
    /// The newest commit of each branch that a restore took away; 0 if none.
    pub(crate) past: [Seq; BRANCHES],
}

impl Truth {
    pub(crate) fn new(db: &Database) -> Self {
        let mut truth = Self { heads: vec![None; BRANCHES], ..Self::default() };
        for (n, branch) in db.branches.iter().enumerate() {
            let moment = Moment { branch: n, digests: branch.digests(), ops: Rc::default() };
            truth.heads[n] = Some(place(branch.cursor()));
            truth.moments.insert(place(branch.cursor()), moment);
        }
        truth
    }

    /// A commit is durable.
    pub(crate) fn made(&mut self, made: &Made) {
        let before = self.heads[made.branch].and_then(|head| self.moments.get(&head));
        let mut ops = before.map_or_else(Rc::default, |moment| Rc::clone(&moment.ops));
        if !made.ops.is_empty() {
            Rc::make_mut(&mut ops).extend(made.ops.iter().copied());
        }
        self.heads[made.branch] = Some(place(made.cursor));
        self.moments.insert(place(made.cursor), Moment { branch: made.branch, digests: made.digests.clone(), ops });
        self.due.extend(&made.entries);
    }

    /// An operation was accepted. If it changed nothing, no commit will name it: it is contained in what is there already.
    pub(crate) fn accepted(&mut self, branch: usize, id: OperationId) {
        let head = self.heads[branch].and_then(|head| self.moments.get(&head));
        if head.is_none_or(|moment| !moment.ops.contains(&id)) {
            self.idle.insert(id);
        }
    }

    /// Whether an operation was accepted at some time without changing a row.
    pub(crate) fn is_idle(&self, id: OperationId) -> bool {
        self.idle.contains(&id)
    }

    /// The server's database is another one from here on.
    pub(crate) fn restored(&mut self, before: &BTreeSet<OperationId>, db: &Database) {
        for (n, branch) in db.branches.iter().enumerate() {
            let lost = self.heads[n].replace(place(branch.cursor())).map_or(0, |(_, seq, _)| seq);
            self.past[n] = self.past[n].max(lost);
        }
        self.has_lost_disk = true;
        self.has_restored_server = true;
        let kept = |id: &OperationId| db.operations.contains_key(id);
        self.lost_by_restore.extend(before.iter().filter(|id| !kept(id)));
        let orphaned: Vec<_> = self.orphans.iter().filter(|id| !kept(id)).copied().collect();
        self.lost_with_disk.extend(orphaned);
        self.due = db.outbox.iter().map(|entry| entry.id).collect();
    }

    /// A backup is a device's disk from here on: what only the lost one held is gone.
    pub(crate) fn disk_lost(&mut self, n: usize, device: &Device, db: &Database) {
        self.has_lost_disk = true;
        let held: BTreeSet<OperationId> = device.db.journal.iter().map(|entry| entry.operation.id).collect();
        let own = self.completed.iter().filter(|(id, of)| **of == n && !held.contains(*id));
        let gone: Vec<_> = own.map(|(id, _)| *id).collect();
        for id in gone {
            self.orphans.insert(id);
            if !db.operations.contains_key(&id) {
                self.lost_with_disk.insert(id);
            }
        }
    }

    /// The broker has a message.
    pub(crate) fn taken(&mut self, entry: u64) {
        self.due.remove(&entry);
    }

    /// A message is no longer in the outbox.
    pub(crate) fn forgotten(&self, entry: u64) -> Kept {
        if self.due.contains(&entry) {
            return broken(Promise::Published, format!("message {entry} was forgotten before the broker had it"));
        }
        Ok(())
    }

    pub(crate) fn all_published(&self) -> Kept {
        if self.due.is_empty() {
            return Ok(());
        }
        broken(Promise::Published, format!("the broker never got the messages {:?}", self.due))
    }

    fn contains(&self, cursor: Cursor, id: OperationId) -> bool {
        self.moments.get(&place(cursor)).is_some_and(|moment| moment.ops.contains(&id))
    }

    /// What must hold on a device after each of its transactions.
    pub(crate) fn check_device(&self, n: usize, device: &mut Device) -> Kept {
        self.check_journal(n, device)?;
        let Some(cursor) = device.db.cursor else { return Ok(()) };
        if let Some(best) = device.best.filter(|best| best.epoch == cursor.epoch && cursor.seq < best.seq) {
            return broken(Promise::CursorMonotone, format!("device {n} went back from {best} to {cursor}"));
        }
        device.best = Some(cursor);
        let Some(moment) = self.moments.get(&place(cursor)) else {
            return broken(Promise::TrueStates, format!("device {n} shows {cursor}, which never was"));
        };
        if moment.branch != device.db.login.branch {
            return broken(Promise::TrueStates, format!("device {n} shows a branch that it does not belong to"));
        }
        let mine = |collection: &Collection| device.db.digests.get(collection).copied().unwrap_or_default();
        let is_true = moment.digests.iter().all(|(collection, digest)| mine(collection) == *digest);
        device.is_rotten &= !is_true;
        if device.is_rotten {
            return Ok(());
        }
        if !is_true {
            return broken(Promise::TrueStates, format!("device {n} at {cursor} shows rows that the server never had there"));
        }
        check_pair(&format!("device {n} at {cursor}"), |item| {
            let row = device.db.rows.get(&(Collection::inventory(), item.to_owned()))?;
            figure_of(row, StockTarget::Inventory)
        })?;
        self.check_overlay(n, device, cursor)
    }

    /// No completed operation is missing from the journal.
    fn check_journal(&self, n: usize, device: &Device) -> Kept {
        let held = device.db.journal.len();
        let own = self.completed.iter().filter(|(id, of)| **of == n && !self.orphans.contains(*id)).count();
        if held < own {
            return broken(Promise::ExactlyOnce, format!("device {n} completed {own} operations, its journal holds {held}"));
        }
        Ok(())
    }

    /// An own operation is pending exactly as long as the rows shown do not contain it.
    fn check_overlay(&self, n: usize, device: &Device, cursor: Cursor) -> Kept {
        let here = device.db.journal.iter().filter(|entry| !entry.elsewhere && entry.state != State::Rejected);
        for entry in here {
            let id = entry.operation.id;
            let contained = self.contains(cursor, id);
            // What a restored server has lost is in no state until it was handed in again; and a device that has not heard of the restore
            // takes the numbers of new commits for those of old ones. Both end with the new epoch and its replay.
            let lost = entry.shown && self.has_restored_server;
            if entry.shown != contained && !lost && !self.idle.contains(&id) {
                let (shown, state) = (entry.shown, entry.state);
                let what = format!("operation {id} of device {n} at {cursor}: shown {shown}, contained {contained}, {state:?}");
                return broken(Promise::ReadYourWrites, what);
            }
        }
        Ok(())
    }
}

fn check_pair(whose: &str, figure: impl Fn(&str) -> Option<Quantity>) -> Kept {
    match (figure(SHELF), figure(CELLAR)) {
        (None, None) => Ok(()),
        (Some(shelf), Some(cellar)) if (shelf + cellar).as_milli() == PAIR_MILLI => Ok(()),
        (shelf, cellar) => broken(Promise::StockConserved, format!("{whose}: {shelf:?} on the shelf and {cellar:?} in the cellar")),
    }
}

/// What must hold at the server after each of its transactions.
pub(crate) fn check_server(db: &Database) -> Kept {
    for (n, branch) in db.branches.iter().enumerate() {
        check_pair(&format!("branch {n}"), |item| {
            let (stored, _) = branch.mirror.get(&(Collection::inventory(), item.to_owned()))?;
            figure_of(&Row::parse(&stored.text).ok()?, StockTarget::Inventory)
        })?;
    }
    for (figure, moves) in &db.ledger.moves {
        let (branch, target, item) = figure;
        let stock = db.ledger.stock(*branch, *target, item);
        let expected = expected(figure, moves);
        if stock != expected {
            let what = format!("{item} at branch {branch}: {stock} in stock, {expected} by its opening and movements");
            return broken(Promise::StockConserved, what);
        }
    }
    if let Some((id, recorded)) = db.operations.iter().find(|(_, recorded)| recorded.times > 1) {
        return broken(Promise::ExactlyOnce, format!("operation {id} was carried out {} times", recorded.times));
    }
    check_transfers(db)
}

/// Opening stock and movements, by the rule and in whatever order they came: the last count, and what happened after it.
fn expected(figure: &Figure, moves: &[Movement]) -> Quantity {
    let opening = Quantity::from_milli(shop::opening_milli(figure.1, &figure.2));
    if !is_ordered(moves) {
        return moves.iter().fold(opening, |sum, movement| sum + movement.effect);
    }
    let last = moves
        .iter()
        .filter(|movement| movement.is_count)
        .reduce(|last, other| if last.happened.is_before(&other.happened) { other } else { last });
    let base = last.map_or(opening, |last| last.quantity);
    let after = |movement: &&Movement| !movement.is_count && last.is_none_or(|last| !movement.happened.is_before(&last.happened));
    moves.iter().filter(after).fold(base, |sum, movement| sum + movement.quantity)
}

/// Whether time and the journals' numbers agree on one order; where a clock jumped they may not.
fn is_ordered(moves: &[Movement]) -> bool {
    if !moves.iter().any(|movement| movement.is_count) {
        return true;
    }
    let mut times: Vec<&Happened> = moves.iter().map(|movement| &movement.happened).collect();
    times.sort_by_key(|happened| happened.at);
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    times.windows(2).all(|pair| pair[0].at != pair[1].at)
        && times.iter().all(|happened| {
            let Some((journal, number)) = &happened.entry else { return true };
            last.insert(journal, *number).is_none_or(|before| before < *number)
        })
}

/// What left one branch has arrived at the other.
fn check_transfers(db: &Database) -> Kept {
    let mut sums: BTreeMap<OperationId, Quantity> = BTreeMap::new();
    for movement in db.ledger.moves.values().flatten() {
        let transfer = movement.operation.filter(|id| db.operations.get(id).is_some_and(|recorded| recorded.is_transfer));
        if let Some(id) = transfer {
            let sum = sums.entry(id).or_insert(Quantity::ZERO);
            *sum = *sum + movement.quantity;
        }
    }
    match sums.into_iter().find(|(_, sum)| *sum != Quantity::ZERO) {
        Some((id, sum)) => broken(Promise::StockConserved, format!("transfer {id} made {sum} out of nothing")),
        None => Ok(()),
    }
}

/// At the end: source, mirror and device are the same, row by row and in sum.
pub(crate) fn check_equal(n: usize, device: &Device, db: &Database) -> Kept {
    let branch = &db.branches[device.db.login.branch];
    let source = db.source_rows(device.db.login.branch);
    let differs = |what: String| -> Result<(), Broken> { broken(Promise::Convergence, what) };
    let mirror: BTreeMap<_, _> = branch.mirror.iter().map(|(key, (stored, _))| (key, &stored.text)).collect();
    if mirror.len() != source.len() || source.iter().any(|(key, text)| mirror.get(key).is_none_or(|held| **held != *text)) {
        return differs(format!("the mirror of branch {} is not its source", device.db.login.branch));
    }
    let rows = &device.db.rows;
    if let Some((key, _)) = source.iter().find(|(key, text)| rows.get(*key).is_none_or(|row| row.as_str() != &***text)) {
        return differs(format!("device {n} has another {key:?} than the server"));
    }
    if rows.len() != source.len() {
        return differs(format!("device {n} has {} rows, the server {}", rows.len(), source.len()));
    }
    let mut sums: BTreeMap<Collection, Digest> = BTreeMap::new();
    for (key, row) in rows {
        let sum = sums.entry(key.0.clone()).or_default();
        *sum = sum.with(row.hash(&key.0));
    }
    let at = |digests: &BTreeMap<Collection, Digest>, collection: &Collection| digests.get(collection).copied().unwrap_or_default();
    let server = branch.digests();
    for (collection, digest) in &server {
        if at(&sums, collection) != *digest || at(&device.db.digests, collection) != *digest {
            return differs(format!("device {n} has another digest of {collection} than the server"));
        }
    }
    Ok(())
}
