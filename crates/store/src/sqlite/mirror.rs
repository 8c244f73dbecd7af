//! The mirror: what devices have, with the numbering that led there.

use std::collections::BTreeMap;

use mstore_engine::sequence::{BranchState, CollectionState, Difference, Stored};
use mstore_protocol::{BranchKey, Collection, Digest, Epoch, Head, RowHash, Tag, Timestamp, bucket_of};
use rusqlite::{Connection, OptionalExtension as _, params, types::Type};

use super::error::damaged;
use crate::StoreError;

/// A branch's numbering and where it is stored.
#[derive(Debug, Clone)]
pub(super) struct HeadEntry {
    /// `head.n`.
    pub(super) n: i64,
    /// The numbering.
    pub(super) state: BranchState,
    /// Tombstones up to here were forgotten.
    pub(super) floor: u64,
}

impl HeadEntry {
    /// As devices see it.
    pub(super) fn head(&self) -> Head {
        self.state.head()
    }

    /// The digests by collection.
    pub(super) fn digests(&self) -> BTreeMap<Collection, Digest> {
        self.state.digests()
    }
}

/// SQLite's integers are signed; what we count never comes near the end of them.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn parsed<T, E: std::error::Error + Send + Sync + 'static>(
    row: &rusqlite::Row<'_>,
    i: usize,
    parse: impl Fn(&str) -> Result<T, E>,
) -> rusqlite::Result<T> {
    parse(row.get_ref(i)?.as_str()?).map_err(|error| rusqlite::Error::FromSqlConversionFailure(i, Type::Text, Box::new(error)))
}

/// A time column.
pub(super) fn time(row: &rusqlite::Row<'_>, i: usize) -> rusqlite::Result<Timestamp> {
    parsed(row, i, Timestamp::parse)
}

/// A branch named by two columns.
pub(super) fn key(row: &rusqlite::Row<'_>, i: usize) -> rusqlite::Result<BranchKey> {
    parsed(row, i + 1, |branch| BranchKey::parse(row.get_ref(i).and_then(|m| Ok(m.as_str()?)).unwrap_or(""), branch))
}

const HEAD: &str = "SELECT n, epoch, seq, tag, at, floor, merchant_id, branch_id FROM head";

fn head_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(BranchKey, HeadEntry)> {
    let state = BranchState {
        seq: row.get(2)?,
        tag: parsed(row, 3, Tag::parse)?,
        ..BranchState::new(parsed(row, 1, Epoch::parse)?, time(row, 4)?)
    };
    Ok((key(row, 6)?, HeadEntry { n: row.get(0)?, state, floor: row.get(5)? }))
}

fn load_collections(conn: &Connection, entry: &mut HeadEntry) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached("SELECT collection, digest, last_seq, rows FROM head_collection WHERE head = ?1")?;
    let mut rows = statement.query([entry.n])?;
    while let Some(row) = rows.next()? {
        let state = CollectionState { digest: parsed(row, 1, Digest::parse)?, last_seq: row.get(2)?, rows: row.get(3)? };
        entry.state.collections.insert(parsed(row, 0, Collection::parse)?, state);
    }
    Ok(())
}

/// One branch's head.
pub(super) fn load_head(conn: &Connection, key: &BranchKey) -> Result<Option<HeadEntry>, StoreError> {
    let mut statement = conn.prepare_cached(&format!("{HEAD} WHERE merchant_id = ?1 AND branch_id = ?2"))?;
    let found = statement.query_row([key.merchant.as_str(), key.branch.as_str()], head_row).optional()?;
    let Some((_, mut entry)) = found else { return Ok(None) };
    load_collections(conn, &mut entry)?;
    Ok(Some(entry))
}

