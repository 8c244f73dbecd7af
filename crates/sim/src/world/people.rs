//! What people do: the back office changes rows, cashiers sell, count and transfer.

use mstore_engine::{Input, overlay::StockChange};
use mstore_protocol::{BranchId, OperationId, OperationKind, Quantity, StockTarget, Transfer};
use rand::Rng as _;

use super::{Event, World};
use crate::{
    plan::{Deed, What},
    promise::{Kept, Promise, broken},
    server::Figure,
    shop,
};

/// How soon the sequencer notices what another program wrote, milliseconds.
const POLL_MS: u64 = 20;

impl World {
    pub(super) fn people(&mut self, deed: Deed) -> Kept {
        match deed {
            Deed::Write(edits) if self.server.is_up => {
                let made = self.server.write(&mut self.dice, self.now, &edits);
                self.committed(made)
            }
            Deed::ByHand(edits) => {
                self.server.write_by_hand(self.now, &edits);
                let wait = self.dice.random_range(1..=POLL_MS);
                self.after(wait, Event::Sequence);
                Ok(())
            }
            Deed::Operate { device, what } if self.devices[device].is_on => self.operate(device, &what),
            Deed::Sync { device } if self.devices[device].is_on => self.feed(device, Input::SyncRequested),
            Deed::Resync { device } if self.devices[device].is_on => self.feed(device, Input::ResyncRequested),
            Deed::RaiseFloor => {
                self.server.db.raise_floor();
                Ok(())
            }
            // Nobody is there to do it.
            Deed::Write(_) | Deed::Operate { .. } | Deed::Sync { .. } | Deed::Resync { .. } => Ok(()),
        }
    }

    /// A cashier does something and is told when it is on disk; the figure shown moves by exactly that.
    fn operate(&mut self, device: usize, what: &What) -> Kept {
        let Some((product, kind)) = self.kind_of(device, what) else { return Ok(()) };
        let held = &mut self.devices[device];
        let id = OperationId::from_parts(held.clock(self.now), self.wires[device].dice.random());
        let before = held.db.figure(StockTarget::Product, product);
        let Some(queued) = held.operate(self.now, id, kind) else { return Ok(()) };
        let after = held.db.figure(StockTarget::Product, product);
        let effects = held.db.journal.last().map(|entry| entry.effects.clone()).unwrap_or_default();
        let moved = effects.iter().filter(|effect| effect.item_id == product).fold(before, |figure, effect| match effect.change {
            StockChange::Delta(delta) => figure.map(|figure| figure + delta),
            StockChange::Base(base) => figure.map(|_| base),
        });
        if moved != after {
            return broken(Promise::ReadYourWrites, format!("{what:?} moved the figure shown from {before:?} to {after:?}"));
        }
        self.truth.completed.insert(id, device);
        self.feed(device, Input::OperationCommitted(queued))
    }

    fn kind_of(&self, device: usize, what: &What) -> Option<(&'static str, impl FnOnce(u64) -> OperationKind + use<>)> {
        let shown = |product| self.devices[device].db.figure(StockTarget::Product, product);
        let (product, milli) = match *what {
            What::Sell { product, milli }
            | What::TakeBack { product, milli }
            | What::Receive { product, milli }
            | What::Adjust { product, milli }
            | What::Count { product, milli }
            | What::Transfer { product, milli } => (product, milli),
            What::SellOut { product } => (product, shown(product).map(Quantity::as_milli).filter(|milli| *milli > 0)?),
        };
        let name = self.devices[device].name.clone();
        let there = 1 - self.devices[device].db.login.branch;
        let what = what.clone();
        let make = move |device_seq: u64| {
            let receipt = || shop::receipt(product, milli, format!("{name}-{device_seq:06}"));
            match what {
                What::Sell { .. } | What::SellOut { .. } => OperationKind::Sale(receipt()),
                What::TakeBack { .. } => OperationKind::Return(receipt()),
                What::Receive { .. } => OperationKind::Receive(shop::act(product, milli)),
                What::Adjust { .. } => OperationKind::Adjust(shop::act(product, milli)),
                What::Count { .. } => OperationKind::Count(shop::act(product, milli)),
                What::Transfer { .. } => {
                    let to_branch = BranchId::parse(&format!("branch-{there}")).expect("it is a name");
                    OperationKind::Transfer(Transfer { act: shop::act(product, milli), to_branch })
                }
            }
        };
        Some((product, make))
    }

    /// What the device showed as the effect of its operation is what the server made of it, unless a count or the policy had a say.
    pub(super) fn check_effects(&self, device: usize, branch: usize, fresh: &[OperationId]) -> Kept {
        for entry in self.devices[device].db.journal.iter().filter(|entry| fresh.contains(&entry.operation.id)) {
            let id = entry.operation.id;
            let accepted = self.server.db.operations.get(&id).is_some_and(|recorded| recorded.accepted);
            let Some(server) = self.server.db.ledger.plain_effects(id).filter(|_| accepted) else { continue };
            let mut server: Vec<(Figure, Quantity)> = server.into_iter().filter(|(figure, _)| figure.0 == branch).collect();
            let mut mine = Vec::new();
            for effect in &entry.effects {
                if let StockChange::Delta(delta) = effect.change {
                    mine.push(((branch, effect.target, effect.item_id.clone()), delta));
                }
            }
            // A device that does not have the product's row yet does not know its recipe.
            let knows_recipe = mine.len() == server.len();
            server.sort();
            mine.sort();
            if knows_recipe && server != mine {
                return broken(Promise::ReadYourWrites, format!("operation {id}: the device showed {mine:?}, the server made {server:?}"));
            }
        }
        Ok(())
    }
}
