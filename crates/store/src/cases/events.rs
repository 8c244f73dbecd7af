//! Events of backends that share no database: each key once, older versions of a row refused, operations named with their commit.

use mstore_protocol::{BranchKey, Code, EventRequest, OperationId, Row, Seq, StockAuthority, StockTarget};
use sha2::{Digest as _, Sha256};

use super::{
    Work, alarms, inbox,
    ledger::{self, Movement},
    locks, writes,
};
use crate::{StoreError, sql::args};

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Carried out.
    Written,
    /// The same key had come before; its commit, if it is known.
    Duplicate(Option<Seq>),
}

/// Longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 200;

/// Takes an event.
pub(super) fn take(work: &mut Work<'_>, key: &BranchKey, event: &EventRequest) -> Result<Outcome, StoreError> {
    locks::branches(work, [key])?;
    let merchant = writes::merchant(work, &key.merchant)?;
    writes::check_branch(work, key)?;
    let (EventRequest::ProductStockUpdated { idempotency_key, version, ops, .. }
    | EventRequest::InventoryUpdated { idempotency_key, version, ops, .. }
    | EventRequest::TransactionCreated { idempotency_key, version, ops, .. }) = event;
    check(idempotency_key, *version)?;
    let body = serde_json::to_string(event).map_err(|error| StoreError::refused(Code::MalformedRequest, error.to_string()))?;
    let hash: [u8; 32] = Sha256::digest(&body).into();
    if let Some(duplicate) = seen(work, key, idempotency_key, hash)? {
        return Ok(duplicate);
    }
    let outcome = match event {
        EventRequest::ProductStockUpdated { product_id, stock, .. } => {
            ledger::check_item(work, key, StockTarget::Product, product_id)?;
            newer(work, key, "product", product_id, *version)?;
            let movement = Movement::at_server(
                work.now,
                &format!("event-{}-{idempotency_key}", key.branch),
                StockTarget::Product,
                product_id,
                "event",
            )
            .event(*stock);
            ledger::record(work, key, merchant.stock_policy, &movement, true)?;
            Outcome::Written
        }
        EventRequest::InventoryUpdated { item_id, quantity, .. } => {
            ledger::check_item(work, key, StockTarget::Inventory, item_id)?;
            newer(work, key, "inventory", item_id, *version)?;
            let movement =
                Movement::at_server(work.now, &format!("event-{}-{idempotency_key}", key.branch), StockTarget::Inventory, item_id, "event")
                    .event(*quantity);
            ledger::record(work, key, merchant.stock_policy, &movement, true)?;
            Outcome::Written
        }
        EventRequest::TransactionCreated { transaction, .. } => {
            if let Some(found) = work.personal.find(transaction.as_str()) {
                return Err(StoreError::refused(Code::PersonalData, format!("transaction {:?}: {found}", transaction.id())));
            }
            newer(work, key, "transaction", transaction.id(), *version)?;
            let is_receipt = merchant.stock_authority == StockAuthority::Backend && is_of_till(work, key, transaction)?;
            if is_receipt { compare_with_receipt(work, key, transaction)? } else { put_transaction(work, key, transaction)? }
        }
    };
    let sql = "INSERT INTO event_seen (merchant_id, branch_id, key, body_hash, recorded_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let (m, b) = (key.merchant.as_str(), key.branch.as_str());
    work.sql.execute(sql, args![m, b, idempotency_key, hash, work.now.to_string()])?;
    name(work, key, ops)?;
    work.touched.insert(key.clone());
    Ok(outcome)
}

fn check(idempotency_key: &str, version: u64) -> Result<(), StoreError> {
    let malformed = |detail: String| Err(StoreError::refused(Code::MalformedRequest, detail));
    if idempotency_key.is_empty() || idempotency_key.len() > KEY_BYTES_MAX {
        return malformed(format!("the idempotency key has {} bytes; 1 to {KEY_BYTES_MAX} are allowed", idempotency_key.len()));
    }
    if i64::try_from(version).is_err() {
        return malformed(format!("the version {version} is too large; at most {} is allowed", i64::MAX));
    }
    Ok(())
}

fn seen(work: &Work<'_>, key: &BranchKey, idempotency_key: &str, hash: [u8; 32]) -> Result<Option<Outcome>, StoreError> {
    let sql = "SELECT body_hash, seq FROM event_seen WHERE merchant_id = ?1 AND branch_id = ?2 AND key = ?3";
    let of = args![key.merchant.as_str(), key.branch.as_str(), idempotency_key];
    let found = work.sql.row(sql, of, |row| Ok((row.array::<32>(0)?, row.optional_number(1)?)))?;
    match found {
        Some((first, _)) if first != hash => {
            Err(StoreError::refused(Code::IdReused, format!("the key {idempotency_key:?} came before with another body")))
        }
        found => Ok(found.map(|(_, seq)| Outcome::Duplicate(seq))),
    }
}

/// Remembers the version of a row; a lower one than before is stale.
fn newer(work: &Work<'_>, key: &BranchKey, collection: &str, id: &str, version: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO event_version (merchant_id, branch_id, collection, id, version) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (merchant_id, branch_id, collection, id) DO UPDATE SET version = excluded.version WHERE excluded.version >= event_version.version";
    let row = args![key.merchant.as_str(), key.branch.as_str(), collection, id, version];
    if work.sql.execute(sql, row)? == 0 {
        return Err(StoreError::refused(Code::StaleEvent, format!("a newer version than {version} of {collection} {id:?} was seen")));
    }
    Ok(())
}

