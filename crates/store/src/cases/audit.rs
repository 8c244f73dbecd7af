//! The audit log: written by the very transaction that does what it tells of, and never changed.

use async_trait::async_trait;
use mstore_protocol::{BranchKey, DeviceId, limits::DETAIL_BYTES_MAX};

use super::{Carrier, Size, Work, listing};
use crate::{Act, AuditLog, AuditOf, By, Page, StoreError, sql::args};

const ACTS: &str =
    "SELECT id, id, at, action, role, actor, address, merchant_id AS merchant, branch_id AS branch, device_id AS device, subject, detail
    FROM audit WHERE id < ?1 AND (CAST(?3 AS TEXT) IS NULL OR merchant_id = ?3) AND (CAST(?4 AS TEXT) IS NULL OR device_id = ?4)
    AND (CAST(?5 AS TEXT) IS NULL OR actor = ?5) AND (CAST(?6 AS TEXT) IS NULL OR action = ?6) AND (CAST(?7 AS TEXT) IS NULL OR at >= ?7)
    ORDER BY id DESC LIMIT ?2";

#[async_trait]
impl<S: Carrier> AuditLog for S {
    async fn audit(&self, of: AuditOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let after = after.map(str::to_owned);
        let AuditOf { merchant, device, actor, action, since } = of;
        let scope = [
            merchant.map(|merchant| merchant.to_string()),
            device.map(|device| device.to_string()),
            actor,
            action,
            since.map(|since| since.to_string()),
        ];
        self.read(move |db| listing::objects(db, ACTS, &scope, after.as_deref(), limit)).await
    }

    async fn record_act(&self, act: Act, by: &By) -> Result<(), StoreError> {
        let by = by.clone();
        self.carry(Size::Small, move |work| write(work, &act, &by), |(), _| ()).await
    }
}

/// Adds an act.
pub(super) fn write(work: &Work<'_>, act: &Act, by: &By) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit (at, action, role, actor, address, merchant_id, branch_id, device_id, subject, detail)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let address = by.address.map(|address| address.to_string());
    let (at, detail) = (work.now.to_string(), &act.detail[..act.detail.floor_char_boundary(DETAIL_BYTES_MAX)]);
    let (role, actor) = (by.role.as_str(), &by.name);
    work.sql.execute(sql, args![at, act.action, role, actor, address, act.merchant, act.branch, act.device, act.subject, detail])?;
    Ok(())
}

/// An act at a branch.
pub(super) fn at(action: &'static str, key: &BranchKey) -> Act {
    Act { action, merchant: Some(key.merchant.to_string()), branch: Some(key.branch.to_string()), ..Act::default() }
}

/// An act on a device.
pub(super) fn about(action: &'static str, key: &BranchKey, device: &DeviceId) -> Act {
    Act { device: Some(device.to_string()), ..at(action, key) }
}
