//! Answers of `/changes`: staged rows become visible all at once, after their last line.

use std::collections::BTreeMap;

use mstore_protocol::{Collection, Cursor, RowHash};
use rusqlite::{Connection, params};

use super::{Applied, DbError, LocalDb, Staging, apply::leave_overlay, damaged, rows::Rows};
use crate::staged::{Staged, StagedRow};

type Digests = BTreeMap<Collection, mstore_protocol::Digest>;

impl LocalDb {
    /// Shows what is staged. For a snapshot every other row goes.
    pub(crate) fn show(&mut self, staged: &Staged, to: Cursor, snapshot: bool) -> Result<Applied, DbError> {
        let fresh = snapshot && !staged.joined;
        let (watched, from) = (self.unshown > 0, self.cursor);
        let ahead = self.take_ahead(staged, fresh)?;
        let goes_on = ahead.is_some();
        let (written, mut digests, mut changes) = match ahead {
            Some(ahead) => (ahead.segments(), ahead.digests, ahead.changes),
            None if snapshot => (0, Digests::new(), 0),
            None => (0, self.digests.clone(), 0),
        };
        self.make_room(true)?;
        let work = |conn: &Connection| {
            if snapshot && !goes_on {
                conn.execute("DELETE FROM row", [])?;
            }
            if staged.spilled {
                changes += show_spilled(conn, &mut digests)?;
                conn.execute("DELETE FROM staging", [])?;
                conn.execute("DELETE FROM state WHERE name = 'staging'", [])?;
            }
            let mut rows = Rows::of(conn);
            for row in staged.rows_after(written) {
                changes += 1;
                show_row(&mut rows, row, fresh, &mut digests)?;
            }
            if watched {
                leave_overlay(conn, to, staged.ops.iter())?;
            }
            Self::if_renumbered(conn, from, to, snapshot)?;
            Self::write_position(conn, to, &digests)?;
            Ok::<_, DbError>(())
        };
        let done = if goes_on { Self::finish(&self.conn, work) } else { Self::transaction(&self.conn, work) };
        self.make_room(false)?;
        done?;
        self.shown_now(to, digests)?;
        Ok(Applied { changes, requeued: watched && self.has_requeued()? })
    }

    /// A large transaction gets pages in memory, so that none is written twice, and leaves the checkpoint to a quieter moment.
    pub(super) fn make_room(&self, wanted: bool) -> rusqlite::Result<()> {
        self.conn.execute_batch(if wanted {
            "PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 0"
        } else {
            "PRAGMA cache_size = -2000; PRAGMA wal_autocheckpoint = 4000"
        })
    }

    /// Writes staged rows to the staging table, so that they outlive this process or need no memory.
    pub(crate) fn spill(&mut self, staged: &mut Staged, snapshot: bool) -> Result<(), DbError> {
        let Some(position) = staged.position().map(str::to_owned) else { return Ok(()) };
        let note = Staging { position, snapshot, ops: staged.ops.clone() };
        let note = serde_json::to_string(&note).expect("a staging note is always JSON");
        let first = !staged.spilled;
        Self::transaction(&self.conn, |conn| {
            if first {
                conn.execute("DELETE FROM staging", [])?;
            }
            let mut keep = conn.prepare_cached("INSERT INTO staging (collection, id, seq, body, hash) VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for row in staged.rows() {
                let (body, hash) = row.row.map_or((None, None), |(body, hash)| (Some(body), Some(hash.to_bytes())));
                keep.execute(params![row.collection.as_str(), row.id, row.seq, body, hash])?;
            }
            conn.execute(
                "INSERT INTO state (name, value) VALUES ('staging', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [&note],
            )?;
            Ok::<_, DbError>(())
        })?;
        staged.spilled();
        Ok(())
    }

    /// Forgets what is staged.
    pub(crate) fn drop_staged(&mut self) -> Result<(), DbError> {
        Self::transaction(&self.conn, |conn| {
            conn.execute("DELETE FROM staging", [])?;
            conn.execute("DELETE FROM state WHERE name = 'staging'", [])?;
            Ok::<_, DbError>(())
        })
    }
}

pub(super) fn show_row(rows: &mut Rows<'_>, row: StagedRow<'_>, fresh: bool, digests: &mut Digests) -> rusqlite::Result<()> {
    let before = digests.get(row.collection).copied().unwrap_or_default();
    let after = match row.row {
        Some((body, hash)) => {
            let old = if fresh { None } else { rows.hash(row.collection, row.id)? };
            rows.put(row.collection, row.id, row.seq, body, hash)?;
            before.replacing(old, Some(hash))
        }
        None => before.replacing(rows.delete(row.collection, row.id)?, None),
    };
    match digests.get_mut(row.collection) {
        Some(digest) => *digest = after,
        None => {
            digests.insert(row.collection.clone(), after);
        }
    }
    Ok(())
}

fn show_spilled(conn: &Connection, digests: &mut Digests) -> Result<u64, DbError> {
    let mut read = conn.prepare_cached("SELECT collection, id, seq, body, hash FROM staging ORDER BY n")?;
    let mut staged = read.query([])?;
    let (mut rows, mut changes) = (Rows::of(conn), 0);
    while let Some(row) = staged.next()? {
        let (id, body): (String, Option<String>) = (row.get(1)?, row.get(3)?);
        let collection =
            Collection::parse(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?).map_err(|error| damaged("a collection", error))?;
        let hash: Option<[u8; 16]> = row.get(4)?;
        let held = body.as_deref().zip(hash.map(RowHash::from_bytes));
        show_row(&mut rows, StagedRow { collection: &collection, id: &id, seq: row.get(2)?, row: held }, false, digests)?;
        changes += 1;
    }
    Ok(changes)
}
