//! The background sweep: compares source and mirror slice by slice, so that a change no trigger saw does not stay unseen.
//!
//! Reading happens beside the writer; what differs is marked and goes through the sequencer like any other change.

use mstore_engine::sequence::Stored;
use mstore_protocol::{BranchKey, Collection, Digest, RowHash};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    alarms,
    error::damaged,
    job::Work,
    mirror::{self, HeadEntry},
    sequencer::{self, Compared},
};
use crate::{StoreError, SweepReport};

/// What a slice found.
pub(super) struct Found {
    /// For the caller.
    pub(super) report: SweepReport,
    differing: Vec<Place>,
    spoilt: Vec<Place>,
    /// Collections whose digest is not the sum of their hashes.
    unsummed: Vec<(BranchKey, Collection)>,
}

struct Place {
    key: BranchKey,
    collection: Collection,
    id: String,
}

impl Found {
    /// Whether the writer has something to do.
    pub(super) fn needs_writing(&self) -> bool {
        !(self.differing.is_empty() && self.spoilt.is_empty() && self.unsummed.is_empty())
    }
}

/// `{head}|{collection}|{last id}`: where the next slice begins.
struct Position {
    head: i64,
    collection: String,
    after: String,
}

impl Position {
    fn parse(raw: &str) -> Option<Self> {
        let mut parts = raw.splitn(3, '|');
        let head = parts.next()?.parse().ok()?;
        Some(Self { head, collection: parts.next()?.to_owned(), after: parts.next()?.to_owned() })
    }
}

/// Compares the next rows.
pub(super) fn slice(conn: &Connection, from: Option<&str>, rows_max: usize) -> Result<Found, StoreError> {
    let start = from.and_then(Position::parse).unwrap_or(Position { head: 0, collection: String::new(), after: String::new() });
    let mut found = Found { report: SweepReport::default(), differing: Vec::new(), spoilt: Vec::new(), unsummed: Vec::new() };
    let has_marks: bool = conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM mark)")?.query_row([], |row| row.get(0))?;
    let mut left = rows_max.max(1);
    for (key, entry) in mirror::load_heads(conn)?.into_iter().filter(|(_, entry)| entry.n >= start.head) {
        for collection in Collection::built_in() {
            let is_first = entry.n == start.head;
            if is_first && collection.as_str() < start.collection.as_str() {
                continue;
            }
            let after = if is_first && collection.as_str() == start.collection { start.after.as_str() } else { "" };
            if left == 0 {
                found.report.next = Some(format!("{}|{collection}|{after}", entry.n));
                return Ok(found);
            }
            let ids = ids(conn, &key, &entry, &collection, after, left)?;
            for id in &ids {
                look(conn, &key, &entry, &collection, id, has_marks, &mut found)?;
            }
            found.report.compared += ids.len() as u64;
            if let Some(last) = ids.last().filter(|_| ids.len() == left) {
                found.report.next = Some(format!("{}|{collection}|{last}", entry.n));
                return Ok(found);
            }
            left -= ids.len();
            check_sum(conn, &key, &entry, &collection, &mut found)?;
        }
    }
    Ok(found)
}