/// All heads.
pub(super) fn load_heads(conn: &Connection) -> Result<Vec<(BranchKey, HeadEntry)>, StoreError> {
    let mut statement = conn.prepare_cached(&format!("{HEAD} ORDER BY n"))?;
    let mut heads: Vec<(BranchKey, HeadEntry)> = statement.query_map([], head_row)?.collect::<Result<_, _>>()?;
    for (_, entry) in &mut heads {
        load_collections(conn, entry)?;
    }
    Ok(heads)
}

/// Makes the head of a new branch.
pub(super) fn create_head(conn: &Connection, key: &BranchKey, state: BranchState) -> Result<HeadEntry, StoreError> {
    let sql = "INSERT INTO head (merchant_id, branch_id, epoch, seq, tag, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (epoch, tag, at) = (state.epoch.to_string(), state.tag.to_string(), state.at.to_string());
    conn.prepare_cached(sql)?.execute(params![key.merchant.as_str(), key.branch.as_str(), epoch, state.seq, tag, at])?;
    let entry = HeadEntry { n: conn.last_insert_rowid(), state, floor: 0 };
    store_head(conn, &entry, &Collection::built_in())?;
    Ok(entry)
}

/// Writes a head with those of its collections that changed.
pub(super) fn store_head(conn: &Connection, entry: &HeadEntry, changed: &[Collection]) -> Result<(), StoreError> {
    let state = &entry.state;
    let (epoch, tag, at) = (state.epoch.to_string(), state.tag.to_string(), state.at.to_string());
    conn.prepare_cached("UPDATE head SET epoch = ?2, seq = ?3, tag = ?4, at = ?5, floor = ?6 WHERE n = ?1")?.execute(params![
        entry.n,
        epoch,
        state.seq,
        tag,
        at,
        entry.floor
    ])?;
    let sql = "INSERT INTO head_collection (head, collection, digest, last_seq, rows) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (head, collection) DO UPDATE SET digest = excluded.digest, last_seq = excluded.last_seq, rows = excluded.rows";
    for (name, of) in changed.iter().filter_map(|name| Some((name, state.collections.get(name)?))) {
        conn.prepare_cached(sql)?.execute(params![entry.n, name.as_str(), of.digest.to_string(), of.last_seq, of.rows])?;
    }
    Ok(())
}

/// A row hash column.
pub(super) fn hash(row: &rusqlite::Row<'_>, i: usize) -> rusqlite::Result<RowHash> {
    Ok(RowHash::from_bytes(row.get::<_, [u8; 16]>(i)?))
}

/// A row as devices have it; `None` when they do not.
pub(super) fn read(conn: &Connection, head: i64, collection: &str, id: &str) -> Result<Option<Stored>, StoreError> {
    let sql = "SELECT row, hash FROM mirror WHERE head = ?1 AND collection = ?2 AND id = ?3 AND row IS NOT NULL";
    let mut statement = conn.prepare_cached(sql)?;
    let found = statement.query_row(params![head, collection, id], |row| {
        // A hash spoilt by hand counts as none: the sweep mends the digest.
        Ok((Box::<str>::from(row.get_ref(0)?.as_str()?), hash(row, 1).ok()))
    });
    let Some((text, hash)) = found.optional()? else { return Ok(None) };
    let name = Collection::parse(collection).map_err(|error| damaged("a collection", error))?;
    Ok(Some(match hash {
        Some(hash) => Stored { text, hash },
        None => Stored::new(&name, id, text),
    }))
}

/// Writes the rows of a commit; a deletion leaves a tombstone.
pub(super) fn write(conn: &Connection, head: i64, seq: u64, differences: &[Difference]) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(
        "INSERT INTO mirror (head, collection, id, seq, bucket, hash, row) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (head, collection, id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, row = excluded.row",
    )?;
    for difference in differences {
        let new = difference.new.as_ref();
        let hash = new.map(|row| row.hash.to_bytes());
        statement.execute(params![
            head,
            difference.collection.as_str(),
            &*difference.id,
            seq,
            bucket_of(&difference.id),
            hash.as_ref().map(|hash| &hash[..]),
            new.map(|row| &*row.text)
        ])?;
    }
    Ok(())
}
