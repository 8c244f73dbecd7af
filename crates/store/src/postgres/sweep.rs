//! The background sweep: compares source and mirror slice by slice, so that a change no trigger saw does not stay unseen. Each server looks at the branches
//! that it sequences.
//!
//! Reading happens beside the sequencer; what differs is marked and goes through it like any other change. It trusts nothing that a hand with SQL could have
//! written: not hashes, not sums.

use std::collections::BTreeSet;

use deadpool_postgres::{GenericClient as _, Object, Transaction};
use mstore_engine::sequence::Stored;
use mstore_protocol::{BranchKey, Collection, Digest};
use tokio_postgres::types::ToSql;

use super::{
    PgStore,
    attach::Live,
    changes::consistent,
    mirror::{self, HeadEntry, hash, signed},
    sequencer::row_of,
    source::{self, Reader as _, Wanted},
};
use crate::{
    StoreError, SweepReport,
    cases::{Carrier as _, Size, alarms},
    source_row::SourceRow,
    sweep_position::Position,
};

mod mend;

/// Rows compared by one pair of statements.
const ROWS_PER_STATEMENT: usize = 2_000;
/// Hashes of one portion.
const PORTION: i32 = 10_000;

/// What a slice found.
#[derive(Default, Clone)]
pub(super) struct Found {
    /// For the caller.
    report: SweepReport,
    differing: Vec<Place>,
    /// Mirror rows that do not fit their hash.
    spoilt: Vec<(Place, Stored)>,
    /// Source rows that cannot be rows, and about which nobody was told yet.
    bad: Vec<(Place, String)>,
    /// Collections whose digest is not the sum of their hashes.
    unsummed: Vec<(BranchKey, Collection)>,
    /// Alarms that are over.
    over: Vec<u64>,
    /// Branches that agree from their first row to their last, with an alarm that says otherwise.
    clean: Vec<BranchKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    key: BranchKey,
    collection: Collection,
    id: String,
}

impl Found {
    fn needs_writing(&self) -> bool {
        self.differing.len() + self.spoilt.len() + self.bad.len() + self.unsummed.len() + self.over.len() + self.clean.len() > 0
    }

    fn is_clean(&self) -> bool {
        self.differing.is_empty() && self.spoilt.is_empty() && self.unsummed.is_empty()
    }
}

/// Compares the next rows, and has mended what was found: first what devices have, then what attached tables hold.
pub(super) async fn slice(store: &PgStore, from: Option<&str>, rows_max: usize) -> Result<SweepReport, StoreError> {
    let mut client = store.shared.reader().await?;
    if let Some(of_attached) = from.and_then(|from| from.strip_prefix(ATTACHED)) {
        return attached(&mut client, store, of_attached, rows_max).await;
    }
    let found = found(&mut client, store, from, rows_max).await?;
    drop(client);
    let mut report = mended(store, found).await?;
    report.next = report.next.or_else(|| Some(ATTACHED.to_owned()));
    Ok(report)
}

/// The second half of a sweep begins with this.
const ATTACHED: &str = "attached ";

/// Compares the next rows of attached tables, and marks what differs.
async fn attached(client: &mut Object, store: &PgStore, from: &str, rows_max: usize) -> Result<SweepReport, StoreError> {
    let transaction = client.transaction().await?;
    let swept = store.shared.attached.sweep(transaction.plain(), from, signed(rows_max.max(1) as u64)).await?;
    transaction.commit().await?;
    Ok(SweepReport {
        compared: swept.compared,
        differing: swept.differing,
        next: swept.next.map(|at| format!("{ATTACHED}{at}")),
        ..SweepReport::default()
    })
}

/// Compares one collection of a branch, all of it: a device says that it does not add up.
pub(super) async fn collection(store: &PgStore, key: &BranchKey, name: &Collection) -> Result<SweepReport, StoreError> {
    let mut client = store.shared.reader().await?;
    let mut found = Found::default();
    let read = consistent(&mut client).await?;
    if let Some(entry) = mirror::head(&read, key).await? {
        let look = Look { read: &read, attached: &store.shared.attached, key, entry: &entry };
        look.rows(name, &mut Position::default(), usize::MAX, &mut found).await?;
        look.check_sum(name, &mut found).await?;
    }
    drop(read);
    drop(client);
    mended(store, found).await
}

async fn mended(store: &PgStore, found: Found) -> Result<SweepReport, StoreError> {
    let report = found.report.clone();
    if found.needs_writing() {
        store.carry(Size::Large, move |work| mend::mend(work, &found), |(), _| ()).await?;
    }
    Ok(report)
}

