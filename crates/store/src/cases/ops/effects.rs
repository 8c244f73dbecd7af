//! What an accepted operation does: movements in the ledger, and for a sale or return the transaction row.

use mstore_engine::stock::{Happened, consumption};
use mstore_protocol::{
    BranchKey, Code, Operation, OperationKind, Quantity, Receipt, StockAct, StockAuthority, StockTarget, Transfer, limits::ROW_BYTES_MAX,
};

use super::super::{
    Work,
    ledger::{self, Movement},
    recipe, transfers,
};
use crate::{AcceptUpload, Merchant, StoreError, sql::args, text::Text};

/// What was noticed while the effects were recorded.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) code: Option<Code>,
    pub(super) detail: Option<String>,
    /// The backend decides the stock and has not named the operation yet.
    pub(super) awaits_event: bool,
}

/// The reason of a rejection.
type Rejection = (Code, String);
type Outcome = Result<Effects, Rejection>;

struct Act<'a> {
    merchant: &'a Merchant,
    key: &'a BranchKey,
    operation: String,
    name: &'static str,
    happened: &'a Happened,
    parts: usize,
    effects: Effects,
}

/// Records the effects; the inner error rejects the operation, and then nothing was recorded.
pub(super) fn apply(
    work: &mut Work<'_>,
    merchant: &Merchant,
    upload: &AcceptUpload,
    operation: &Operation,
    happened: &Happened,
) -> Result<Outcome, StoreError> {
    let (operation_id, name) = (operation.id.to_string(), operation.kind.as_str());
    let mut act = Act { merchant, key: &upload.key, operation: operation_id, name, happened, parts: 0, effects: Effects::default() };
    let rejection = match &operation.kind {
        OperationKind::Sale(receipt) => act.receipt(work, upload, operation, receipt, -1)?,
        OperationKind::Return(receipt) => act.receipt(work, upload, operation, receipt, 1)?,
        OperationKind::Receive(of) | OperationKind::Adjust(of) => act.stock(work, of, false)?,
        OperationKind::Count(of) => act.stock(work, of, true)?,
        OperationKind::Transfer(transfer) => act.transfer(work, transfer)?,
    };
    if let Some(rejection) = rejection {
        return Ok(Err(rejection));
    }
    let mut effects = act.effects;
    effects.awaits_event = merchant.stock_authority == StockAuthority::Backend && !was_named(work, upload, operation)?;
    Ok(Ok(effects))
}

/// An event may name an operation before the device could upload it. The row is claimed even where there is none: an event for another branch, under another
/// lock, that names the operation just now waits for the end of this transaction, or this one for its.
fn was_named(work: &mut Work<'_>, upload: &AcceptUpload, operation: &Operation) -> Result<bool, StoreError> {
    let (merchant, id) = (upload.key.merchant.as_str(), operation.id.to_string());
    let sql = "INSERT INTO event_operation (merchant_id, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    let was_named = work.sql.execute(sql, args![merchant, id])? == 0;
    work.sql.send("DELETE FROM event_operation WHERE merchant_id = ?1 AND id = ?2", args![merchant, id])?;
    if was_named {
        // The commit of the event may have been another branch's.
        work.named.entry(upload.key.clone()).or_default().push(operation.id);
    }
    Ok(was_named)
}

