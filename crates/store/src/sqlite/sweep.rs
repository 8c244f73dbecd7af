//! The background sweep: compares source and mirror slice by slice, so that a change no trigger saw does not stay unseen.
//!
//! Reading happens beside the writer; what differs is marked and goes through the sequencer like any other change. It trusts nothing that a
//! hand with SQL could have written: not hashes, not sums, not that a text is one.

use mstore_protocol::{BranchKey, Collection, Digest, PersonalData, RowHash};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    mirror::{self, HeadEntry},
    sequencer::{self, Compared},
};
use crate::{StoreError, SweepReport, cases::alarms, sweep_position::Position};

mod mend;

pub(super) use mend::mend;

/// What a slice found.
#[derive(Default)]
pub(super) struct Found {
    /// For the caller.
    pub(super) report: SweepReport,
    differing: Vec<Place>,
    /// Mirror rows that do not fit their hash.
    spoilt: Vec<Place>,
    /// Mirror rows whose text is none.
    unreadable: Vec<Place>,
    /// Source rows that cannot be rows, and about which nobody was told yet.
    bad: Vec<(Place, String)>,
    /// Rows whose id is not text, which no device can have.
    nameless: Vec<(BranchKey, Collection, Vec<u8>)>,
    /// Collections whose digest is not the sum of their hashes.
    unsummed: Vec<(BranchKey, Collection)>,
    /// Alarms that are over.
    over: Vec<u64>,
    /// Branches that agree from their first row to their last, with an alarm that says otherwise.
    clean: Vec<BranchKey>,
}

struct Place {
    key: BranchKey,
    collection: Collection,
    id: String,
}

impl Found {
    /// Whether the writer has something to do.
    pub(super) fn needs_writing(&self) -> bool {
        let places = self.differing.len() + self.spoilt.len() + self.unreadable.len() + self.bad.len() + self.nameless.len();
        places + self.unsummed.len() + self.over.len() + self.clean.len() > 0
    }

    fn is_clean(&self) -> bool {
        self.differing.is_empty() && self.spoilt.is_empty() && self.unreadable.is_empty() && self.unsummed.is_empty()
    }
}

/// One branch's side of a slice.
struct Look<'a> {
    conn: &'a Connection,
    key: &'a BranchKey,
    entry: &'a HeadEntry,
    has_marks: bool,
    personal: &'a PersonalData,
}

/// Compares the next rows.
pub(super) fn slice(conn: &Connection, personal: &PersonalData, from: Option<&str>, rows_max: usize) -> Result<Found, StoreError> {
    let mut at = from.and_then(Position::parse).unwrap_or_default();
    let mut found = Found::default();
    let has_marks: bool = conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM mark)")?.query_row([], |row| row.get(0))?;
    let (mut left, begin) = (rows_max.max(1), at.head);
    for (key, entry) in mirror::load_heads(conn)?.into_iter().filter(|(_, entry)| entry.n >= begin) {
        if entry.n > at.head {
            at = Position { head: entry.n, ..Position::default() };
        }
        let look = Look { conn, key: &key, entry: &entry, has_marks, personal };
        for collection in Collection::built_in() {
            if collection.as_str() < at.collection.as_str() {
                continue;
            }
            if collection.as_str() > at.collection.as_str() {
                at.collection = collection.as_str().to_owned();
                at.after.clear();
            }
            if left == 0 {
                found.report.next = Some(at.to_string());
                return Ok(found);
            }
            let read = look.rows(&collection, &mut at, left, &mut found)?;
            if read == left {
                found.report.next = Some(at.to_string());
                return Ok(found);
            }
            left -= read;
            look.check_sum(&collection, &mut found)?;
            at.has_differences |= !found.is_clean();
        }
        look.end(&at, &mut found)?;
    }
    Ok(found)
}

/// Compares one collection of a branch, all of it: a device says that it does not add up.
pub(super) fn collection(conn: &Connection, personal: &PersonalData, key: &BranchKey, name: &Collection) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let Some(entry) = mirror::load_head(conn, key)? else { return Ok(found) };
    let look = Look { conn, key, entry: &entry, has_marks: true, personal };
    look.rows(name, &mut Position::default(), usize::MAX, &mut found)?;
    look.check_sum(name, &mut found)?;
    Ok(found)
}

