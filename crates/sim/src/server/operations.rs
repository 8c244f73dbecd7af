//! Operations of devices: each judged on its own, carried out once.

use std::collections::{BTreeMap, BTreeSet};

use mstore_engine::stock::{BelowZero, Happened, consumption};
use mstore_protocol::{
    Code, Operation, OperationId, OperationKind, Quantity, Receipt, StockTarget, Timestamp, Transfer, Verdict, VerdictStatus,
};

use super::{Database, Movement};
use crate::{
    bug::Bug,
    shop::{self, INGREDIENT, INGREDIENT_MILLI, LATTE},
};

/// The numbers of a journal, and which operations came with each.
pub(crate) type Numbers = BTreeMap<u64, BTreeSet<OperationId>>;

/// An upload on its way.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) branch: usize,
    pub(crate) device: String,
    pub(crate) journal: String,
    pub(crate) clock_offset_ms: i64,
    pub(crate) operations: Vec<Operation>,
}

/// An operation with its verdict.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) branch: usize,
    pub(crate) device: String,
    pub(crate) accepted: bool,
    pub(crate) is_transfer: bool,
    pub(crate) code: Option<Code>,
    pub(crate) seq: Option<u64>,
    /// How often it was carried out.
    pub(crate) times: u32,
}

impl Database {
    pub(super) fn accept(&mut self, now: Timestamp, upload: &Upload, bug: Option<Bug>) -> Vec<Verdict> {
        let verdicts = upload.operations.iter().map(|operation| self.one(now, upload, operation, bug)).collect();
        let numbers = self.journals.entry((upload.device.clone(), upload.journal.clone())).or_default();
        for operation in &upload.operations {
            numbers.entry(operation.device_seq).or_default().insert(operation.id);
        }
        verdicts
    }

    fn one(&mut self, now: Timestamp, upload: &Upload, operation: &Operation, bug: Option<Bug>) -> Verdict {
        let known = self.operations.get(&operation.id).cloned();
        let times = known.as_ref().map_or(0, |known| known.times);
        if let Some(known) = known.filter(|known| !known.accepted || bug != Some(Bug::AcceptTwice)) {
            let status = if known.accepted { VerdictStatus::Duplicate } else { VerdictStatus::Rejected };
            return Verdict { id: operation.id.to_string(), status, seq: known.seq, code: known.code, detail: None };
        }
        let (at, offset) = (operation.occurred_at, upload.clock_offset_ms);
        let happened = Happened::on_device(at, offset, now, &upload.journal, operation.device_seq);
        let outcome = self.carry_out(upload, operation, &happened, bug);
        let (status, code) = match outcome {
            Ok(code) => (VerdictStatus::Accepted, code),
            Err(code) => (VerdictStatus::Rejected, Some(code)),
        };
        let accepted = status == VerdictStatus::Accepted;
        let recorded = Recorded {
            branch: upload.branch,
            device: upload.device.clone(),
            accepted,
            is_transfer: matches!(operation.kind, OperationKind::Transfer(_)),
            code,
            seq: None,
            times: times + u32::from(accepted),
        };
        self.operations.insert(operation.id, recorded);
        self.arrivals.push(operation.id);
        Verdict { id: operation.id.to_string(), status, seq: None, code, detail: None }
    }

    /// The seqs of what was accepted just now.
    pub(super) fn fill_in(&self, verdicts: &mut [Verdict]) {
        for verdict in verdicts.iter_mut().filter(|verdict| verdict.seq.is_none()) {
            let recorded = OperationId::parse(&verdict.id).and_then(|id| self.operations.get(&id));
            verdict.seq = recorded.filter(|recorded| recorded.accepted).and_then(|recorded| recorded.seq);
        }
    }

    fn carry_out(&mut self, upload: &Upload, operation: &Operation, happened: &Happened, bug: Option<Bug>) -> Result<Option<Code>, Code> {
        let delta = |quantity| Movement::delta(quantity, happened.clone()).of(operation.id);
        let branch = upload.branch;
        match &operation.kind {
            OperationKind::Sale(receipt) => self.receipt(branch, operation, receipt, -1, happened, bug),
            OperationKind::Return(receipt) => self.receipt(branch, operation, receipt, 1, happened, bug),
            OperationKind::Receive(act) | OperationKind::Adjust(act) => {
                self.has_product(&act.item_id)?;
                self.product(branch, &act.item_id, delta(act.quantity), self.policy, bug)
            }
            OperationKind::Count(act) => {
                self.has_product(&act.item_id)?;
                let movement = Movement::count(act.quantity, happened.clone()).of(operation.id);
                self.product(branch, &act.item_id, movement, self.policy, bug)
            }
            OperationKind::Transfer(transfer) => self.transfer(branch, transfer, &delta, bug),
        }
    }

    fn has_product(&self, id: &str) -> Result<(), Code> {
        if self.catalogue.contains_key(id) { Ok(()) } else { Err(Code::UnknownProduct) }
    }

    fn product(&mut self, branch: usize, id: &str, movement: Movement, policy: BelowZero, bug: Option<Bug>) -> Result<Option<Code>, Code> {
        let flag = self.ledger.record(branch, StockTarget::Product, id, movement, policy, bug)?;
        self.mark(branch, StockTarget::Product, id);
        Ok(flag)
    }

    /// The goods are gone, or back: nothing to refuse any more.
    fn receipt(
        &mut self,
        branch: usize,
        operation: &Operation,
        receipt: &Receipt,
        sign: i64,
        happened: &Happened,
        bug: Option<Bug>,
    ) -> Result<Option<Code>, Code> {
        let line = &receipt.lines[0];
        self.has_product(&line.product_id)?;
        let signed = |quantity: Quantity| Quantity::from_milli(quantity.as_milli() * sign);
        let movement = |quantity| Movement::delta(signed(quantity), happened.clone()).of(operation.id);
        let policy = if self.policy == BelowZero::Allow { BelowZero::Allow } else { BelowZero::Warn };
        let flag = self.product(branch, &line.product_id, movement(line.quantity), policy, bug)?;
        if line.product_id == LATTE && self.has_item(branch, INGREDIENT) {
            let used = movement(consumption(line.quantity, Quantity::from_milli(INGREDIENT_MILLI)));
            self.ledger.record(branch, StockTarget::Inventory, INGREDIENT, used, policy, bug)?;
            self.mark(branch, StockTarget::Inventory, INGREDIENT);
        }
        let id = operation.id.to_string();
        let row = shop::transaction_row(&id, operation.device_seq, receipt, operation.kind.as_str());
        self.transactions.entry((branch, id.clone())).or_insert(row);
        self.marks.push((branch, (mstore_protocol::Collection::transaction(), id)));
        Ok(flag)
    }

    /// Out here, in there.
    fn transfer(
        &mut self,
        branch: usize,
        transfer: &Transfer,
        delta: &impl Fn(Quantity) -> Movement,
        bug: Option<Bug>,
    ) -> Result<Option<Code>, Code> {
        let (act, there) = (&transfer.act, 1 - branch);
        self.has_product(&act.item_id)?;
        let flag = if bug == Some(Bug::TransferOutOfNothing) {
            None
        } else {
            self.product(branch, &act.item_id, delta(-act.quantity), self.policy, bug)?
        };
        self.product(there, &act.item_id, delta(act.quantity), BelowZero::Allow, bug)?;
        Ok(flag)
    }
}
