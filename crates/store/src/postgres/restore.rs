//! A cursor that this database never gave out: it was restored from a backup, or lost its newest commits in a failover. The branch gets a new epoch, once, and
//! not again soon.

use mstore_protocol::{BranchKey, Cursor, Epoch, Timestamp};

use super::PgStore;
use crate::{
    StoreError,
    cases::{Carrier as _, Size, Work, alarms},
    sql::args,
};

/// What the alarm of a new epoch is called; it also tells when that was.
pub(super) const RESTORED: &str = "restored_from_backup";
/// Between two new epochs of a branch passes at least this: whoever invents cursors makes devices compare once a minute, not all the time.
const EPOCH_MIN_MS: i64 = 60_000;

/// Starts a new epoch unless somebody did already or a moment ago; tells whether it was this call.
pub(super) async fn new_epoch(store: &PgStore, key: &BranchKey, seen: Epoch, cursor: Cursor) -> Result<bool, StoreError> {
    let key = key.clone();
    store.carry(Size::Small, move |work| restarted(work, &key, seen, cursor), |restarted, _| restarted).await
}

fn restarted(work: &mut Work<'_>, key: &BranchKey, seen: Epoch, cursor: Cursor) -> Result<bool, StoreError> {
    let who = args![
        key.merchant.as_str(),
        key.branch.as_str(),
        seen.to_string(),
        Epoch::from_bits(rand::random()).to_string(),
        work.now.to_string()
    ];
    let lock = "SELECT 1 FROM head WHERE merchant_id = ?1 AND branch_id = ?2 FOR NO KEY UPDATE";
    work.sql.exists(lock, args![key.merchant.as_str(), key.branch.as_str()])?;
    if was_just_restored(work, key)? {
        return Ok(false);
    }
    // The numbering goes on, so that rows keep their seq; the epoch tells old cursors from new ones.
    let sql = "UPDATE head SET epoch = ?4, at = ?5, is_untold = 1 WHERE merchant_id = ?1 AND branch_id = ?2 AND epoch = ?3";
    if work.sql.execute(sql, who)? == 0 {
        return Ok(false);
    }
    let detail = format!(
        "a device has {cursor}, which this server does not remember: it was restored from a backup. A new epoch was started; \
         devices compare, fetch what differs and upload again what they did in the last 30 days"
    );
    alarms::raise(work.sql, work.now, RESTORED, Some(key), None, &detail)?;
    work.touched.insert(key.clone());
    Ok(true)
}

fn was_just_restored(work: &Work<'_>, key: &BranchKey) -> Result<bool, StoreError> {
    let sql = "SELECT at FROM alarm WHERE kind = ?1 AND merchant_id = ?2 AND branch_id = ?3 ORDER BY id DESC LIMIT 1";
    let last: Option<Timestamp> = work.sql.row(sql, args![RESTORED, key.merchant.as_str(), key.branch.as_str()], |row| row.time(0))?;
    Ok(last.is_some_and(|at| (0..EPOCH_MIN_MS).contains(&(work.now.as_ms() - at.as_ms()))))
}