impl Look<'_> {
    /// Compares up to `limit` rows after a position, which moves along; gives how many.
    fn rows(&self, collection: &Collection, at: &mut Position, limit: usize, found: &mut Found) -> Result<usize, StoreError> {
        let ids = self.ids(collection, &at.after, limit)?;
        for id in &ids {
            match std::str::from_utf8(id) {
                Ok(id) => self.row(collection, id, found)?,
                Err(_) => {
                    at.has_nameless = true;
                    self.nameless(collection, id, found)?;
                }
            }
        }
        at.has_differences |= !found.is_clean();
        found.report.compared += ids.len() as u64;
        let count = ids.len();
        if let Some(last) = ids.into_iter().last() {
            at.after = last;
        }
        Ok(count)
    }

    /// Ids as bytes: what is in the file may not be text.
    fn ids(&self, name: &Collection, after: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let source = match name.as_str() {
            "product" => "SELECT id FROM product WHERE merchant_id = ?1 AND id > CAST(?3 AS TEXT)",
            "inventory" => "SELECT id FROM inventory WHERE merchant_id = ?1 AND branch_id = ?2 AND id > CAST(?3 AS TEXT)",
            "transaction" => {
                "SELECT id FROM transactions WHERE merchant_id = ?1 AND branch_id = ?2 AND id > CAST(?3 AS TEXT)
                   AND recorded_at >= coalesce((SELECT cutoff FROM transaction_cutoff WHERE merchant_id = ?1),
                     (SELECT value FROM setting WHERE name = 'transaction_cutoff'))"
            }
            _unknown => "SELECT id FROM product WHERE ?1 IS NULL",
        };
        // ?2 is used in both arms so that every statement has the same parameters.
        let sql = format!(
            "{source} UNION SELECT id FROM mirror WHERE head = ?4 AND collection = ?5 AND id > CAST(?3 AS TEXT) AND row IS NOT NULL AND ?2 IS NOT NULL
             ORDER BY id LIMIT ?6"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (merchant, branch) = (self.key.merchant.as_str(), self.key.branch.as_str());
        let ids = statement.query_map(params![merchant, branch, after, self.entry.n, name.as_str(), limit], |row| {
            Ok(row.get_ref(0)?.as_bytes().map_err(rusqlite::Error::from)?.to_vec())
        })?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    fn compare(&self, collection: &str, id: &str) -> Result<Compared, StoreError> {
        sequencer::compare(self.conn, self.entry, self.key, (collection, id), self.personal)
    }

    fn row(&self, collection: &Collection, id: &str, found: &mut Found) -> Result<(), StoreError> {
        let place = || Place { key: self.key.clone(), collection: collection.clone(), id: id.to_owned() };
        match self.fit(collection, id)? {
            Fit::Fits => {}
            Fit::Spoilt => {
                found.report.mended += 1;
                found.spoilt.push(place());
            }
            Fit::Unreadable => {
                found.report.mended += 1;
                found.unreadable.push(place());
                return Ok(());
            }
        }
        let compared = self.compare(collection.as_str(), id)?;
        let differs = !matches!(compared, Compared::Same);
        if !differs || (self.has_marks && self.is_marked(collection, id)?) {
            return Ok(());
        }
        found.report.differing += 1;
        // To mark a row that is quarantined would not help it; somebody must be told.
        if let Compared::Bad(why) = compared {
            if !alarms::is_open(self.conn, alarms::QUARANTINED, self.key, &alarms::row(collection.as_str(), id))? {
                found.bad.push((place(), why));
            }
        } else {
            found.differing.push(place());
        }
        Ok(())
    }

    /// Nobody can have such a row: it goes from the mirror, and is alarmed when the source has it.
    fn nameless(&self, collection: &Collection, id: &[u8], found: &mut Found) -> Result<(), StoreError> {
        let sql = "SELECT 1 FROM mirror WHERE head = ?1 AND collection = ?2 AND id = CAST(?3 AS TEXT)";
        let is_mirrored = self.conn.prepare_cached(sql)?.exists(params![self.entry.n, collection.as_str(), id])?;
        found.report.differing += 1;
        let beginning = alarms::row_without_id(collection.as_str());
        if is_mirrored || !alarms::is_open(self.conn, alarms::QUARANTINED, self.key, &beginning)? {
            found.nameless.push((self.key.clone(), collection.clone(), id.to_vec()));
        }
        Ok(())
    }

    /// A change that waits to be sequenced is no difference.
    fn is_marked(&self, collection: &Collection, id: &str) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM mark WHERE merchant_id = ?1 AND branch_id IN (?2, '*') AND collection = ?3 AND id = ?4";
        Ok(self.conn.prepare_cached(sql)?.exists([self.key.merchant.as_str(), self.key.branch.as_str(), collection.as_str(), id])?)
    }

    fn fit(&self, collection: &Collection, id: &str) -> Result<Fit, StoreError> {
        let sql = "SELECT row, hash FROM mirror WHERE head = ?1 AND collection = ?2 AND id = ?3 AND row IS NOT NULL";
        let mut statement = self.conn.prepare_cached(sql)?;
        let fit = statement.query_row(params![self.entry.n, collection.as_str(), id], |row| {
            let Ok(text) = row.get_ref(0)?.as_str() else { return Ok(Fit::Unreadable) };
            let expect = RowHash::of(collection, id, text);
            Ok(if mirror::hash(row, 1).is_ok_and(|stored| stored == expect) { Fit::Fits } else { Fit::Spoilt })
        });
        Ok(fit.optional()?.unwrap_or(Fit::Fits))
    }

    fn check_sum(&self, collection: &Collection, found: &mut Found) -> Result<(), StoreError> {
        let (digest, rows) = sum(self.conn, self.entry.n, collection)?;
        let stored = self.entry.state.collections.get(collection);
        let fits = stored.is_some_and(|stored| stored.digest == digest && stored.rows == rows);
        let here = |place: &Place| place.key == *self.key && place.collection == *collection;
        let spoilt_here = found.spoilt.iter().chain(&found.unreadable).any(here);
        if !fits && !spoilt_here {
            found.report.mended += 1;
            found.unsummed.push((self.key.clone(), collection.clone()));
        }
        Ok(())
    }

    /// The branch was compared from its first row to here: which alarms are over?
    fn end(&self, at: &Position, found: &mut Found) -> Result<(), StoreError> {
        for (alarm, collection, id) in alarms::quarantined(self.conn, self.key)? {
            let is_over = match id {
                Some(id) => !matches!(self.compare(&collection, &id)?, Compared::Bad(_)),
                None => !at.has_nameless,
            };
            if is_over {
                found.over.push(alarm);
            }
        }
        if !at.has_differences && alarms::is_open(self.conn, alarms::DIFFERENCE, self.key, "")? {
            found.clean.push(self.key.clone());
        }
        Ok(())
    }
}

/// Whether a mirror row is what its hash says.
enum Fit {
    Fits,
    Spoilt,
    Unreadable,
}

/// The sum of a collection's hashes and how many rows there are.
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
