//! What keeps two use cases apart where a database lets them run beside each other. Each takes its locks before it reads what it decides by, and in one order:
//! a merchant, then devices, then branches by their names.

use mstore_protocol::{BranchKey, DeviceId, MerchantId};

use super::Work;
use crate::{
    StoreError,
    sql::{Dialect, ToArg},
};

/// Nobody else changes the catalogue or the settings of a merchant until this case ends.
pub(super) fn merchant(work: &Work<'_>, id: &MerchantId) -> Result<(), StoreError> {
    lock(work, "SELECT 1 FROM merchant WHERE merchant_id = ?1 FOR NO KEY UPDATE", &[id.as_str()])
}

/// Nobody else changes a device or its claims until this case ends.
pub(super) fn device(work: &Work<'_>, id: &DeviceId) -> Result<(), StoreError> {
    lock(work, "SELECT 1 FROM device WHERE device_id = ?1 FOR NO KEY UPDATE", &[id.as_str()])
}

/// Nobody else judges operations or moves stock of these branches until this case ends.
pub(super) fn branches<'a>(work: &Work<'_>, keys: impl IntoIterator<Item = &'a BranchKey>) -> Result<(), StoreError> {
    let mut keys: Vec<&BranchKey> = keys.into_iter().collect();
    keys.sort();
    keys.dedup();
    let sql = "SELECT 1 FROM branch WHERE merchant_id = ?1 AND branch_id = ?2 FOR NO KEY UPDATE";
    keys.into_iter().try_for_each(|key| lock(work, sql, &[key.merchant.as_str(), key.branch.as_str()]))
}

/// Nobody else changes an admin token until this case ends.
pub(super) fn admin_tokens(work: &Work<'_>) -> Result<(), StoreError> {
    match work.sql.dialect() {
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres => work.sql.execute("LOCK TABLE mstore.admin_token IN SHARE ROW EXCLUSIVE MODE", &[]).map(|_| ()),
    }
}

fn lock(work: &Work<'_>, sql: &str, names: &[&str]) -> Result<(), StoreError> {
    match work.sql.dialect() {
        // There is one writer.
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres => {
            let args: Vec<&dyn ToArg> = names.iter().map(|name| name as &dyn ToArg).collect();
            work.sql.exists(sql, &args).map(|_| ())
        }
    }
}
