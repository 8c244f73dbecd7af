//! What the writer does about the findings of a sweep.

use mstore_engine::sequence::Stored;
use mstore_protocol::{BranchKey, Collection};
use rusqlite::{OptionalExtension as _, params};

use super::{
    super::{error::damaged, job::Work, mirror},
    Found, Place, sum,
};
use crate::{StoreError, SweepReport, cases::alarms, failpoint};

/// Marks what differs, mends what does not add up, says so once, and clears what is over.
pub(in crate::sqlite) fn mend(work: &mut Work<'_>, mut found: Found) -> Result<SweepReport, StoreError> {
    for place in &found.unreadable {
        let sql = "UPDATE mirror SET row = '{}' WHERE head = (SELECT n FROM head WHERE merchant_id = ?1 AND branch_id = ?2) AND collection = ?3 AND id = ?4";
        work.conn.prepare_cached(sql)?.execute(names(place))?;
    }
    for place in found.differing.iter().chain(&found.unreadable) {
        let sql = "INSERT INTO mark (merchant_id, branch_id, collection, id) VALUES (?1, ?2, ?3, ?4)";
        work.conn.prepare_cached(sql)?.execute(names(place))?;
    }
    for place in found.spoilt.iter().chain(&found.unreadable) {
        rehash(work, place)?;
        found.unsummed.push((place.key.clone(), place.collection.clone()));
    }
    for (key, collection, id) in &found.nameless {
        forget_nameless(work, key, collection, id)?;
        found.unsummed.push((key.clone(), collection.clone()));
    }
    found.unsummed.sort();
    found.unsummed.dedup();
    for (key, collection) in &found.unsummed {
        resum(work, key, collection)?;
    }
    for (place, why) in &found.bad {
        alarms::quarantine(work.conn, work.now, &place.key, &alarms::row(place.collection.as_str(), &place.id), why)?;
    }
    tell(work, &found)?;
    for alarm in &found.over {
        alarms::clear_one(work.conn, work.now, *alarm)?;
    }
    for key in &found.clean {
        alarms::clear(work.conn, work.now, alarms::DIFFERENCE, key)?;
    }
    failpoint::point("sweep_mended");
    Ok(found.report)
}

fn names(place: &Place) -> [&str; 4] {
    [place.key.merchant.as_str(), place.key.branch.as_str(), place.collection.as_str(), &place.id]
}

/// One alarm for as long as differences are found.
fn tell(work: &Work<'_>, found: &Found) -> Result<(), StoreError> {
    let Found { differing, spoilt, unreadable, unsummed, .. } = found;
    let spoilt_count = spoilt.len() + unreadable.len();
    if let Some(first) = differing.iter().chain(spoilt).chain(unreadable).next() {
        let detail = format!(
            "{} rows differed from their source and {spoilt_count} did not fit their own hash, first {} {:?}; they are corrected. Was a trigger removed or the mirror edited?",
            differing.len(),
            first.collection,
            first.id
        );
        alarms::raise_unless_open(work.conn, work.now, alarms::DIFFERENCE, &first.key, &detail)?;
    } else if let Some((key, collection)) = unsummed.first() {
        let detail = format!("the digest of {collection} was not the sum of its rows; it is corrected and devices repair themselves");
        alarms::raise_unless_open(work.conn, work.now, alarms::DIFFERENCE, key, &detail)?;
    }
    Ok(())
}

fn head_of(work: &Work<'_>, key: &BranchKey) -> Result<mirror::HeadEntry, StoreError> {
    mirror::load_head(work.conn, key)?.ok_or_else(|| damaged("a mirror", "no head"))
}

fn rehash(work: &Work<'_>, place: &Place) -> Result<(), StoreError> {
    let head = head_of(work, &place.key)?.n;
    let sql = "SELECT row FROM mirror WHERE head = ?1 AND collection = ?2 AND id = ?3 AND row IS NOT NULL";
    let mut statement = work.conn.prepare_cached(sql)?;
    let row: Option<Box<str>> = statement.query_row(params![head, place.collection.as_str(), place.id], |row| row.get(0)).optional()?;
    if let Some(text) = row {
        let hash = Stored::new(&place.collection, &place.id, text).hash.to_bytes();
        let sql = "UPDATE mirror SET hash = ?4 WHERE head = ?1 AND collection = ?2 AND id = ?3";
        work.conn.prepare_cached(sql)?.execute(params![head, place.collection.as_str(), place.id, &hash[..]])?;
    }
    Ok(())
}

fn forget_nameless(work: &Work<'_>, key: &BranchKey, collection: &Collection, id: &[u8]) -> Result<(), StoreError> {
    let head = head_of(work, key)?.n;
    let sql = "DELETE FROM mirror WHERE head = ?1 AND collection = ?2 AND id = CAST(?3 AS TEXT)";
    if work.conn.prepare_cached(sql)?.execute(params![head, collection.as_str(), id])? == 0 {
        let why = "no device can be given it";
        alarms::quarantine(work.conn, work.now, key, &alarms::row_without_id(collection.as_str()), why)?;
    }
    Ok(())
}

fn resum(work: &mut Work<'_>, key: &BranchKey, collection: &Collection) -> Result<(), StoreError> {
    let mut entry = head_of(work, key)?;
    let (digest, rows) = sum(work.conn, entry.n, collection)?;
    let state = entry.state.collections.entry(collection.clone()).or_default();
    (state.digest, state.rows) = (digest, rows);
    mirror::store_head(work.conn, &entry, std::slice::from_ref(collection))?;
    work.reload.insert(key.clone());
    Ok(())
}
