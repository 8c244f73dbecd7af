//! Alarms: raised once for the same trouble, cleared when it is over, kept afterwards.

use mstore_protocol::{BranchKey, DeviceId, Timestamp};

use crate::{
    StoreError,
    sql::{Sql, args},
};

/// Source and mirror, or the mirror and its own sums, did not agree.
pub(crate) const DIFFERENCE: &str = "sweep_difference";
/// A row that devices do not get.
pub(crate) const QUARANTINED: &str = "row_quarantined";

/// Raises an alarm and answers its number.
pub(crate) fn raise(
    db: &dyn Sql,
    now: Timestamp,
    kind: &str,
    key: Option<&BranchKey>,
    device: Option<&DeviceId>,
    detail: &str,
) -> Result<u64, StoreError> {
    let sql = "INSERT INTO alarm (at, kind, merchant_id, branch_id, device_id, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id";
    let (merchant, branch) = (key.map(|key| key.merchant.as_str()), key.map(|key| key.branch.as_str()));
    let values = args![now.to_string(), kind, merchant, branch, device.map(DeviceId::as_str), detail];
    let id = db.row(sql, values, |row| row.number(0))?;
    tracing::warn!(kind, branch = key.map(tracing::field::display), device = device.map(tracing::field::display), detail, "alarm raised");
    Ok(id.unwrap_or(0))
}

/// Raises an alarm about a device unless the very same one is open.
pub(crate) fn raise_once(
    db: &dyn Sql,
    now: Timestamp,
    kind: &str,
    key: &BranchKey,
    device: &DeviceId,
    detail: &str,
) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id = ?2 AND branch_id = ?3 AND device_id = ?4 AND detail = ?5";
    if !db.exists(sql, args![kind, key.merchant.as_str(), key.branch.as_str(), device.as_str(), detail])? {
        raise(db, now, kind, Some(key), Some(device), detail)?;
    }
    Ok(())
}

/// Clears the open alarms of a kind about a device.
pub(crate) fn clear_of_device(db: &dyn Sql, now: Timestamp, kind: &str, key: &BranchKey, device: &DeviceId) -> Result<(), StoreError> {
    let sql = "UPDATE alarm SET cleared_at = ?1 WHERE cleared_at IS NULL AND kind = ?2 AND merchant_id = ?3 AND branch_id = ?4 AND device_id = ?5";
    db.send(sql, args![now.to_string(), kind, key.merchant.as_str(), key.branch.as_str(), device.as_str()])
}

/// Whether an alarm of a kind is open at a branch whose detail begins like this.
pub(crate) fn is_open(db: &dyn Sql, kind: &str, key: &BranchKey, beginning: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id = ?2 AND branch_id = ?3
        AND substr(detail, 1, length(CAST(?4 AS TEXT))) = ?4";
    db.exists(sql, args![kind, key.merchant.as_str(), key.branch.as_str(), beginning])
}

/// Raises an alarm unless one of its kind is open at the branch, whatever it says; tells whether it did.
pub(crate) fn raise_unless_open(db: &dyn Sql, now: Timestamp, kind: &str, key: &BranchKey, detail: &str) -> Result<bool, StoreError> {
    let is_new = !is_open(db, kind, key, "")?;
    if is_new {
        raise(db, now, kind, Some(key), None, detail)?;
    }
    Ok(is_new)
}

/// Says once that a row is quarantined; the reason may change without another alarm.
pub(crate) fn quarantine(db: &dyn Sql, now: Timestamp, key: &BranchKey, row: &str, why: &str) -> Result<(), StoreError> {
    if !is_open(db, QUARANTINED, key, row)? {
        let detail = format!("{row}{why}; devices keep what they have until it is corrected at the source");
        raise(db, now, QUARANTINED, Some(key), None, &detail)?;
    }
    Ok(())
}

/// How the detail of a quarantined row's alarm begins.
pub(crate) fn row(collection: &str, id: &str) -> String {
    format!("{collection} {}: ", serde_json::Value::from(id))
}

/// How it begins when the id is not even text.
pub(crate) fn row_without_id(collection: &str) -> String {
    format!("{collection} with an id that is not text: ")
}

/// The open quarantines of a branch: number, collection, id; no id for one that is not text.
pub(crate) fn quarantined(db: &dyn Sql, key: &BranchKey) -> Result<Vec<(u64, String, Option<String>)>, StoreError> {
    let sql = "SELECT id, detail FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id = ?2 AND branch_id = ?3";
    let found = db.rows(sql, args![QUARANTINED, key.merchant.as_str(), key.branch.as_str()], |alarm| {
        let Some((collection, rest)) = alarm.text(1)?.split_once(' ') else { return Ok(None) };
        let id = serde_json::Deserializer::from_str(rest).into_iter::<String>().next().and_then(Result::ok);
        Ok(Some((alarm.number(0)?, collection.to_owned(), id)))
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Clears the open alarms of a kind at a branch.
pub(crate) fn clear(db: &dyn Sql, now: Timestamp, kind: &str, key: &BranchKey) -> Result<(), StoreError> {
    let sql = "UPDATE alarm SET cleared_at = ?1 WHERE cleared_at IS NULL AND kind = ?2 AND merchant_id = ?3 AND branch_id = ?4";
    db.send(sql, args![now.to_string(), kind, key.merchant.as_str(), key.branch.as_str()])
}

/// Keeps an alarm of a device open as long as there is a reason for it, one at a time.
pub(crate) fn follow(
    db: &dyn Sql,
    now: Timestamp,
    kind: &str,
    key: &BranchKey,
    device: &DeviceId,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    let sql = "SELECT id FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id = ?2 AND device_id = ?3";
    let open = db.row(sql, args![kind, key.merchant.as_str(), device.as_str()], |row| row.number(0))?;
    match (open, reason) {
        (None, Some(detail)) => raise(db, now, kind, Some(key), Some(device), detail).map(|_| ()),
        (Some(alarm), None) => clear_one(db, now, alarm),
        (None, None) | (Some(_), Some(_)) => Ok(()),
    }
}

/// Clears one alarm.
pub(crate) fn clear_one(db: &dyn Sql, now: Timestamp, id: u64) -> Result<(), StoreError> {
    db.send("UPDATE alarm SET cleared_at = ?1 WHERE id = ?2", args![now.to_string(), id])
}
