//! The mirror: what devices have, with the numbering that led there. Many branches and rows at once.

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient;
use mstore_engine::sequence::{BranchState, CollectionState, Difference, Stored};
use mstore_protocol::{BranchKey, Collection, Digest, Epoch, Head, RowHash, Tag, Timestamp, bucket_of};
use tokio_postgres::{Error, Row};

use super::{
    error::damaged,
    source::{Wanted, place},
};
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
    /// Since when the branch stands still.
    pub(super) held_since: Option<Timestamp>,
    /// Something else than a commit changed it, and nobody was told.
    pub(super) is_untold: bool,
}

impl HeadEntry {
    /// Of a branch that has none.
    pub(super) fn none(now: Timestamp) -> Self {
        let state = BranchState::new(Epoch::from_bits(0), now);
        Self { n: 0, state, floor: 0, held_since: None, is_untold: false }
    }

    /// As devices see it.
    pub(super) fn head(&self) -> Head {
        Head { held_since: self.held_since, ..self.state.head() }
    }
}

/// What we count never comes near the end of signed numbers.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count column.
pub(super) fn count(row: &Row, i: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(i)).unwrap_or(0)
}

/// A column that is parsed.
pub(super) fn parsed<T, E: std::fmt::Display>(row: &Row, i: usize, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, StoreError> {
    parse(row.get(i)).map_err(|error| damaged(row.columns()[i].name(), error))
}

/// A branch named by two columns.
pub(super) fn key(row: &Row, i: usize) -> Result<BranchKey, StoreError> {
    BranchKey::parse(row.get(i), row.get(i + 1)).map_err(|error| damaged("a branch", error))
}

/// The columns of a head in front of which a query may put others.
const HEAD: &str = "h.n, h.epoch, h.seq, h.tag, h.at, h.floor, h.held_since, h.is_untold";
const COLLECTIONS: &str = "a.names, a.digests, a.last, a.rows";
const OF_HEAD: &str =
    "LEFT JOIN LATERAL (SELECT array_agg(c.collection) AS names, array_agg(c.digest) AS digests, array_agg(c.last_seq) AS last,
    array_agg(c.rows) AS rows FROM head_collection c WHERE c.head = h.n) a ON true";

fn entry(row: &Row, i: usize) -> Result<HeadEntry, StoreError> {
    let state = BranchState {
        seq: count(row, i + 2),
        tag: parsed(row, i + 3, Tag::parse)?,
        ..BranchState::new(parsed(row, i + 1, Epoch::parse)?, parsed(row, i + 4, Timestamp::parse)?)
    };
    let held: Option<&str> = row.get(i + 6);
    let held_since = held.map(Timestamp::parse).transpose().map_err(|error| damaged("a time", error))?;
    let is_untold = row.get::<_, i64>(i + 7) != 0;
    let mut entry = HeadEntry { n: row.get(i), state, floor: count(row, i + 5), held_since, is_untold };
    add_collections(row, i + 8, &mut entry)?;
    Ok(entry)
}

fn add_collections(row: &Row, i: usize, entry: &mut HeadEntry) -> Result<(), StoreError> {
    let names: Option<Vec<&str>> = row.get(i);
    let digests: Option<Vec<&str>> = row.get(i + 1);
    let numbers = |column: usize| row.get::<_, Option<Vec<i64>>>(column);
    let (last, rows) = (numbers(i + 2), numbers(i + 3));
    let (Some(names), Some(digests), Some(last), Some(rows)) = (names, digests, last, rows) else { return Ok(()) };
    for (((name, digest), last_seq), rows) in names.into_iter().zip(digests).zip(last).zip(rows) {
        let unsigned = |count: i64| u64::try_from(count).unwrap_or(0);
        let state = CollectionState {
            digest: Digest::parse(digest).map_err(|error| damaged("a digest", error))?,
            last_seq: unsigned(last_seq),
            rows: unsigned(rows),
        };
        entry.state.collections.insert(Collection::parse(name).map_err(|error| damaged("a collection", error))?, state);
    }
    Ok(())
}

/// A branch that was asked for: whether it exists, and its head.
pub(super) struct Found {
    /// There is such a branch in the source.
    pub(super) exists: bool,
    /// Its head, if it has one.
    pub(super) entry: Option<HeadEntry>,
}

/// Columns of keys for arrays.
pub(super) fn columns<'a>(keys: impl IntoIterator<Item = &'a BranchKey>) -> (Vec<&'a str>, Vec<&'a str>) {
    keys.into_iter().map(|key| (key.merchant.as_str(), key.branch.as_str())).unzip()
}

