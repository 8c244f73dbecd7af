//! Commits that came as frames: rows, digests, cursor and contained operations in one local transaction.

use std::collections::BTreeMap;

use mstore_engine::ReadyCommit;
use mstore_protocol::{Change, ChangeOp, Collection, Cursor, Digest, FrameError, OperationId, RowHash};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{LocalDb, count_unshown};

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
            for (collection, frame) in commits.iter().flat_map(|commit| &commit.frames) {
                let mut digest = digests.get(collection).copied().unwrap_or_default();
                for change in &frame.changes {
                    digest = apply_change(conn, collection, frame.seq, change, digest)?;
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

fn apply_change(conn: &Connection, collection: &Collection, seq: u64, change: &Change, digest: Digest) -> Result<Digest, ApplyError> {
    match change.op {
        ChangeOp::Put => {
            let row = change.row()?;
            Ok(put_row(conn, collection, row.id(), seq, row.as_str(), row.hash(collection), digest)?)
        }
        ChangeOp::Delete => Ok(delete_row(conn, collection, &change.id, digest)?),
        ChangeOp::Patch => patch_row(conn, collection, seq, change, digest),
    }
}

fn patch_row(conn: &Connection, collection: &Collection, seq: u64, change: &Change, digest: Digest) -> Result<Digest, ApplyError> {
    let mut find = conn.prepare_cached("SELECT body, hash FROM row WHERE collection = ?1 AND id = ?2")?;
    let mut found = find.query(params![collection.as_str(), change.id])?;
    let missing = || ApplyError::BaseMissing { collection: collection.clone(), id: change.id.clone() };
    let base = found.next()?.ok_or_else(missing)?;
    let row = change.patched(base.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
    let (old, new) = (RowHash::from_bytes(base.get(1)?), row.hash(collection));
    drop(found);
    let mut put = conn.prepare_cached("UPDATE row SET seq = ?3, body = ?4, hash = ?5 WHERE collection = ?1 AND id = ?2")?;
    put.execute(params![collection.as_str(), change.id, seq, row.as_str(), new.to_bytes()])?;
    Ok(digest.replacing(Some(old), Some(new)))
}

fn old_hash(conn: &Connection, collection: &Collection, id: &str) -> rusqlite::Result<Option<RowHash>> {
    let mut find = conn.prepare_cached("SELECT hash FROM row WHERE collection = ?1 AND id = ?2")?;
    find.query_row(params![collection.as_str(), id], |row| row.get(0).map(RowHash::from_bytes)).optional()
}

/// Puts a row and gives the digest then.
pub(super) fn put_row(
    conn: &Connection,
    collection: &Collection,
    id: &str,
    seq: u64,
    body: &str,
    hash: RowHash,
    digest: Digest,
) -> rusqlite::Result<Digest> {
    let old = old_hash(conn, collection, id)?;
    insert_row(conn, collection, id, seq, body, hash)?;
    Ok(digest.replacing(old, Some(hash)))
}

/// Puts a row without looking what was there.
pub(super) fn insert_row(
    conn: &Connection,
    collection: &Collection,
    id: &str,
    seq: u64,
    body: &str,
    hash: RowHash,
) -> rusqlite::Result<()> {
    let mut put = conn.prepare_cached(
        "INSERT INTO row (collection, id, seq, body, hash) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (collection, id) DO UPDATE SET seq = excluded.seq, body = excluded.body, hash = excluded.hash",
    )?;
    put.execute(params![collection.as_str(), id, seq, body, hash.to_bytes()])?;
    Ok(())
}

/// Deletes a row, if it is there, and gives the digest then.
pub(super) fn delete_row(conn: &Connection, collection: &Collection, id: &str, digest: Digest) -> rusqlite::Result<Digest> {
    let mut delete = conn.prepare_cached("DELETE FROM row WHERE collection = ?1 AND id = ?2 RETURNING hash")?;
    let old: Option<[u8; 16]> = delete.query_row(params![collection.as_str(), id], |row| row.get(0)).optional()?;
    Ok(digest.replacing(old.map(RowHash::from_bytes), None))
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
