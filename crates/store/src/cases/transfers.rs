//! Goods under way between two branches: booked out there, booked in here when they arrive; what is in transit is neither's.

use mstore_engine::stock::Happened;
use mstore_protocol::{BranchKey, Code, MerchantId, OperationId, StockTarget, Transfer};

use super::{
    Work,
    ledger::{self, Movement},
    locks, writes,
};
use crate::{StoreError, TransferArrival, sql::args};

/// Goods left a branch: in transit from now on.
pub(super) fn send(work: &Work<'_>, from: &BranchKey, operation: &str, transfer: &Transfer) -> Result<(), StoreError> {
    let sql = "INSERT INTO transfer (merchant_id, id, from_branch, to_branch, collection, item_id, quantity_milli, sent_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (of, to) = (&transfer.act, transfer.to_branch.as_str());
    let (merchant, branch, quantity) = (from.merchant.as_str(), from.branch.as_str(), of.quantity.as_milli());
    work.sql.send(sql, args![merchant, operation, branch, to, of.collection.as_str(), of.item_id, quantity, work.now.to_string()])
}

/// They are not in transit any more; the caller books them in.
pub(super) fn arrived(work: &Work<'_>, merchant: &MerchantId, operation: &str) -> Result<(), StoreError> {
    let sql = "UPDATE transfer SET arrived_at = ?3 WHERE merchant_id = ?1 AND id = ?2";
    work.sql.send(sql, args![merchant.as_str(), operation, &work.now.to_string()])
}

/// Whether the receiving branch says when goods are there.
pub(super) fn waits_for_receipt(work: &Work<'_>, merchant: &MerchantId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM transfer_arrival WHERE merchant_id = ?1 AND arrival = 'on_receipt'";
    work.sql.exists(sql, args![merchant.as_str()])
}

/// Sets when transfers of a merchant arrive; those in transit stay there until somebody receives them.
pub(super) fn set_arrival(work: &Work<'_>, merchant: &MerchantId, arrival: TransferArrival) -> Result<(), StoreError> {
    writes::merchant(work, merchant)?;
    let sql = "INSERT INTO transfer_arrival (merchant_id, arrival) VALUES (?1, ?2) ON CONFLICT (merchant_id) DO UPDATE SET arrival = excluded.arrival";
    work.sql.send(sql, args![merchant.as_str(), arrival.as_str()])
}

/// The receiving branch has the goods. False: it had said so before.
pub(super) fn receive(work: &mut Work<'_>, at: &BranchKey, id: OperationId) -> Result<bool, StoreError> {
    let sql =
        "SELECT to_branch, collection, item_id, quantity_milli, arrived_at IS NOT NULL FROM transfer WHERE merchant_id = ?1 AND id = ?2";
    locks::branches(work, [at])?;
    let id = id.to_string();
    let found = work.sql.row(sql, args![at.merchant.as_str(), id], |row| {
        Ok((row.branch(0)?, row.string(1)?, row.string(2)?, row.milli(3)?, row.flag(4)?))
    })?;
    let Some((to, collection, item, quantity, has_arrived)) = found else {
        return Err(StoreError::refused(Code::NotFound, format!("no transfer {id}")));
    };
    if to != at.branch {
        return Err(StoreError::refused(Code::Conflict, format!("the transfer {id} goes to {to}, not to {}", at.branch)));
    }
    if has_arrived {
        return Ok(false);
    }
    let target = if collection == StockTarget::Product.as_str() { StockTarget::Product } else { StockTarget::Inventory };
    ledger::check_item(work, at, target, &item)?;
    let merchant = writes::merchant(work, &at.merchant)?;
    let into = Movement::of_operation(&id, 2, "transfer", &Happened::here(work.now), target, &item).because("received").delta(quantity);
    if let Some(code) = ledger::record(work, at, merchant.stock_policy, &into, true)?.refused {
        return Err(StoreError::refused(code, format!("{item:?} at {at}: {}", code.title())));
    }
    arrived(work, &at.merchant, &id)?;
    work.touched.insert(at.clone());
    Ok(true)
}