impl Act<'_> {
    fn moves_stock(&self) -> bool {
        self.merchant.stock_authority == StockAuthority::Mstore
    }

    fn movement<'b>(&mut self, target: StockTarget, item: &'b str) -> Movement<'b> {
        self.parts += 1;
        Movement::of_operation(&self.operation, self.parts, self.name, self.happened, target, item)
    }

    fn record(
        &mut self,
        work: &Work<'_>,
        at: &BranchKey,
        movement: &Movement<'_>,
        item: &str,
        has_happened: bool,
    ) -> Result<Option<Rejection>, StoreError> {
        let recorded = ledger::record(work, at, self.merchant.stock_policy, movement, has_happened)?;
        if let Some(code) = recorded.refused {
            return Ok(Some((code, format!("{item:?}: {}", code.title()))));
        }
        if let Some(code) = recorded.flag.filter(|_| self.effects.code.is_none()) {
            self.effects.code = Some(code);
            self.effects.detail = Some(format!("{item:?}: {}", code.title()));
        }
        Ok(None)
    }

    /// A sale (sign −1) or a return (sign 1): products that are tracked, ingredients that the branch holds, the transaction row.
    fn receipt(
        &mut self,
        work: &mut Work<'_>,
        upload: &AcceptUpload,
        operation: &Operation,
        receipt: &Receipt,
        sign: i64,
    ) -> Result<Option<Rejection>, StoreError> {
        let currency = self.merchant.currency;
        if receipt.total.currency != currency {
            return Ok(Some((
                Code::CurrencyDiffers,
                format!("{} on the receipt, the merchant's currency is {currency}", receipt.total.currency),
            )));
        }
        let mut tracked = Vec::with_capacity(receipt.lines.len());
        for line in &receipt.lines {
            let sql = "SELECT track_stock FROM product WHERE merchant_id = ?1 AND id = ?2";
            let found = work.sql.row(sql, args![self.key.merchant.as_str(), line.product_id], |row| row.flag(0))?;
            let is_tracked = match found {
                Some(is_tracked) => is_tracked,
                None if self.is_of_backend(work, self.key, "product", &line.product_id)? => false,
                None => return Ok(Some((Code::UnknownProduct, format!("line {}: no product {:?}", line.line_no, line.product_id)))),
            };
            tracked.push(is_tracked);
        }
        // The last thing that may be refused, and the first that is recorded: of a rejected operation nothing stays behind.
        let refused = insert_transaction(work, upload, operation, receipt)?;
        if refused.is_some() {
            return Ok(refused);
        }
        let key = self.key;
        for (line, is_tracked) in receipt.lines.iter().zip(tracked).filter(|_| self.moves_stock()).collect::<Vec<_>>() {
            let signed = |quantity: Quantity| Quantity::from_milli(quantity.as_milli() * sign);
            if is_tracked {
                let movement = self.movement(StockTarget::Product, &line.product_id).delta(signed(line.quantity));
                self.record(work, key, &movement, &line.product_id, true)?;
            }
            for (item, per_unit) in recipe::lines(work.sql, key.merchant.as_str(), &line.product_id)? {
                if ledger::has_item(work, key, StockTarget::Inventory, &item)? {
                    let used = signed(consumption(line.quantity, per_unit));
                    let movement = self.movement(StockTarget::Inventory, &item).delta(used);
                    self.record(work, key, &movement, &item, true)?;
                }
            }
        }
        Ok(None)
    }

    /// Whether devices of the branch have an item that is in no table of ours: its backend's, which decides about it.
    fn is_of_backend(&self, work: &Work<'_>, at: &BranchKey, collection: &str, id: &str) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM head h JOIN mirror m ON m.head = h.n
            WHERE h.merchant_id = ?1 AND h.branch_id = ?2 AND m.collection = ?3 AND m.id = ?4 AND m.row IS NOT NULL";
        Ok(!self.moves_stock() && work.sql.exists(sql, args![at.merchant.as_str(), at.branch.as_str(), collection, id])?)
    }

    fn unknown(&self, work: &Work<'_>, at: &BranchKey, of: &StockAct) -> Result<Option<Rejection>, StoreError> {
        if ledger::has_item(work, at, of.collection, &of.item_id)? || self.is_of_backend(work, at, of.collection.as_str(), &of.item_id)? {
            return Ok(None);
        }
        Ok(Some(match of.collection {
            StockTarget::Product => (Code::UnknownProduct, format!("no product {:?}", of.item_id)),
            StockTarget::Inventory => (Code::UnknownItem, format!("no inventory item {:?} at {at}", of.item_id)),
        }))
    }

    fn stock(&mut self, work: &Work<'_>, of: &StockAct, is_count: bool) -> Result<Option<Rejection>, StoreError> {
        let key = self.key;
        let unknown = self.unknown(work, key, of)?;
        if unknown.is_some() || !self.moves_stock() {
            return Ok(unknown);
        }
        let movement = self.movement(of.collection, &of.item_id).because(&of.reason);
        let movement = if is_count { movement.count(of.quantity) } else { movement.delta(of.quantity) };
        self.record(work, key, &movement, &of.item_id, false)
    }

    /// Out here, in there: two movements of one operation, and in transit between the two.
    fn transfer(&mut self, work: &Work<'_>, transfer: &Transfer) -> Result<Option<Rejection>, StoreError> {
        let (key, of) = (self.key, &transfer.act);
        let there = BranchKey { merchant: key.merchant.clone(), branch: transfer.to_branch.clone() };
        if there == *key {
            return Ok(Some((Code::MalformedOperation, "a transfer goes to another branch".into())));
        }
        let sql = "SELECT 1 FROM branch WHERE merchant_id = ?1 AND branch_id = ?2";
        if !work.sql.exists(sql, args![there.merchant.as_str(), there.branch.as_str()])? {
            return Ok(Some((Code::UnknownBranch, format!("no branch {there}"))));
        }
        for at in [key, &there] {
            let unknown = self.unknown(work, at, of)?;
            if unknown.is_some() {
                return Ok(unknown);
            }
        }
        if !self.moves_stock() {
            return Ok(None);
        }
        let out = self.movement(of.collection, &of.item_id).because(&of.reason).delta(-of.quantity);
        let refused = self.record(work, key, &out, &of.item_id, false)?;
        if refused.is_some() {
            return Ok(refused);
        }
        transfers::send(work, key, &self.operation, transfer)?;
        if transfers::waits_for_receipt(work, &key.merchant)? {
            return Ok(None);
        }
        let into = self.movement(of.collection, &of.item_id).because(&of.reason).delta(of.quantity);
        transfers::arrived(work, &key.merchant, &self.operation)?;
        self.record(work, &there, &into, &of.item_id, false)
    }
}

