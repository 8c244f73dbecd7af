//! Answers of `/changes`: staged rows become visible all at once, after their last line.

use std::collections::BTreeMap;

use mstore_protocol::{Collection, Cursor, RowHash};
use rusqlite::{Connection, params};

use super::{
    Applied, DbError, LocalDb, Staging,
    apply::{delete_row, insert_row, leave_overlay, put_row},
    damaged,
};
use crate::staged::{Staged, StagedRow};

type Digests = BTreeMap<Collection, mstore_protocol::Digest>;

impl LocalDb {
    /// Shows what is staged. For a snapshot every other row goes.
    pub(crate) fn show(&mut self, staged: &Staged, to: Cursor, snapshot: bool) -> Result<Applied, DbError> {
        let mut digests = if snapshot { Digests::new() } else { self.digests.clone() };
        let fresh = snapshot && !staged.joined;
        let (watched, from) = (self.unshown > 0, self.cursor);
        self.make_room(true)?;
        let changes = Self::transaction(&self.conn, |conn| {
            if snapshot {
                conn.execute("DELETE FROM row", [])?;
            }
            let mut changes = 0;
            if staged.spilled {
                changes += show_spilled(conn, &mut digests)?;
                conn.execute("DELETE FROM staging", [])?;
                conn.execute("DELETE FROM state WHERE name = 'staging'", [])?;
            }
            for row in staged.rows() {
                changes += 1;
                show_row(conn, row, fresh, &mut digests)?;
            }
            if watched {
                leave_overlay(conn, to, staged.ops.iter())?;
            }
            Self::if_renumbered(conn, from, to, snapshot)?;
            Self::write_position(conn, to, &digests)?;
            Ok::<_, DbError>(changes)
        });
        self.make_room(false)?;
        let changes = changes?;
        self.shown_now(to, digests)?;
        Ok(Applied { changes, requeued: watched && self.has_requeued()? })
    }

    /// A large transaction gets pages in memory, so that none is written twice, and leaves the checkpoint to a quieter moment.
    fn make_room(&self, wanted: bool) -> rusqlite::Result<()> {
        self.conn.execute_batch(if wanted {
            "PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 0"
        } else {
            "PRAGMA cache_size = -2000; PRAGMA wal_autocheckpoint = 2000"
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

fn show_row(conn: &Connection, row: StagedRow<'_>, fresh: bool, digests: &mut Digests) -> rusqlite::Result<()> {
    let before = digests.get(row.collection).copied().unwrap_or_default();
    let after = match row.row {
        Some((body, hash)) if fresh => {
            insert_row(conn, row.collection, row.id, row.seq, body, hash)?;
            before.with(hash)
        }
        Some((body, hash)) => put_row(conn, row.collection, row.id, row.seq, body, hash, before)?,
        None => delete_row(conn, row.collection, row.id, before)?,
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
    let mut rows = read.query([])?;
    let mut changes = 0;
    while let Some(row) = rows.next()? {
        let (id, body): (String, Option<String>) = (row.get(1)?, row.get(3)?);
        let collection =
            Collection::parse(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?).map_err(|error| damaged("a collection", error))?;
        let hash: Option<[u8; 16]> = row.get(4)?;
        let held = body.as_deref().zip(hash.map(RowHash::from_bytes));
        show_row(conn, StagedRow { collection: &collection, id: &id, seq: row.get(2)?, row: held }, false, digests)?;
        changes += 1;
    }
    Ok(changes)
}