/// The heads of branches, one answer for each.
pub(super) async fn heads<C: GenericClient>(client: &C, keys: &[BranchKey]) -> Result<Vec<Found>, Failed> {
    let sql = format!(
        "SELECT k.i, b.branch_id IS NOT NULL, {HEAD}, {COLLECTIONS}
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, i)
         LEFT JOIN branch b ON b.merchant_id = k.merchant_id AND b.branch_id = k.branch_id
         LEFT JOIN head h ON h.merchant_id = k.merchant_id AND h.branch_id = k.branch_id {OF_HEAD} ORDER BY k.i"
    );
    let (merchants, branches) = columns(keys);
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&merchants, &branches]).await?;
    let found = rows.iter().map(|row| {
        let has_head = row.get::<_, Option<i64>>(2).is_some();
        Ok(Found { exists: row.get(1), entry: if has_head { Some(entry(row, 2)?) } else { None } })
    });
    Ok(found.collect::<Result<_, StoreError>>()?)
}

/// One branch's head.
pub(super) async fn head<C: GenericClient>(client: &C, key: &BranchKey) -> Result<Option<HeadEntry>, StoreError> {
    let mut found = heads(client, std::slice::from_ref(key)).await.map_err(StoreError::from)?;
    Ok(found.pop().and_then(|found| found.entry))
}

/// All heads of some shards, by number; of branches that come after one.
pub(super) async fn heads_of<C: GenericClient>(client: &C, shards: &[i64], after: i64) -> Result<Vec<(BranchKey, HeadEntry)>, StoreError> {
    let sql = format!(
        "SELECT h.merchant_id, h.branch_id, {HEAD}, {COLLECTIONS} FROM head h {OF_HEAD} WHERE h.shard = ANY($1) AND h.n > $2 ORDER BY h.n"
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&shards, &after]).await?;
    rows.iter().map(|row| Ok((key(row, 0)?, entry(row, 2)?))).collect()
}

/// Makes the heads of new branches.
pub(super) async fn create<C: GenericClient>(client: &C, keys: &[BranchKey], now: Timestamp) -> Result<Vec<HeadEntry>, Error> {
    let states: Vec<BranchState> = keys.iter().map(|_| BranchState::new(Epoch::from_bits(rand::random()), now)).collect();
    let (merchants, branches) = columns(keys);
    let epochs: Vec<String> = states.iter().map(|state| state.epoch.to_string()).collect();
    let (tag, at) = (Tag::NONE.to_string(), now.to_string());
    let sql = "INSERT INTO head (merchant_id, branch_id, epoch, seq, tag, at)
        SELECT k.merchant_id, k.branch_id, k.epoch, 0, $4, $5 FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, epoch, i)
        ORDER BY k.i RETURNING n";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&merchants, &branches, &epochs, &tag, &at]).await?;
    let entries =
        rows.iter().zip(states).map(|(row, state)| HeadEntry { n: row.get(0), state, floor: 0, held_since: None, is_untold: false });
    let entries: Vec<HeadEntry> = entries.collect();
    let built_in = Collection::built_in();
    let changed: Vec<(&HeadEntry, &[Collection])> = entries.iter().map(|entry| (entry, &built_in[..])).collect();
    store_collections(client, &changed).await?;
    Ok(entries)
}

/// Writes the digests of collections.
pub(super) async fn store_collections<C: GenericClient>(client: &C, changed: &[(&HeadEntry, &[Collection])]) -> Result<(), Error> {
    let all = || {
        changed.iter().flat_map(|(entry, names)| names.iter().filter_map(|name| Some((entry.n, name, entry.state.collections.get(name)?))))
    };
    let heads: Vec<i64> = all().map(|(n, ..)| n).collect();
    let names: Vec<&str> = all().map(|(_, name, _)| name.as_str()).collect();
    let digests: Vec<String> = all().map(|(.., of)| of.digest.to_string()).collect();
    let last: Vec<i64> = all().map(|(.., of)| signed(of.last_seq)).collect();
    let rows: Vec<i64> = all().map(|(.., of)| signed(of.rows)).collect();
    let sql = "INSERT INTO head_collection (head, collection, digest, last_seq, rows) SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
        ON CONFLICT (head, collection) DO UPDATE SET digest = excluded.digest, last_seq = excluded.last_seq, rows = excluded.rows";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&heads, &names, &digests, &last, &rows]).await?;
    Ok(())
}

/// A plain join would be planned on the empty table of a new server to read all rows of the head by `mirror_by_seq`, and stay so; OFFSET 0 keeps the
/// subquery one of its own, which only the primary key answers.
const ROWS: &str = "SELECT k.i, m.row, m.hash
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, collection, id, i)
  JOIN head h ON h.merchant_id = k.merchant_id AND h.branch_id = k.branch_id
  CROSS JOIN LATERAL (SELECT m.row, m.hash FROM mirror m
    WHERE m.head = h.n AND m.collection = k.collection AND m.id = k.id AND m.row IS NOT NULL OFFSET 0) m";

