//! Alarms: raised once for the same trouble, kept after they were cleared.

use mstore_protocol::{BranchKey, DeviceId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::StoreError;

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

/// Raises an alarm unless the same one is open.
pub(super) fn raise_once(conn: &Connection, now: Timestamp, kind: &str, key: Option<&BranchKey>, detail: &str) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id IS ?2 AND branch_id IS ?3 AND detail = ?4";
    let (merchant, branch) = (key.map(|key| key.merchant.as_str()), key.map(|key| key.branch.as_str()));
    if !conn.prepare_cached(sql)?.exists(params![kind, merchant, branch, detail])? {
        raise(conn, now, kind, key, None, detail)?;
    }
    Ok(())
}

/// Raises an alarm unless one of its kind is open at the branch, whatever it says.
pub(super) fn raise_unless_open(conn: &Connection, now: Timestamp, kind: &str, key: &BranchKey, detail: &str) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id = ?2 AND branch_id = ?3";
    if !conn.prepare_cached(sql)?.exists([kind, key.merchant.as_str(), key.branch.as_str()])? {
        raise(conn, now, kind, Some(key), None, detail)?;
    }
    Ok(())
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
