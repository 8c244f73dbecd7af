//! Alarms: raised once for the same trouble, cleared when it is over, kept afterwards.

use mstore_protocol::{BranchKey, DeviceId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::StoreError;

/// Source and mirror, or the mirror and its own sums, did not agree.
pub(super) const DIFFERENCE: &str = "sweep_difference";
/// A row that devices do not get.
pub(super) const QUARANTINED: &str = "row_quarantined";

/// Raises an alarm and answers its number.
pub(super) fn raise(
    conn: &Connection,
    now: Timestamp,
    kind: &str,
    key: Option<&BranchKey>,
    device: Option<&DeviceId>,
    detail: &str,
) -> Result<u64, StoreError> {
    let sql = "INSERT INTO alarm (at, kind, merchant_id, branch_id, device_id, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (merchant, branch) = (key.map(|key| key.merchant.as_str()), key.map(|key| key.branch.as_str()));
    conn.prepare_cached(sql)?.execute(params![now.to_string(), kind, merchant, branch, device.map(DeviceId::as_str), detail])?;
    tracing::warn!(kind, branch = key.map(tracing::field::display), device = device.map(tracing::field::display), detail, "alarm raised");
    Ok(u64::try_from(conn.last_insert_rowid()).unwrap_or(0))
}

/// Raises an alarm about a device unless the very same one is open.
pub(super) fn raise_once(
    conn: &Connection,
    now: Timestamp,
    kind: &str,
    key: &BranchKey,
    device: &DeviceId,
    detail: &str,
) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id = ?2 AND branch_id = ?3 AND device_id = ?4 AND detail = ?5";
    let who = [kind, key.merchant.as_str(), key.branch.as_str(), device.as_str(), detail];
    if !conn.prepare_cached(sql)?.exists(who)? {
        raise(conn, now, kind, Some(key), Some(device), detail)?;
    }
    Ok(())
}

/// Clears the open alarms of a kind about a device.
pub(super) fn clear_of_device(conn: &Connection, now: Timestamp, kind: &str, key: &BranchKey, device: &DeviceId) -> Result<(), StoreError> {
    let sql = "UPDATE alarm SET cleared_at = ?1 WHERE cleared_at IS NULL AND kind = ?2 AND merchant_id = ?3 AND branch_id = ?4 AND device_id = ?5";
    let who = [&now.to_string(), kind, key.merchant.as_str(), key.branch.as_str(), device.as_str()];
    conn.prepare_cached(sql)?.execute(who)?;
    Ok(())
}

/// Whether an alarm of a kind is open at a branch whose detail begins like this.
pub(super) fn is_open(conn: &Connection, kind: &str, key: &BranchKey, beginning: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id = ?2 AND branch_id = ?3 AND substr(detail, 1, length(?4)) = ?4";
    Ok(conn.prepare_cached(sql)?.exists([kind, key.merchant.as_str(), key.branch.as_str(), beginning])?)
}

/// Raises an alarm unless one of its kind is open at the branch, whatever it says; tells whether it did.
pub(super) fn raise_unless_open(conn: &Connection, now: Timestamp, kind: &str, key: &BranchKey, detail: &str) -> Result<bool, StoreError> {
    let is_new = !is_open(conn, kind, key, "")?;
    if is_new {
        raise(conn, now, kind, Some(key), None, detail)?;
    }
    Ok(is_new)
}

/// Says once that a row is quarantined; the reason may change without another alarm.
pub(super) fn quarantine(conn: &Connection, now: Timestamp, key: &BranchKey, row: &str, why: &str) -> Result<(), StoreError> {
    if !is_open(conn, QUARANTINED, key, row)? {
        let detail = format!("{row}{why}; devices keep what they have until it is corrected at the source");
        raise(conn, now, QUARANTINED, Some(key), None, &detail)?;
    }
    Ok(())
}

/// How the detail of a quarantined row's alarm begins.
pub(super) fn row(collection: &str, id: &str) -> String {
    format!("{collection} {}: ", serde_json::Value::from(id))
}

/// How it begins when the id is not even text.
pub(super) fn row_without_id(collection: &str) -> String {
    format!("{collection} with an id that is not text: ")
}

/// The open quarantines of a branch: number, collection, id; no id for one that is not text.
pub(super) fn quarantined(conn: &Connection, key: &BranchKey) -> Result<Vec<(u64, String, Option<String>)>, StoreError> {
    let sql = "SELECT id, detail FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id = ?2 AND branch_id = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([QUARANTINED, key.merchant.as_str(), key.branch.as_str()])?;
    let mut found = Vec::new();
    while let Some(alarm) = rows.next()? {
        let detail = alarm.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        let Some((collection, rest)) = detail.split_once(' ') else { continue };
        let id = serde_json::Deserializer::from_str(rest).into_iter::<String>().next().and_then(Result::ok);
        found.push((alarm.get(0)?, collection.to_owned(), id));
    }
    Ok(found)
}

/// Clears the open alarms of a kind at a branch.
pub(super) fn clear(conn: &Connection, now: Timestamp, kind: &str, key: &BranchKey) -> Result<(), StoreError> {
    let sql = "UPDATE alarm SET cleared_at = ?1 WHERE cleared_at IS NULL AND kind = ?2 AND merchant_id = ?3 AND branch_id = ?4";
    conn.prepare_cached(sql)?.execute(params![now.to_string(), kind, key.merchant.as_str(), key.branch.as_str()])?;
    Ok(())
}

/// Keeps an alarm of a device open as long as there is a reason for it, one at a time.
pub(super) fn follow(
    conn: &Connection,
    now: Timestamp,
    kind: &str,
    key: &BranchKey,
    device: &DeviceId,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    let sql = "SELECT id FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id = ?2 AND device_id = ?3";
    let of_device = [kind, key.merchant.as_str(), device.as_str()];
    let open: Option<u64> = conn.prepare_cached(sql)?.query_row(of_device, |row| row.get(0)).optional()?;
    match (open, reason) {
        (None, Some(detail)) => raise(conn, now, kind, Some(key), Some(device), detail).map(|_| ()),
        (Some(alarm), None) => clear_one(conn, now, alarm),
        (None, None) | (Some(_), Some(_)) => Ok(()),
    }
}

/// Clears one alarm.
pub(super) fn clear_one(conn: &Connection, now: Timestamp, id: u64) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE alarm SET cleared_at = ?1 WHERE id = ?2")?.execute(params![now.to_string(), id])?;
    Ok(())
}
