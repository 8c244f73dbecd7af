//! Branches that stand still: held by a mass deletion, or because their commit cannot be made. Nobody may take that for a quiet day: the head says
//! so, and an alarm does.

use std::collections::HashMap;

use mstore_engine::sequence;
use mstore_protocol::{BranchKey, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    super::mirror::{self, HeadEntry},
    BLOCKED, RETRY_AFTER, Round, Sequencer, Within,
};
use crate::{OutboxMessage, StoreError, cases::alarms};

/// Which branches stood still when the database was last written.
pub(super) fn load(conn: &Connection) -> Result<HashMap<BranchKey, Timestamp>, StoreError> {
    let sql = "SELECT merchant_id, branch_id, at FROM hold
        UNION ALL SELECT merchant_id, branch_id, at FROM alarm WHERE kind = ?1 AND cleared_at IS NULL";
    let mut statement = conn.prepare_cached(sql)?;
    let held = statement.query_map([BLOCKED], |row| Ok((mirror::key(row, 0)?, mirror::time(row, 2)?)))?;
    Ok(held.collect::<Result<_, _>>()?)
}

impl Sequencer {
    /// Tells devices, once, that what they have is not what the branch has.
    pub(super) fn stand_still(&self, within: Within<'_>, key: &BranchKey, entry: &HeadEntry, round: &mut Round) -> Result<(), StoreError> {
        if self.held.contains_key(key) || round.held.contains_key(key) {
            return Ok(());
        }
        round.held.insert(key.clone(), Some(within.now));
        self.push(within.conn, key, entry, OutboxMessage::HeadOnly, round)
    }

    /// Tells them that it goes on, if it did not.
    pub(super) fn go_on(&self, within: Within<'_>, key: &BranchKey, entry: &HeadEntry, round: &mut Round) -> Result<(), StoreError> {
        if !self.held.contains_key(key) {
            return Ok(());
        }
        round.held.insert(key.clone(), None);
        self.push(within.conn, key, entry, OutboxMessage::HeadOnly, round)
    }
}

/// Says once that a branch stands still; whoever writes meanwhile is not held up when even that fails.
pub(super) fn alarm(within: Within<'_>, key: &BranchKey, error: &str) -> Result<(), StoreError> {
    let Within { conn, now, .. } = within;
    let detail = format!("its changes cannot be sequenced, and are tried again every {} s: {error}", RETRY_AFTER.as_secs());
    tracing::error!(branch = %key, error, "branch cannot be sequenced; leaving it out for a while");
    match alarms::raise_unless_open(conn, now, BLOCKED, key, &detail) {
        Err(error) if conn.is_autocommit() => Err(error),
        Err(error) => {
            tracing::error!(branch = %key, %error, "the alarm cannot be raised");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

pub(super) fn hold(conn: &Connection, key: &BranchKey, now: Timestamp, mass: &sequence::MassDeletion) -> Result<(), StoreError> {
    let detail = format!("{mass}; check the source, then restore the rows or confirm the hold");
    let sql = "INSERT INTO hold (merchant_id, branch_id, at, detail) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    let is_new = conn.prepare_cached(sql)?.execute(params![key.merchant.as_str(), key.branch.as_str(), now.to_string(), detail])? > 0;
    if is_new {
        alarms::raise(conn, now, "mass_delete_held", Some(key), None, &detail)?;
        tracing::error!(branch = %key, %detail, "commit held");
    }
    Ok(())
}

pub(super) fn release(conn: &Connection, key: &BranchKey, now: Timestamp, confirmed: bool) -> Result<(), StoreError> {
    let sql = "DELETE FROM hold WHERE merchant_id = ?1 AND branch_id = ?2 RETURNING at";
    let was_held =
        conn.prepare_cached(sql)?.query_row([key.merchant.as_str(), key.branch.as_str()], |row| row.get::<_, String>(0)).optional()?;
    if was_held.is_some() {
        alarms::clear(conn, now, "mass_delete_held", key)?;
        tracing::warn!(branch = %key, confirmed, "held commit released");
    }
    Ok(())
}