/// Rows as devices have them, one for each that is wanted; `None` when they do not.
pub(super) async fn rows<C: GenericClient>(client: &C, wanted: &[Wanted<'_>]) -> Result<Vec<Option<(Box<str>, Option<RowHash>)>>, Error> {
    let (merchants, branches) = columns(wanted.iter().map(|wanted| wanted.key));
    let collections: Vec<&str> = wanted.iter().map(|wanted| wanted.collection).collect();
    let ids: Vec<&str> = wanted.iter().map(|wanted| wanted.id).collect();
    let statement = client.prepare_cached(ROWS).await?;
    let mut found = vec![None; wanted.len()];
    for row in client.query(&statement, &[&merchants, &branches, &collections, &ids]).await? {
        found[place(&row)] = Some((Box::from(row.get::<_, &str>(1)), hash(&row, 2)));
    }
    Ok(found)
}

/// A hash column; one spoilt by hand counts as none.
pub(super) fn hash(row: &Row, i: usize) -> Option<RowHash> {
    row.get::<_, Option<&[u8]>>(i)?.try_into().ok().map(RowHash::from_bytes)
}

/// A mirror row, its hash worked out if it has none: the sweep mends the digest.
pub(super) fn stored(collection: &Collection, id: &str, (text, hash): (Box<str>, Option<RowHash>)) -> Stored {
    match hash {
        Some(hash) => Stored { text, hash },
        None => Stored::new(collection, id, text),
    }
}

/// Writes the rows of commits; a deletion leaves a tombstone.
pub(super) async fn write<C: GenericClient>(client: &C, changes: &[(i64, u64, &Difference)]) -> Result<(), Error> {
    let heads: Vec<i64> = changes.iter().map(|(head, ..)| *head).collect();
    let seqs: Vec<i64> = changes.iter().map(|(_, seq, _)| signed(*seq)).collect();
    let collections: Vec<&str> = changes.iter().map(|(.., of)| of.collection.as_str()).collect();
    let ids: Vec<&str> = changes.iter().map(|(.., of)| &*of.id).collect();
    let buckets: Vec<i64> = changes.iter().map(|(.., of)| i64::from(bucket_of(&of.id))).collect();
    let bytes: Vec<Option<[u8; 16]>> = changes.iter().map(|(.., of)| of.new.as_ref().map(|row| row.hash.to_bytes())).collect();
    let hashes: Vec<Option<&[u8]>> = bytes.iter().map(|hash| hash.as_ref().map(|hash| &hash[..])).collect();
    let rows: Vec<Option<&str>> = changes.iter().map(|(.., of)| of.new.as_ref().map(|row| &*row.text)).collect();
    let sql = "INSERT INTO mirror (head, collection, id, seq, bucket, hash, row)
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bytea[], $7::text[])
        ON CONFLICT (head, collection, id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, row = excluded.row";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&heads, &collections, &ids, &seqs, &buckets, &hashes, &rows]).await?;
    Ok(())
}

/// A failure of the database or of what it holds.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// PostgreSQL said no.
    #[error(transparent)]
    Database(#[from] Error),
    /// It holds something that this version cannot read, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Database(error) => error.into(),
            Failed::Store(error) => error,
        }
    }
}

/// The digests by collection.
pub(super) fn digests(entry: &HeadEntry) -> BTreeMap<Collection, Digest> {
    entry.state.digests()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mstore_rig::{Postgres, Program, have};

    use super::*;
    use crate::postgres::{OF_SEQUENCER, migrate};

    #[tokio::test]
    async fn rows_are_found_by_their_key_also_when_the_statement_is_as_old_as_the_table() {
        if !have(&[Program::Postgres]) {
            return;
        }
        let database = Postgres::shared().database("mirror");
        let (client, connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        migrate::up(&client).await.unwrap();
        client.batch_execute(&format!("SET search_path = mstore; {OF_SEQUENCER}; PREPARE rows AS {ROWS}")).await.unwrap();
        let plan = client.query("EXPLAIN EXECUTE rows ('{m}', '{a}', '{product}', '{p}')", &[]).await.unwrap();
        let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
        let by_key = plan.iter().position(|line| line.contains("Index Scan using mirror_pkey")).unwrap_or_else(|| panic!("{plan:#?}"));
        assert!(plan[by_key + 1].contains("(head = h.n) AND (collection = k.collection) AND (id = k.id)"), "{plan:#?}");
    }
}
