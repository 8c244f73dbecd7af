//! A cursor that this database never gave out: it was restored from a backup. The branch gets a new epoch, once.

use mstore_engine::sequence::BranchState;
use mstore_protocol::{BranchKey, Cursor, Epoch};

use super::{alarms, job::Work, mirror};
use crate::StoreError;

/// Starts a new epoch unless somebody did already; tells whether it was this call.
pub(super) fn new_epoch(work: &mut Work<'_>, key: &BranchKey, seen: Epoch, cursor: Cursor) -> Result<bool, StoreError> {
    let Some(mut entry) = mirror::load_head(work.conn, key)? else { return Ok(false) };
    if entry.state.epoch != seen {
        return Ok(false);
    }
    // The numbering goes on, so that rows keep their seq; the epoch tells old cursors from new ones.
    entry.state = BranchState { epoch: Epoch::from_bits(rand::random()), at: work.now, ..entry.state };
    mirror::store_head(work.conn, &entry, &[])?;
    let detail = format!(
        "a device has {cursor}, which this server does not remember: it was restored from a backup. A new epoch was started; \
         devices compare, fetch what differs and upload again what they did in the last 30 days"
    );
    alarms::raise(work.conn, work.now, "restored_from_backup", Some(key), None, &detail)?;
    work.restarted.insert(key.clone(), entry.state.epoch);
    Ok(true)
}