/// A transaction is made once: the same content again is a duplicate, other content is refused.
fn put_transaction(work: &Work<'_>, key: &BranchKey, transaction: &Row) -> Result<Outcome, StoreError> {
    let (merchant, branch) = (key.merchant.as_str(), key.branch.as_str());
    let sql = "SELECT body FROM transactions WHERE merchant_id = ?1 AND branch_id = ?2 AND id = ?3";
    let found = work.sql.row(sql, args![merchant, branch, transaction.id()], |row| Ok(row.bytes(0)?.to_vec()))?;
    let Some(body) = found else {
        let sql = "INSERT INTO transactions (merchant_id, branch_id, id, recorded_at, body) VALUES (?1, ?2, ?3, ?4, ?5)";
        work.sql.execute(sql, args![merchant, branch, transaction.id(), work.now.to_string(), transaction.as_str()])?;
        return Ok(Outcome::Written);
    };
    let canonical = std::str::from_utf8(&body).ok().and_then(|body| Row::parse(body).ok());
    if canonical.is_none_or(|row| row.as_str() != transaction.as_str()) {
        return Err(StoreError::refused(Code::AlreadyExists, format!("the transaction {:?} exists with other content", transaction.id())));
    }
    shown_with(work, key, transaction.id()).map(Outcome::Duplicate)
}

/// The commit that shows a transaction.
fn shown_with(work: &Work<'_>, key: &BranchKey, id: &str) -> Result<Option<Seq>, StoreError> {
    let sql = "SELECT m.seq FROM head h JOIN mirror m ON m.head = h.n AND m.collection = 'transaction' AND m.id = ?3
        WHERE h.merchant_id = ?1 AND h.branch_id = ?2 AND m.row IS NOT NULL";
    work.sql.row(sql, args![key.merchant.as_str(), key.branch.as_str(), id], |row| row.number(0))
}

/// Whether a till of the branch made this transaction.
fn is_of_till(work: &Work<'_>, key: &BranchKey, transaction: &Row) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM operation WHERE merchant_id = ?1 AND branch_id = ?2 AND id = ?3 AND status = 'accepted'";
    work.sql.exists(sql, args![key.merchant.as_str(), key.branch.as_str(), transaction.id()])
}

/// The backend decides the stock; the receipt is what the till printed. The event tells that the backend has the sale, it changes nothing, and where it says
/// something else than the receipt somebody is told.
fn compare_with_receipt(work: &Work<'_>, key: &BranchKey, transaction: &Row) -> Result<Outcome, StoreError> {
    let sql = "SELECT body FROM transactions WHERE merchant_id = ?1 AND branch_id = ?2 AND id = ?3";
    let of = args![key.merchant.as_str(), key.branch.as_str(), transaction.id()];
    let printed = work.sql.row(sql, of, |row| row.string(0))?;
    let printed = printed.and_then(|body| Row::parse(&body).ok()).map(|row| row.to_map()).unwrap_or_default();
    let told = transaction.to_map();
    let differing: Vec<&str> = ["type", "lines", "tenders", "total", "receipt_no"]
        .into_iter()
        .filter(|field| told.get(*field).is_some_and(|value| printed.get(*field) != Some(value)))
        .collect();
    if !differing.is_empty() {
        let detail =
            format!("the backend has another {} for {} than the till printed; the receipt stands", differing.join(", "), transaction.id());
        alarms::raise(work.sql, work.now, "transaction_differs", Some(key), None, &detail)?;
    }
    shown_with(work, key, transaction.id()).map(Outcome::Duplicate)
}

/// The next commit of the branch names these operations, whether or not they were uploaded yet; and the next one of the branch that each was uploaded for.
fn name(work: &mut Work<'_>, key: &BranchKey, ops: &[OperationId]) -> Result<(), StoreError> {
    for id in ops {
        name_one(work, key, *id)?;
    }
    work.named.entry(key.clone()).or_default().extend(ops);
    Ok(())
}

fn name_one(work: &mut Work<'_>, key: &BranchKey, id: OperationId) -> Result<(), StoreError> {
    let (merchant, text) = (key.merchant.as_str(), id.to_string());
    // First of all: an upload for another branch, under another lock, claims the same row. Who comes second waits for the end of the other, and then sees
    // what he did.
    let sql = "INSERT INTO event_operation (merchant_id, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    work.sql.execute(sql, args![merchant, text])?;
    inbox::accepted_by_event(work, &key.merchant, &text)?;
    if work.sql.execute("UPDATE operation SET awaits_event = 0 WHERE merchant_id = ?1 AND id = ?2", args![merchant, text])? == 0 {
        return Ok(());
    }
    work.sql.execute("DELETE FROM event_operation WHERE merchant_id = ?1 AND id = ?2", args![merchant, text])?;
    let sql = "SELECT merchant_id, branch_id FROM operation WHERE merchant_id = ?1 AND id = ?2";
    if let Some(of) = work.sql.row(sql, args![merchant, text], |row| row.key(0))?.filter(|of| of != key) {
        work.touched.insert(of.clone());
        work.named.entry(of).or_default().push(id);
    }
    Ok(())
}
