//! What the server has on disk: source tables, marks, mirror, operations, outbox. A backup is a copy of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mstore_engine::{
    sequence::{BranchState, Stored},
    stock::{BelowZero, Happened},
};
use mstore_protocol::{Collection, Digest, Epoch, OperationId, Quantity, Seq, StockTarget, Tag, Timestamp};
use rand::{Rng as _, rngs::StdRng};

use super::{
    ledger::{Ledger, Movement},
    operations::{Numbers, Recorded},
    registry::Registered,
};
use crate::{
    plan::Edit,
    shop::{self, BRANCHES, CELLAR, Key, SHELF},
};

/// What goes to the broker.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// A frame of a collection.
    Frame(Collection, std::rc::Rc<str>),
    /// A commit without frames: the head, with a pull.
    HeadOnly,
}

/// A message that waits for the broker.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) branch: usize,
    pub(crate) message: Message,
}

/// The numbering of a branch and what its devices should have.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    pub(crate) state: BranchState,
    pub(crate) mirror: BTreeMap<Key, (Stored, Seq)>,
    pub(crate) tombs: BTreeMap<Key, Seq>,
    pub(crate) floor: Seq,
    pub(crate) tags: BTreeMap<Seq, Tag>,
    /// When the last new epoch was started.
    pub(crate) restarted_at: Option<u64>,
}

impl Branch {
    pub(crate) fn digests(&self) -> BTreeMap<Collection, Digest> {
        self.state.collections.iter().map(|(name, of)| (name.clone(), of.digest)).collect()
    }

    pub(crate) fn cursor(&self) -> mstore_protocol::Cursor {
        mstore_protocol::Cursor { epoch: self.state.epoch, seq: self.state.seq, tag: self.state.tag }
    }
}

/// All that a transaction may change.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) branches: Vec<Branch>,
    /// The merchant's products and their edition.
    pub(crate) catalogue: BTreeMap<String, u32>,
    items: BTreeMap<(usize, String), u32>,
    pub(crate) ledger: Ledger,
    pub(super) transactions: BTreeMap<(usize, String), Box<str>>,
    /// Transactions that left their window.
    expired: BTreeSet<(usize, String)>,
    pub(super) marks: Vec<(usize, Key)>,
    pub(crate) operations: BTreeMap<OperationId, Recorded>,
    /// Operations in the order they came.
    pub(super) arrivals: Vec<OperationId>,
    pub(crate) journals: BTreeMap<(String, String), Numbers>,
    pub(crate) outbox: VecDeque<Entry>,
    pub(super) last_entry: u64,
    pub(crate) registry: Vec<Registered>,
    pub(super) policy: BelowZero,
}

impl Database {
    pub(super) fn new(dice: &mut StdRng, devices: usize, policy: BelowZero) -> Self {
        let branch = |dice: &mut StdRng| Branch {
            state: BranchState::new(Epoch::from_bits(dice.random()), Timestamp::from_ms(0)),
            mirror: BTreeMap::new(),
            tombs: BTreeMap::new(),
            floor: 0,
            tags: BTreeMap::from([(0, Tag::NONE)]),
            restarted_at: None,
        };
        let mut db = Self {
            branches: (0..BRANCHES).map(|_| branch(dice)).collect(),
            catalogue: shop::PRODUCTS.iter().map(|id| ((*id).to_owned(), 1)).collect(),
            items: BTreeMap::new(),
            ledger: Ledger::default(),
            transactions: BTreeMap::new(),
            expired: BTreeSet::new(),
            marks: Vec::new(),
            operations: BTreeMap::new(),
            arrivals: Vec::new(),
            journals: BTreeMap::new(),
            outbox: VecDeque::new(),
            last_entry: 0,
            registry: (0..devices).map(|n| Registered::new(usize::from(n == 2))).collect(),
            policy,
        };
        for branch in 0..BRANCHES {
            for id in shop::ITEMS {
                db.items.insert((branch, id.to_owned()), 1);
                db.marks.push((branch, (Collection::inventory(), id.to_owned())));
            }
            for id in shop::PRODUCTS {
                db.marks.push((branch, (Collection::product(), id.to_owned())));
            }
        }
        db
    }

