//! What is done about the findings of a sweep.

use mstore_protocol::{BranchKey, Collection, Digest, RowHash};

use super::{Found, Place};
use crate::{
    StoreError,
    cases::{Work, alarms},
    failpoint,
    sql::args,
};

/// Marks what differs, mends what does not add up, says so once, and clears what is over.
pub(super) fn mend(work: &mut Work<'_>, found: &Found) -> Result<(), StoreError> {
    let (sql, now) = (work.sql, work.now);
    for place in &found.differing {
        let mark = "INSERT INTO mark (merchant_id, branch_id, collection, id) VALUES (?1, ?2, ?3, ?4)";
        sql.execute(mark, args![place.key.merchant.as_str(), place.key.branch.as_str(), place.collection.as_str(), place.id])?;
    }
    let mut unsummed: Vec<(BranchKey, Collection)> = found.unsummed.clone();
    for (place, fitting) in &found.spoilt {
        // Only if it still has this text: the sequencer may have been faster.
        let rehash = "UPDATE mirror SET hash = ?5 WHERE head = (SELECT n FROM head WHERE merchant_id = ?1 AND branch_id = ?2) AND collection = ?3 AND id = ?4 AND row = ?6";
        let hash = fitting.hash.to_bytes();
        let (merchant, branch) = (place.key.merchant.as_str(), place.key.branch.as_str());
        sql.execute(rehash, args![merchant, branch, place.collection.as_str(), place.id, &hash[..], &fitting.text])?;
        unsummed.push((place.key.clone(), place.collection.clone()));
    }
    unsummed.sort();
    unsummed.dedup();
    for (key, collection) in &unsummed {
        resum(work, key, collection)?;
    }
    for (place, why) in &found.bad {
        alarms::quarantine(sql, now, &place.key, &alarms::row(place.collection.as_str(), &place.id), why)?;
    }
    tell(work, found)?;
    for alarm in &found.over {
        alarms::clear_one(sql, now, *alarm)?;
    }
    for key in &found.clean {
        alarms::clear(sql, now, alarms::DIFFERENCE, key)?;
    }
    failpoint::point("sweep_mended");
    Ok(())
}

/// One alarm for as long as differences are found.
fn tell(work: &Work<'_>, found: &Found) -> Result<(), StoreError> {
    let Found { differing, spoilt, unsummed, .. } = found;
    let first: Option<&Place> = differing.first().or(spoilt.first().map(|(place, _)| place));
    if let Some(first) = first {
        let detail = format!(
            "{} rows differed from their source and {} did not fit their own hash, first {} {:?}; they are corrected. Was a trigger removed or the mirror edited?",
            differing.len(),
            spoilt.len(),
            first.collection,
            first.id
        );
        alarms::raise_unless_open(work.sql, work.now, alarms::DIFFERENCE, &first.key, &detail)?;
    } else if let Some((key, collection)) = unsummed.first() {
        let detail = format!("the digest of {collection} was not the sum of its rows; it is corrected and devices repair themselves");
        alarms::raise_unless_open(work.sql, work.now, alarms::DIFFERENCE, key, &detail)?;
    }
    Ok(())
}

/// Sums again while nobody can commit in the branch: the sequencer writes the same row of `head` and comes after.
fn resum(work: &mut Work<'_>, key: &BranchKey, collection: &Collection) -> Result<(), StoreError> {
    let lock = "UPDATE head SET is_untold = 1 WHERE merchant_id = ?1 AND branch_id = ?2 RETURNING n";
    let Some(head) = work.sql.row(lock, args![key.merchant.as_str(), key.branch.as_str()], |row| row.integer(0))? else { return Ok(()) };
    let (mut digest, mut rows) = (Digest::EMPTY, 0_u64);
    let hashes = "SELECT hash FROM mirror WHERE head = ?1 AND collection = ?2 AND row IS NOT NULL";
    work.sql.query(hashes, args![head, collection.as_str()], &mut |row| {
        digest = row.array::<16>(0).map_or(digest, |hash| digest.with(RowHash::from_bytes(hash)));
        rows += 1;
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    let store = "INSERT INTO head_collection (head, collection, digest, last_seq, rows) VALUES (?1, ?2, ?3, 0, ?4)
        ON CONFLICT (head, collection) DO UPDATE SET digest = excluded.digest, rows = excluded.rows";
    work.sql.execute(store, args![head, collection.as_str(), digest.to_string(), rows])?;
    work.touched.insert(key.clone());
    Ok(())
}
