//! Rows that are not what they should be: found by counting their texts, and replaced by the server's, range by range.
//!
//! Nothing here trusts a stored hash or sum, nor that a text is one: whoever can edit the file can edit them too.

use std::{collections::BTreeMap, path::Path};

use mstore_engine::Comparison;
use mstore_protocol::{Collection, Cursor, Digest, Row, RowHash, SUB_DIGESTS, bucket_of};
use rusqlite::{Connection, params, types::ValueRef};

use super::{Applied, DbError, LocalDb, apply::leave_overlay, open_read_only, position, rows::Rows};
use crate::staged::Staged;

/// The server's rows of some ranges of a collection.
#[derive(Debug)]
pub(crate) struct FetchedRange {
    pub(crate) collection: Collection,
    pub(crate) ranges: Vec<u8>,
    pub(crate) rows: Vec<(Row, u64)>,
}

/// A row as it lies in the file.
struct Held<'a> {
    /// None: not text, which no server ever sent.
    id: Option<&'a str>,
    body: Option<&'a str>,
    raw_id: &'a [u8],
    hash: Option<RowHash>,
}

impl<'a> Held<'a> {
    /// From the columns id, body, hash.
    fn of(row: &'a rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let text = |value: ValueRef<'a>| match value {
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => None,
        };
        let (id, body) = (row.get_ref(first)?, row.get_ref(first + 1)?);
        let raw_id = id.as_bytes().unwrap_or_default();
        let hash = row.get::<_, [u8; 16]>(first + 2).ok().map(RowHash::from_bytes);
        Ok(Self { id: text(id), body: text(body), raw_id, hash })
    }

    /// What its text says; none when it is no row at all.
    fn counted(&self, collection: &Collection) -> Option<RowHash> {
        Some(RowHash::of(collection, self.id?, self.body?))
    }
}

/// Counts every row of a file anew, in one read beside everything else: what was shown, and the collections in which a text does not fit its
/// stored hash, or that do not add up to the stored digest. None before the first snapshot.
pub(crate) fn recount(path: &Path) -> Result<Option<(Cursor, Vec<Collection>)>, DbError> {
    let conn = open_read_only(path)?;
    let read = conn.unchecked_transaction()?;
    let (Some(cursor), stored) = position(&read)? else { return Ok(None) };
    let mut counted: BTreeMap<Collection, (Digest, bool)> = stored.keys().map(|name| (name.clone(), (Digest::EMPTY, true))).collect();
    let mut all = read.prepare("SELECT collection, id, body, hash FROM row")?;
    let mut rows = all.query([])?;
    let mut current = Collection::product();
    while let Some(row) = rows.next()? {
        // A collection that is none is never shown.
        let Ok(name) = row.get_ref(0)?.as_str() else { continue };
        if current.as_str() != name {
            let Ok(parsed) = Collection::parse(name) else { continue };
            current = parsed;
        }
        let held = Held::of(row, 1)?;
        let hash = held.counted(&current);
        if !counted.contains_key(&current) {
            counted.insert(current.clone(), (Digest::EMPTY, true));
        }
        if let Some((sum, fits)) = counted.get_mut(&current) {
            *fits &= hash.is_some() && hash == held.hash;
            *sum = hash.map_or(*sum, |hash| sum.with(hash));
        }
    }
    let is_altered = |(name, (sum, fits)): &(Collection, (Digest, bool))| !fits || stored.get(name).copied().unwrap_or_default() != *sum;
    Ok(Some((cursor, counted.into_iter().filter(is_altered).map(|(name, _)| name).collect())))
}

impl LocalDb {
    /// Compares the server's 256 sub-digests with those of the texts here.
    pub(crate) fn compare(&self, collection: &Collection, at: Cursor, theirs: &[Digest]) -> Result<Comparison, DbError> {
        let mut ours = Box::new([Digest::EMPTY; SUB_DIGESTS]);
        let (mut counts, mut damaged) = ([0_usize; SUB_DIGESTS], [false; SUB_DIGESTS]);
        let mut read = self.conn.prepare_cached("SELECT id, body, hash FROM row WHERE collection = ?1")?;
        let mut rows = read.query([collection.as_str()])?;
        while let Some(row) = rows.next()? {
            let held = Held::of(row, 0)?;
            let Some(id) = held.id else { continue };
            let range = usize::from(bucket_of(id));
            counts[range] += 1;
            match held.counted(collection) {
                Some(hash) => ours[range] = ours[range].with(hash),
                None => damaged[range] = true,
            }
        }
        let differs = |range: &u8| damaged[usize::from(*range)] || theirs.get(usize::from(*range)) != Some(&ours[usize::from(*range)]);
        let ranges: Vec<u8> = (0..=u8::MAX).filter(differs).collect();
        let rows = ranges.iter().map(|range| counts[usize::from(*range)]).sum();
        Ok(Comparison { at, ranges, rows })
    }