    /// The row as the source tables have it now.
    pub(super) fn source_row(&self, branch: usize, key: &Key) -> Option<Box<str>> {
        let (collection, id) = key;
        if *collection == Collection::product() {
            let edition = self.catalogue.get(id)?;
            return Some(shop::product_row(id, *edition, self.ledger.stock(branch, StockTarget::Product, id)));
        }
        if *collection == Collection::inventory() {
            let edition = self.items.get(&(branch, id.clone()))?;
            return Some(shop::inventory_row(id, *edition, self.ledger.stock(branch, StockTarget::Inventory, id)));
        }
        let place = (branch, id.clone());
        self.transactions.get(&place).filter(|_| !self.expired.contains(&place)).cloned()
    }

    pub(super) fn is_expired(&self, branch: usize, key: &Key) -> bool {
        key.0 == Collection::transaction() && self.expired.contains(&(branch, key.1.clone()))
    }

    /// Every row that devices of a branch should have, straight from the source tables.
    pub(crate) fn source_rows(&self, branch: usize) -> BTreeMap<Key, Box<str>> {
        let products = self.catalogue.keys().map(|id| (Collection::product(), id.clone()));
        let items = self.items.keys().filter(|(of, _)| *of == branch).map(|(_, id)| (Collection::inventory(), id.clone()));
        let sales = self.transactions.keys().filter(|(of, _)| *of == branch).map(|(_, id)| (Collection::transaction(), id.clone()));
        let keys = products.chain(items).chain(sales);
        keys.filter_map(|key| self.source_row(branch, &key).map(|row| (key, row))).collect()
    }

    pub(super) fn has_item(&self, branch: usize, id: &str) -> bool {
        self.items.contains_key(&(branch, id.to_owned()))
    }

    pub(super) fn mark(&mut self, branch: usize, target: StockTarget, id: &str) {
        self.marks.push((branch, (shop::collection_of(target), id.to_owned())));
    }

    fn mark_everywhere(&mut self, id: &str) {
        for branch in 0..BRANCHES {
            self.mark(branch, StockTarget::Product, id);
        }
    }

    /// Carries out one writer's transaction; its triggers leave marks.
    pub(super) fn edit(&mut self, now: Timestamp, edits: &[Edit]) {
        for edit in edits {
            match edit {
                Edit::PutProduct(id) => {
                    *self.catalogue.entry((*id).to_owned()).or_insert(0) += 1;
                    self.mark_everywhere(id);
                }
                Edit::DropProduct(id) => {
                    self.catalogue.remove(*id);
                    self.mark_everywhere(id);
                }
                Edit::Move { branch, item, milli } => self.move_stock(now, *branch, StockTarget::Product, item, *milli),
                Edit::Carry { branch, milli } => {
                    self.move_stock(now, *branch, StockTarget::Inventory, SHELF, -milli);
                    self.move_stock(now, *branch, StockTarget::Inventory, CELLAR, *milli);
                }
                Edit::Bulk { edition } => {
                    for n in 0..shop::BULK_ROWS {
                        let id = format!("bulk-{n:03}");
                        self.catalogue.insert(id.clone(), *edition);
                        self.mark(0, StockTarget::Product, &id);
                    }
                    // The other branch gets them with its next change of the catalogue: marks may be left out by branch.
                    for n in 0..shop::BULK_ROWS {
                        self.mark(1, StockTarget::Product, &format!("bulk-{n:03}"));
                    }
                }
                Edit::Expire => {
                    let old: Vec<_> = self.transactions.keys().filter(|place| !self.expired.contains(*place)).take(4).cloned().collect();
                    for (branch, id) in old {
                        self.expired.insert((branch, id.clone()));
                        self.marks.push((branch, (Collection::transaction(), id)));
                    }
                }
            }
        }
    }

    fn move_stock(&mut self, now: Timestamp, branch: usize, target: StockTarget, item: &str, milli: i64) {
        let movement = Movement::delta(Quantity::from_milli(milli), Happened::here(now));
        // What the back office does by its own hands is never refused.
        let _ = self.ledger.record(branch, target, item, movement, BelowZero::Allow, None);
        self.mark(branch, target, item);
    }

    /// Forgets deletions: whoever is older needs a snapshot.
    pub(crate) fn raise_floor(&mut self) {
        for branch in &mut self.branches {
            branch.floor = branch.state.seq.saturating_sub(2).max(branch.floor);
            let floor = branch.floor;
            branch.tombs.retain(|_, seq| *seq > floor);
            branch.tags.retain(|seq, _| *seq >= floor);
        }
    }

    /// The broker has it.
    pub(crate) fn forget_entry(&mut self, id: u64) {
        self.outbox.retain(|entry| entry.id != id);
    }

    pub(crate) fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }
}
