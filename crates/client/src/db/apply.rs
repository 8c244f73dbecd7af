//! Commits that came as frames: rows, digests, cursor and contained operations in one local transaction.

use std::collections::BTreeMap;

use mstore_engine::ReadyCommit;
use mstore_protocol::{Change, ChangeOp, Collection, Cursor, Digest, FrameError, OperationId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{LocalDb, count_unshown, rows::Rows};

/// Why commits were not shown; none of the transaction is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("a patch of {collection} {id}, which is not here")]
    BaseMissing { collection: Collection, id: String },
    #[error("commit {next} does not follow {here:?}")]
    OutOfOrder { next: Cursor, here: Option<Cursor> },
    #[error("a change that cannot be carried out: {0}")]
    Frame(#[from] FrameError),
    #[error("the local database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// What became of a transaction that showed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Rows put, patched or deleted.
    pub(crate) changes: u64,
    /// Operations may wait for a verdict again: look at the queue.
    pub(crate) requeued: bool,
}

impl LocalDb {
    /// Shows commits, each of which follows the one before.
    pub(crate) fn apply(&mut self, commits: &[ReadyCommit]) -> Result<Applied, ApplyError> {
        let Some(last) = commits.last() else { return Ok(Applied { changes: 0, requeued: false }) };
        self.check_order(commits)?;
        let mut digests = self.digests.clone();
        let watched = self.unshown > 0;
        let changes = Self::transaction(&self.conn, |conn| {
            let mut changes = 0;
            let mut rows = Rows::of(conn);
            for (collection, frame) in commits.iter().flat_map(|commit| &commit.frames) {
                let mut digest = digests.get(collection).copied().unwrap_or_default();
                for change in &frame.changes {
                    digest = apply_change(&mut rows, collection, frame.seq, change, digest)?;
                }
                changes += frame.changes.len() as u64;
                digests.insert(collection.clone(), digest);
            }
            if watched {
                leave_overlay(conn, last.cursor, commits.iter().flat_map(|commit| commit.ops.iter()))?;
            }
            Self::write_position(conn, last.cursor, &digests)?;
            Ok::<_, ApplyError>(changes)
        })?;
        self.shown_now(last.cursor, digests)?;
        Ok(Applied { changes, requeued: watched && self.has_requeued()? })
    }

    /// Whatever was decided elsewhere: only the very next commit is shown.
    fn check_order(&self, commits: &[ReadyCommit]) -> Result<(), ApplyError> {
        let mut here = self.cursor;
        for commit in commits {
            let next = commit.cursor;
            if here.is_none_or(|here| here.epoch != next.epoch || here.seq + 1 != next.seq) {
                return Err(ApplyError::OutOfOrder { next, here });
            }
            here = Some(next);
        }
        Ok(())
    }

    /// After a transaction that showed something.
    pub(super) fn shown_now(&mut self, cursor: Cursor, digests: BTreeMap<Collection, Digest>) -> rusqlite::Result<()> {
        self.cursor = Some(cursor);
        self.digests = digests;
        if self.unshown > 0 {
            self.unshown = count_unshown(&self.conn)?;
        }
        Ok(())
    }
}

fn apply_change(rows: &mut Rows<'_>, collection: &Collection, seq: u64, change: &Change, digest: Digest) -> Result<Digest, ApplyError> {
    match change.op {
        ChangeOp::Put => {
            let row = change.row()?;
            let old = rows.hash(collection, row.id())?;
            let hash = row.hash(collection);
            rows.put(collection, row.id(), seq, row.as_str(), hash)?;
            Ok(digest.replacing(old, Some(hash)))
        }
        ChangeOp::Delete => Ok(digest.replacing(rows.delete(collection, &change.id)?, None)),
        ChangeOp::Patch => {
            let missing = || ApplyError::BaseMissing { collection: collection.clone(), id: change.id.clone() };
            let (row, old) = rows.read(collection, &change.id, |base| change.patched(base))?.ok_or_else(missing)?;
            let row = row?;
            let hash = row.hash(collection);
            rows.put(collection, &change.id, seq, row.as_str(), hash)?;
            Ok(digest.replacing(Some(old), Some(hash)))
        }
    }
}

/// Operations that the stream contains from here on no longer count as pending: those it names, and those whose commit it has passed.
/// One whose commit went by without naming it waits for a verdict again, once: the server may have lost it, and resending is safe.
pub(super) fn leave_overlay<'a>(conn: &Connection, cursor: Cursor, ops: impl Iterator<Item = &'a OperationId>) -> rusqlite::Result<()> {
    let mut shown: Vec<i64> = Vec::new();
    // One that a merchant's backend was to decide about is asked after: it was accepted for good, or it is a dead letter now.
    let mut name = conn.prepare_cached(
        "UPDATE operation SET shown = 1, named = 1, state = CASE WHEN state = 'accepted' AND code = 'awaits_backend' THEN 'queued' ELSE state END
         WHERE id = ?1 AND named = 0 RETURNING device_seq",
    )?;
    for id in ops {
        shown.extend(name.query_row([id.to_string()], |row| row.get::<_, i64>(0)).optional()?);
    }
    let mut pass = conn.prepare_cached(
        "UPDATE operation SET shown = 1, named = 1, state = CASE named WHEN 0 THEN 'queued' ELSE state END
         WHERE state = 'accepted' AND shown = 0 AND (epoch = ?1 OR epoch IS NULL) AND seq <= ?2 RETURNING device_seq",
    )?;
    for device_seq in pass.query_map(params![cursor.epoch.to_string(), cursor.seq], |row| row.get::<_, i64>(0))? {
        shown.push(device_seq?);
    }
    let mut forget = conn.prepare_cached("DELETE FROM pending_effect WHERE device_seq = ?1")?;
    for device_seq in shown {
        forget.execute([device_seq])?;
    }
    Ok(())
}
