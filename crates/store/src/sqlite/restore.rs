//! A cursor that this database never gave out: it was restored from a backup. The branch gets a new epoch, once, and not again soon.

use mstore_engine::sequence::BranchState;
use mstore_protocol::{BranchKey, Cursor, Epoch};
use rusqlite::OptionalExtension as _;

use super::{config::EPOCH_MIN_MS, job::Work, mirror};
use crate::{StoreError, cases::alarms};

/// What the alarm of a new epoch is called; it also tells when that was.
const RESTORED: &str = "restored_from_backup";

/// Starts a new epoch unless somebody did already or a moment ago; tells whether it was this call.
pub(super) fn new_epoch(work: &mut Work<'_>, key: &BranchKey, seen: Epoch, cursor: Cursor) -> Result<bool, StoreError> {
    let Some(mut entry) = mirror::load_head(work.conn, key)? else { return Ok(false) };
    if entry.state.epoch != seen || was_just_restored(work, key)? {
        return Ok(false);
    }
    // The numbering goes on, so that rows keep their seq; the epoch tells old cursors from new ones.
    entry.state = BranchState { epoch: Epoch::from_bits(rand::random()), at: work.now, ..entry.state };
    mirror::store_head(work.conn, &entry, &[])?;
    let detail = format!(
        "a device has {cursor}, which this server does not remember: it was restored from a backup. A new epoch was started; \
         devices compare, fetch what differs and upload again what they did in the last 30 days"
    );
    alarms::raise(work.conn, work.now, RESTORED, Some(key), None, &detail)?;
    work.restarted.insert(key.clone(), entry.state.epoch);
    Ok(true)
}

fn was_just_restored(work: &Work<'_>, key: &BranchKey) -> Result<bool, StoreError> {
    let sql = "SELECT at FROM alarm WHERE kind = ?1 AND merchant_id = ?2 AND branch_id = ?3 ORDER BY id DESC LIMIT 1";
    let mut statement = work.conn.prepare_cached(sql)?;
    let last = statement.query_row([RESTORED, key.merchant.as_str(), key.branch.as_str()], |row| mirror::time(row, 0)).optional()?;
    Ok(last.is_some_and(|at| (0..EPOCH_MIN_MS).contains(&(work.now.as_ms() - at.as_ms()))))
}