async fn found(client: &mut Object, store: &PgStore, from: Option<&str>, rows_max: usize) -> Result<Found, StoreError> {
    let mut at = from.and_then(Position::parse).unwrap_or_default();
    let mut found = Found::default();
    let (mut left, begin) = (rows_max.max(1), at.head);
    let read = consistent(client).await?;
    for (key, entry) in mirror::heads_of(&read, &store.shared.held().numbers(), begin - 1).await? {
        if entry.n > at.head {
            at = Position { head: entry.n, ..Position::default() };
        }
        let look = Look { read: &read, attached: &store.shared.attached, key: &key, entry: &entry };
        for collection in entry.state.collections.keys() {
            if collection.as_str() < at.collection.as_str() {
                continue;
            }
            if collection.as_str() > at.collection.as_str() {
                collection.as_str().clone_into(&mut at.collection);
                at.after.clear();
            }
            let compared = if left == 0 { left } else { look.rows(collection, &mut at, left, &mut found).await? };
            if compared == left {
                found.report.next = Some(at.to_string());
                return Ok(found);
            }
            left -= compared;
            look.check_sum(collection, &mut found).await?;
            at.has_differences |= !found.is_clean();
        }
        look.end(&at, &mut found).await?;
    }
    Ok(found)
}

/// One branch's side of a slice.
struct Look<'a> {
    read: &'a Transaction<'a>,
    attached: &'a Live,
    key: &'a BranchKey,
    entry: &'a HeadEntry,
}