fn ids(
    conn: &Connection,
    key: &BranchKey,
    entry: &HeadEntry,
    name: &Collection,
    after: &str,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let source = match name.as_str() {
        "product" => "SELECT id FROM product WHERE merchant_id = ?1 AND id > ?3",
        "inventory" => "SELECT id FROM inventory WHERE merchant_id = ?1 AND branch_id = ?2 AND id > ?3",
        _transaction => {
            "SELECT id FROM transactions WHERE merchant_id = ?1 AND branch_id = ?2 AND id > ?3
               AND recorded_at >= (SELECT value FROM setting WHERE name = 'transaction_cutoff')"
        }
    };
    // ?2 is used in both arms so that every statement has the same parameters.
    let sql = format!(
        "{source} UNION SELECT id FROM mirror WHERE head = ?4 AND collection = ?5 AND id > ?3 AND row IS NOT NULL AND ?2 IS NOT NULL ORDER BY id LIMIT ?6"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let ids =
        statement.query_map(params![key.merchant.as_str(), key.branch.as_str(), after, entry.n, name.as_str(), limit], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

fn look(
    conn: &Connection,
    key: &BranchKey,
    entry: &HeadEntry,
    collection: &Collection,
    id: &str,
    has_marks: bool,
    found: &mut Found,
) -> Result<(), StoreError> {
    let place = || Place { key: key.clone(), collection: collection.clone(), id: id.to_owned() };
    let compared = sequencer::compare(conn, entry, key, collection.as_str(), id)?;
    let differs = !matches!(compared, Compared::Same);
    let is_on_its_way = differs && has_marks && is_marked(conn, key, collection, id)?;
    if differs && !is_on_its_way {
        found.report.differing += 1;
        // To mark a row that is quarantined would not help it.
        if matches!(compared, Compared::Differs(_)) {
            found.differing.push(place());
        }
    }
    if !hash_fits(conn, entry, collection, id)? {
        found.report.mended += 1;
        found.spoilt.push(place());
    }
    Ok(())
}

/// A change that waits to be sequenced is no difference.
fn is_marked(conn: &Connection, key: &BranchKey, collection: &Collection, id: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM mark WHERE merchant_id = ?1 AND branch_id IN (?2, '*') AND collection = ?3 AND id = ?4";
    Ok(conn.prepare_cached(sql)?.exists([key.merchant.as_str(), key.branch.as_str(), collection.as_str(), id])?)
}

fn hash_fits(conn: &Connection, entry: &HeadEntry, collection: &Collection, id: &str) -> Result<bool, StoreError> {
    let sql = "SELECT row, hash FROM mirror WHERE head = ?1 AND collection = ?2 AND id = ?3 AND row IS NOT NULL";
    let mut statement = conn.prepare_cached(sql)?;
    let fits = statement.query_row(params![entry.n, collection.as_str(), id], |row| {
        let expect = RowHash::of(collection, id, row.get_ref(0)?.as_str()?);
        Ok(mirror::hash(row, 1).is_ok_and(|stored| stored == expect))
    });
    Ok(fits.optional()?.unwrap_or(true))
}

fn sum(conn: &Connection, head: i64, collection: &Collection) -> Result<(Digest, u64), StoreError> {
    let mut statement = conn.prepare_cached("SELECT hash FROM mirror WHERE head = ?1 AND collection = ?2 AND row IS NOT NULL")?;
    let mut rows = statement.query(params![head, collection.as_str()])?;
    let (mut digest, mut count) = (Digest::EMPTY, 0);
    while let Some(row) = rows.next()? {
        // A hash that is none was found by its row.
        digest = mirror::hash(row, 0).map_or(digest, |hash| digest.with(hash));
        count += 1;
    }
    Ok((digest, count))
}

fn check_sum(conn: &Connection, key: &BranchKey, entry: &HeadEntry, collection: &Collection, found: &mut Found) -> Result<(), StoreError> {
    let (digest, rows) = sum(conn, entry.n, collection)?;
    let stored = entry.state.collections.get(collection);
    let fits = stored.is_some_and(|stored| stored.digest == digest && stored.rows == rows);
    let spoilt_here = found.spoilt.iter().any(|place| place.key == *key && place.collection == *collection);
    if !fits && !spoilt_here {
        found.report.mended += 1;
        found.unsummed.push((key.clone(), collection.clone()));
    }
    Ok(())
}

/// Marks what differs and mends what does not add up.
pub(super) fn mend(work: &mut Work<'_>, found: Found) -> Result<SweepReport, StoreError> {
    let Found { report, differing, spoilt, mut unsummed } = found;
    let sql = "INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES (?1, ?2, ?3, ?4)";
    for place in &differing {
        let (merchant, branch) = (place.key.merchant.as_str(), place.key.branch.as_str());
        work.conn.prepare_cached(sql)?.execute([place.collection.as_str(), merchant, branch, &place.id])?;
    }
    for place in &spoilt {
        let entry = mirror::load_head(work.conn, &place.key)?.ok_or_else(|| damaged("a mirror", "no head"))?;
        rehash(work, &entry, place)?;
        unsummed.push((place.key.clone(), place.collection.clone()));
    }
    unsummed.sort();
    unsummed.dedup();
    for (key, collection) in &unsummed {
        resum(work, key, collection)?;
    }
    if let Some(first) = differing.first().or(spoilt.first()) {
        let detail = format!(
            "{} rows differed from their source and {} did not fit their own hash, first {} {:?}; they are corrected. Was a trigger removed or the mirror edited?",
            differing.len(),
            spoilt.len(),
            first.collection,
            first.id
        );
        alarms::raise(work.conn, work.now, "sweep_difference", Some(&first.key), None, &detail)?;
    } else if let Some((key, collection)) = unsummed.first() {
        let detail = format!("the digest of {collection} was not the sum of its rows; it is corrected and devices repair themselves");
        alarms::raise(work.conn, work.now, "sweep_difference", Some(key), None, &detail)?;
    }
    Ok(report)
}

fn rehash(work: &Work<'_>, entry: &HeadEntry, place: &Place) -> Result<(), StoreError> {
    let sql = "SELECT row FROM mirror WHERE head = ?1 AND collection = ?2 AND id = ?3 AND row IS NOT NULL";
    let mut statement = work.conn.prepare_cached(sql)?;
    let row: Option<Box<str>> = statement.query_row(params![entry.n, place.collection.as_str(), place.id], |row| row.get(0)).optional()?;
    if let Some(text) = row {
        let hash = Stored::new(&place.collection, &place.id, text).hash.to_bytes();
        let sql = "UPDATE mirror SET hash = ?4 WHERE head = ?1 AND collection = ?2 AND id = ?3";
        work.conn.prepare_cached(sql)?.execute(params![entry.n, place.collection.as_str(), place.id, &hash[..]])?;
    }
    Ok(())
}

fn resum(work: &mut Work<'_>, key: &BranchKey, collection: &Collection) -> Result<(), StoreError> {
    let Some(mut entry) = mirror::load_head(work.conn, key)? else { return Ok(()) };
    let (digest, rows) = sum(work.conn, entry.n, collection)?;
    let state = entry.state.collections.entry(collection.clone()).or_default();
    (state.digest, state.rows) = (digest, rows);
    mirror::store_head(work.conn, &entry, std::slice::from_ref(collection))?;
    work.reload.insert(key.clone());
    Ok(())
}