    /// Puts the server's rows in the place of whatever is in those ranges, and counts the collection anew.
    pub(crate) fn replace_ranges(&mut self, fetched: &FetchedRange) -> Result<(), DbError> {
        let mut digests = self.digests.clone();
        let Some(cursor) = self.cursor else { return Ok(()) };
        Self::transaction(&self.conn, |conn| {
            put_ranges(conn, fetched)?;
            digests.insert(fetched.collection.clone(), count_anew(conn, &fetched.collection)?);
            Self::write_position(conn, cursor, &digests)?;
            Ok::<_, DbError>(())
        })?;
        self.digests = digests;
        Ok(())
    }

    /// Takes over another numbering: ranges first, what came since they were compared on top, all of it in one transaction.
    pub(crate) fn renumber(&mut self, staged: &Staged, fetched: &[FetchedRange], to: Cursor) -> Result<Applied, DbError> {
        let (watched, from) = (self.unshown > 0, self.cursor);
        let mut digests = BTreeMap::new();
        let changes = Self::transaction(&self.conn, |conn| {
            let mut changes = 0;
            for range in fetched {
                put_ranges(conn, range)?;
                changes += range.rows.len() as u64;
            }
            let mut rows = Rows::of(conn);
            for row in staged.rows() {
                changes += 1;
                // The sum is counted below.
                match row.row {
                    Some((body, hash)) => rows.put(row.collection, row.id, row.seq, body, hash)?,
                    None => drop(rows.delete(row.collection, row.id)?),
                }
            }
            drop(rows);
            for collection in collections(conn)? {
                let sum = count_anew(conn, &collection)?;
                digests.insert(collection, sum);
            }
            if watched {
                leave_overlay(conn, to, staged.ops.iter())?;
            }
            Self::if_renumbered(conn, from, to, false)?;
            Self::write_position(conn, to, &digests)?;
            Ok::<_, DbError>(changes)
        })?;
        self.shown_now(to, digests)?;
        Ok(Applied { changes, requeued: watched && self.has_requeued()? })
    }
}

fn put_ranges(conn: &Connection, fetched: &FetchedRange) -> Result<(), DbError> {
    let collection = &fetched.collection;
    let mut wanted = [false; SUB_DIGESTS];
    fetched.ranges.iter().for_each(|range| wanted[usize::from(*range)] = true);
    delete_where(conn, collection, |held| held.id.is_some_and(|id| wanted[usize::from(bucket_of(id))]))?;
    let mut rows = Rows::of(conn);
    for (row, seq) in &fetched.rows {
        rows.put(collection, row.id(), *seq, row.as_str(), row.hash(collection))?;
    }
    Ok(())
}

/// The sum of a collection's texts. What is no row goes, and a stored hash that does not fit its text is written anew.
fn count_anew(conn: &Connection, collection: &Collection) -> Result<Digest, DbError> {
    delete_where(conn, collection, |held| held.counted(collection).is_none())?;
    let mut sum = Digest::EMPTY;
    let mut lies: Vec<(String, RowHash)> = Vec::new();
    let mut all = conn.prepare_cached("SELECT id, body, hash FROM row WHERE collection = ?1")?;
    let mut rows = all.query([collection.as_str()])?;
    while let Some(row) = rows.next()? {
        let held = Held::of(row, 0)?;
        let (Some(hash), Some(id)) = (held.counted(collection), held.id) else { continue };
        sum = sum.with(hash);
        if held.hash != Some(hash) {
            lies.push((id.to_owned(), hash));
        }
    }
    drop(rows);
    let mut correct = conn.prepare_cached("UPDATE row SET hash = ?3 WHERE collection = ?1 AND id = ?2")?;
    for (id, hash) in lies {
        correct.execute(params![collection.as_str(), id, hash.to_bytes()])?;
    }
    Ok(sum)
}

fn delete_where(conn: &Connection, collection: &Collection, unwanted: impl Fn(&Held<'_>) -> bool) -> Result<(), DbError> {
    let mut ids: Vec<(Vec<u8>, String)> = Vec::new();
    let mut all = conn.prepare_cached("SELECT id, body, hash, typeof(id) FROM row WHERE collection = ?1")?;
    let mut rows = all.query([collection.as_str()])?;
    while let Some(row) = rows.next()? {
        let held = Held::of(row, 0)?;
        if unwanted(&held) {
            ids.push((held.raw_id.to_vec(), row.get(3)?));
        }
    }
    drop(rows);
    // An id that is not UTF-8 can be bound as bytes only.
    let mut delete = conn.prepare_cached("DELETE FROM row WHERE collection = ?1 AND typeof(id) = ?3 AND CAST(id AS BLOB) = ?2")?;
    let mut delete_text = conn.prepare_cached("DELETE FROM row WHERE collection = ?1 AND id = CAST(?2 AS TEXT)")?;
    for (id, kind) in ids {
        if kind == "text" {
            delete_text.execute(params![collection.as_str(), id])?;
        } else {
            delete.execute(params![collection.as_str(), id, kind])?;
        }
    }
    Ok(())
}

/// The collections that there are rows of.
fn collections(conn: &Connection) -> Result<Vec<Collection>, DbError> {
    let mut all = conn.prepare_cached("SELECT DISTINCT collection FROM row")?;
    let mut rows = all.query([])?;
    let mut names = Vec::new();
    while let Some(row) = rows.next()? {
        names.extend(row.get_ref(0)?.as_str().ok().and_then(|name| Collection::parse(name).ok()));
    }
    Ok(names)
}