impl Look<'_> {
    fn place(&self, collection: &Collection, id: &str) -> Place {
        Place { key: self.key.clone(), collection: collection.clone(), id: id.to_owned() }
    }

    /// Compares up to `limit` rows after a position, which moves along; gives how many.
    async fn rows(&self, collection: &Collection, at: &mut Position, limit: usize, found: &mut Found) -> Result<usize, StoreError> {
        let mut compared = 0;
        while compared < limit {
            let wanted = ROWS_PER_STATEMENT.min(limit - compared);
            let ids = self.ids(collection, &String::from_utf8_lossy(&at.after), wanted).await?;
            self.compare(collection, &ids, found).await?;
            compared += ids.len();
            found.report.compared += ids.len() as u64;
            if let Some(last) = ids.last() {
                at.after = last.as_bytes().to_vec();
            }
            if ids.len() < wanted {
                break;
            }
        }
        at.has_differences |= !found.is_clean();
        Ok(compared)
    }

    async fn ids(&self, name: &Collection, after: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let source = match name.as_str() {
            "product" => "SELECT id FROM product WHERE merchant_id = $1 AND id > $3 AND $2::text IS NOT NULL",
            "inventory" => "SELECT id FROM inventory WHERE merchant_id = $1 AND branch_id = $2 AND id > $3",
            "transaction" => {
                "SELECT id FROM transactions WHERE merchant_id = $1 AND branch_id = $2 AND id > $3
                   AND recorded_at >= coalesce((SELECT cutoff FROM transaction_cutoff WHERE merchant_id = $1),
                     (SELECT value FROM setting WHERE name = 'transaction_cutoff'))"
            }
            _attached => return Ok(Vec::new()),
        };
        // Each side in its own order and no further than wanted, so that neither is read to its end.
        let sql = format!(
            "SELECT id FROM (({source} ORDER BY id LIMIT $6) UNION
              (SELECT id FROM mirror WHERE head = $4 AND collection = $5 AND id > $3 AND row IS NOT NULL ORDER BY id LIMIT $6)) ids ORDER BY id LIMIT $6"
        );
        let statement = self.read.prepare_cached(&sql).await?;
        let (merchant, branch, limit) = (self.key.merchant.as_str(), self.key.branch.as_str(), signed(limit as u64));
        let values: [&(dyn ToSql + Sync); 6] = [&merchant, &branch, &after, &self.entry.n, &name.as_str(), &limit];
        Ok(self.read.query(&statement, &values).await?.iter().map(|row| row.get(0)).collect())
    }

    async fn compare(&self, collection: &Collection, ids: &[String], found: &mut Found) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let wanted: Vec<Wanted<'_>> = ids.iter().map(|id| Wanted { key: self.key, collection: collection.as_str(), id }).collect();
        let (new, old) = source::with(self.read, self.attached, &wanted, mirror::rows(self.read, &wanted)).await?;
        let (mut differing, mut bad) = (Vec::new(), Vec::new());
        for ((id, new), old) in ids.iter().zip(new).zip(old) {
            if let Some((text, hash)) = &old {
                let fitting = Stored::new(collection, id, text.clone());
                if *hash != Some(fitting.hash) {
                    found.report.mended += 1;
                    found.spoilt.push((self.place(collection, id), fitting));
                }
            }
            match new {
                SourceRow::Bad(why) => bad.push((id, why)),
                SourceRow::Kept => {}
                SourceRow::Is(text) if old.as_ref().is_some_and(|(stored, _)| *stored == text) => {}
                SourceRow::Gone | SourceRow::Expired if old.is_none() => {}
                SourceRow::Is(_) | SourceRow::Gone | SourceRow::Expired => differing.push(id),
            }
        }
        if differing.is_empty() && bad.is_empty() {
            return Ok(());
        }
        let marked = self.marked(collection).await?;
        for id in differing.into_iter().filter(|id| !marked.contains(*id)) {
            found.report.differing += 1;
            found.differing.push(self.place(collection, id));
        }
        let known = self.quarantined().await?;
        for (id, why) in bad.into_iter().filter(|(id, _)| !marked.contains(*id)) {
            found.report.differing += 1;
            // To mark a row that is quarantined would not help it; somebody must be told.
            if !known.iter().any(|(_, of, row)| of == collection.as_str() && row.as_deref() == Some(id)) {
                found.bad.push((self.place(collection, id), why));
            }
        }
        Ok(())
    }

    /// A change that waits to be sequenced is no difference.
    async fn marked(&self, collection: &Collection) -> Result<BTreeSet<String>, StoreError> {
        let sql = "SELECT DISTINCT m.id FROM mark m LEFT JOIN head h ON h.n = $4 WHERE m.merchant_id = $1 AND m.collection = $3
            AND (m.branch_id = $2 OR (m.branch_id = '*' AND NOT pg_visible_in_snapshot(m.xid, h.snapshot)))";
        let statement = self.read.prepare_cached(sql).await?;
        let (merchant, branch) = (self.key.merchant.as_str(), self.key.branch.as_str());
        let rows = self.read.query(&statement, &[&merchant, &branch, &collection.as_str(), &self.entry.n]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn quarantined(&self) -> Result<Vec<(u64, String, Option<String>)>, StoreError> {
        let sql = "SELECT id, detail FROM alarm WHERE cleared_at IS NULL AND kind = $1 AND merchant_id = $2 AND branch_id = $3";
        let statement = self.read.prepare_cached(sql).await?;
        let rows = self.read.query(&statement, &[&alarms::QUARANTINED, &self.key.merchant.as_str(), &self.key.branch.as_str()]).await?;
        Ok(rows.iter().filter_map(|row| row_of(row.get(1)).map(|(collection, id)| (mirror::count(row, 0), collection, id))).collect())
    }

    async fn check_sum(&self, collection: &Collection, found: &mut Found) -> Result<(), StoreError> {
        let sql = "SELECT hash FROM mirror WHERE head = $1 AND collection = $2 AND row IS NOT NULL";
        let statement = self.read.prepare_cached(sql).await?;
        // In portions: a branch may have a million rows, and a database that waits for us for long ends the transaction.
        let portal = self.read.bind(&statement, &[&self.entry.n, &collection.as_str()]).await?;
        let (mut digest, mut count) = (Digest::EMPTY, 0);
        loop {
            let rows = self.read.query_portal(&portal, PORTION).await?;
            if rows.is_empty() {
                break;
            }
            // A hash that is none was found by its row.
            digest = rows.iter().filter_map(|row| hash(row, 0)).fold(digest, Digest::with);
            count += rows.len() as u64;
        }
        let stored = self.entry.state.collections.get(collection);
        let fits = stored.is_some_and(|stored| stored.digest == digest && stored.rows == count);
        let spoilt_here = found.spoilt.iter().any(|(place, _)| place.key == *self.key && place.collection == *collection);
        if !fits && !spoilt_here {
            found.report.mended += 1;
            found.unsummed.push((self.key.clone(), collection.clone()));
        }
        Ok(())
    }

    /// The branch was compared from its first row to here: which alarms are over?
    async fn end(&self, at: &Position, found: &mut Found) -> Result<(), StoreError> {
        for (alarm, collection, id) in self.quarantined().await? {
            let is_over = match &id {
                Some(id) => {
                    let wanted = [Wanted { key: self.key, collection: &collection, id }];
                    !matches!(source::rows(self.read, self.attached, &wanted).await?.as_slice(), [SourceRow::Bad(_) | SourceRow::Kept])
                }
                None => true,
            };
            if is_over {
                found.over.push(alarm);
            }
        }
        if at.has_differences {
            return Ok(());
        }
        let sql = "SELECT 1 FROM alarm WHERE cleared_at IS NULL AND kind = $1 AND merchant_id = $2 AND branch_id = $3";
        let statement = self.read.prepare_cached(sql).await?;
        let (merchant, branch) = (self.key.merchant.as_str(), self.key.branch.as_str());
        if self.read.query_opt(&statement, &[&alarms::DIFFERENCE, &merchant, &branch]).await?.is_some() {
            found.clean.push(self.key.clone());
        }
        Ok(())
    }
}