/// The row says more than the operation did: one at the limit may have no room in it.
fn insert_transaction(
    work: &Work<'_>,
    upload: &AcceptUpload,
    operation: &Operation,
    receipt: &Receipt,
) -> Result<Option<Rejection>, StoreError> {
    let id = operation.id.to_string();
    let body = transaction_row(work, upload, operation, receipt, &id);
    if body.len() > ROW_BYTES_MAX {
        return Ok(Some((Code::OperationTooLarge, format!("its transaction has {} bytes; at most {ROW_BYTES_MAX}", body.len()))));
    }
    let sql = "INSERT INTO transactions (merchant_id, branch_id, id, recorded_at, body) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (merchant_id, branch_id, id) DO NOTHING";
    let (merchant, branch) = (upload.key.merchant.as_str(), upload.key.branch.as_str());
    work.sql.send(sql, args![merchant, branch, id, work.now.to_string(), body])?;
    Ok(None)
}

/// The row that devices see: what the contract names and nothing else that a till may have added.
fn transaction_row(work: &Work<'_>, upload: &AcceptUpload, operation: &Operation, receipt: &Receipt, id: &str) -> Box<str> {
    let mut out = Text::object();
    out.key("business_date").string(receipt.business_date.as_str());
    out.key("device_id").string(upload.device.as_str());
    out.key("device_seq").plain(operation.device_seq);
    out.key("id").string(id);
    out.key("lines").objects(&receipt.lines, |out, line| {
        out.key("line_no").plain(line.line_no);
        out.key("product_id").string(&line.product_id);
        out.key("quantity").quantity(line.quantity);
        out.key("total").money(line.total);
        out.key("unit_price").money(line.unit_price);
    });
    out.key("occurred_at").string(&operation.occurred_at.to_string());
    out.key("receipt_no").string(&receipt.receipt_no);
    out.key("recorded_at").string(&work.now.to_string());
    out.key("status").string("completed");
    out.key("tenders").objects(&receipt.tenders, |out, tender| {
        out.key("amount").money(tender.amount);
        out.key("type").string(&tender.kind);
    });
    out.key("total").money(receipt.total);
    out.key("type").string(operation.kind.as_str());
    out.end()
}
