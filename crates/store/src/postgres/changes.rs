//! What devices read: rows since a cursor or all of them, digests, ranges. Each in one transaction over one snapshot.
//!
//! Rows come in portions, the next asked for while one is handed over, so an answer of a million rows takes little memory; the sink never waits, so neither
//! does the snapshot.

use std::collections::BTreeSet;

use deadpool_postgres::{Object, Transaction};
use mstore_protocol::{
    BranchKey, Code, Collection, DeviceId, Digest, Head, OperationId, RowHash, SUB_DIGESTS, Seq, Tag, limits::CHANGES_OPS_MAX,
};
use tokio_postgres::{IsolationLevel, types::ToSql};

use super::{
    error::damaged,
    mirror::{self, HeadEntry, count, hash, signed},
};
use crate::{
    ChangeRow, ChangesAsk, ChangesError, ChangesSummary, RowSink, StoreError,
    start::{self, Known, Start},
};

/// Rows of one portion.
const PORTION: i32 = 2_000;

/// A transaction whose reads belong together.
pub(super) async fn consistent(client: &mut Object) -> Result<Transaction<'_>, StoreError> {
    Ok(client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?)
}

/// Hands the rows to the sink.
pub(super) async fn changes(client: &mut Object, ask: &ChangesAsk, sink: &mut dyn RowSink) -> Result<ChangesSummary, ChangesError> {
    let read = consistent(client).await?;
    let entry = mirror::head(&read, &ask.key).await?.ok_or_else(|| ChangesError::UnknownBranch(ask.key.clone()))?;
    let logged = match &ask.after {
        Some(cursor) => logged_tag(&read, &entry, cursor.seq).await?,
        None => None,
    };
    let start = start::start(&Known { state: &entry.state, floor: entry.floor, logged }, ask)?;
    let rows = emit(&read, &entry, &start, sink).await?;
    let state = &entry.state;
    Ok(ChangesSummary { epoch: state.epoch, from: start.from, to: state.seq, tag: state.tag, rows, digests: mirror::digests(&entry) })
}

async fn logged_tag(read: &Transaction<'_>, entry: &HeadEntry, seq: Seq) -> Result<Option<Tag>, StoreError> {
    let statement = read.prepare_cached("SELECT tag FROM commit_log WHERE head = $1 AND seq = $2").await?;
    let row = read.query_opt(&statement, &[&entry.n, &signed(seq)]).await?;
    Ok(row.and_then(|row| Tag::parse(row.get(0)).ok()))
}

async fn emit(read: &Transaction<'_>, entry: &HeadEntry, start: &Start, sink: &mut dyn RowSink) -> Result<u64, StoreError> {
    const COLUMNS: &str = "SELECT collection, id, seq, row FROM mirror WHERE head = $1";
    const ORDER: &str = "ORDER BY seq, collection, id";
    let only_rows = if start.with_tombstones { "" } else { "AND row IS NOT NULL" };
    let from = signed(start.from);
    let sql = match &start.after {
        Some(_) => format!("{COLUMNS} AND (seq, collection, id) > ($2, $3, $4) {only_rows} {ORDER}"),
        None => format!("{COLUMNS} AND seq > $2 {only_rows} {ORDER}"),
    };
    let after = start.after.as_ref().map(|(collection, id)| (collection.as_str(), id.as_str()));
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&entry.n, &from];
    if let Some((collection, id)) = &after {
        values.push(collection);
        values.push(id);
    }
    let statement = read.prepare_cached(&sql).await?;
    let portal = read.bind(&statement, &values).await?;
    let mut rows = read.query_portal(&portal, PORTION).await?;
    let (mut sum, mut current) = (0, Collection::product());
    while !rows.is_empty() {
        let next = read.query_portal(&portal, PORTION);
        tokio::pin!(next);
        // Asked for now, taken when these are handed over.
        let early = futures_util::poll!(&mut next);
        for row in &rows {
            hand_over(row, &mut current, sink)?;
        }
        sum += rows.len() as u64;
        rows = match early {
            std::task::Poll::Ready(next) => next?,
            std::task::Poll::Pending => next.await?,
        };
    }
    Ok(sum)
}

fn hand_over(row: &tokio_postgres::Row, current: &mut Collection, sink: &mut dyn RowSink) -> Result<(), StoreError> {
    let name: &str = row.get(0);
    if current.as_str() != name {
        *current = Collection::parse(name).map_err(|error| damaged("a collection", error))?;
    }
    sink.row(ChangeRow { collection: current, id: row.get(1), seq: count(row, 2), row: row.get(3) });
    Ok(())
}

/// The device's own operations in a range of commits, oldest first.
pub(super) async fn own_operations(
    client: &Object,
    key: &BranchKey,
    device: &DeviceId,
    from: Seq,
    to: Seq,
) -> Result<Vec<OperationId>, StoreError> {
    let sql = "SELECT id FROM operation WHERE merchant_id = $1 AND branch_id = $2 AND device_id = $3
        AND seq > $4 AND seq <= $5 ORDER BY seq DESC, n DESC LIMIT $6";
    let statement = client.prepare_cached(sql).await?;
    let limit = i64::try_from(CHANGES_OPS_MAX).unwrap_or(i64::MAX);
    let (merchant, branch) = (key.merchant.as_str(), key.branch.as_str());
    let rows = client.query(&statement, &[&merchant, &branch, &device.as_str(), &signed(from), &signed(to), &limit]).await?;
    rows.iter().rev().map(|row| OperationId::parse(row.get(0)).ok_or_else(|| damaged("an operation", "its id"))).collect()
}

async fn head_of(read: &Transaction<'_>, key: &BranchKey) -> Result<HeadEntry, StoreError> {
    let unknown = || StoreError::refused(Code::NotFound, format!("no branch {key}"));
    mirror::head(read, key).await?.ok_or_else(unknown)
}

/// The 256 sub-digests.
pub(super) struct SubDigests {
    pub(super) head: Head,
    pub(super) sums: Box<[Digest; SUB_DIGESTS]>,
    /// Every text fits its hash, and together they add up to the head's digest. Otherwise the mirror itself was altered.
    pub(super) add_up: bool,
}

/// Sums the texts themselves: whoever asks has found a difference, and the mirror may be what is wrong.
pub(super) async fn digests(client: &mut Object, key: &BranchKey, collection: &Collection) -> Result<SubDigests, StoreError> {
    let read = consistent(client).await?;
    let entry = head_of(&read, key).await?;
    let mut sums = Box::new([Digest::EMPTY; SUB_DIGESTS]);
    let (mut whole, mut add_up) = (Digest::EMPTY, true);
    let sql = "SELECT id, row, hash, bucket FROM mirror WHERE head = $1 AND collection = $2 AND row IS NOT NULL";
    let statement = read.prepare_cached(sql).await?;
    let portal = read.bind(&statement, &[&entry.n, &collection.as_str()]).await?;
    loop {
        let rows = read.query_portal(&portal, PORTION).await?;
        for row in &rows {
            let found = RowHash::of(collection, row.get(0), row.get(1));
            add_up &= hash(row, 2) == Some(found);
            let sum = &mut sums[bucket(row, 3)];
            *sum = sum.with(found);
            whole = whole.with(found);
        }
        if rows.is_empty() {
            break;
        }
    }
    let stored = entry.state.collections.get(collection).map_or(Digest::EMPTY, |state| state.digest);
    add_up &= whole == stored;
    Ok(SubDigests { head: entry.head(), sums, add_up })
}

fn bucket(row: &tokio_postgres::Row, i: usize) -> usize {
    usize::try_from(row.get::<_, i64>(i)).unwrap_or(0) % SUB_DIGESTS
}

/// The rows of some ranges.
pub(super) async fn rows(
    client: &mut Object,
    key: &BranchKey,
    collection: &Collection,
    ranges: &[u8],
) -> Result<(Head, Vec<(String, Seq)>), StoreError> {
    let read = consistent(client).await?;
    let entry = head_of(&read, key).await?;
    let wanted: BTreeSet<i64> = ranges.iter().map(|range| i64::from(*range)).collect();
    let wanted: Vec<i64> = wanted.into_iter().collect();
    let sql = "SELECT row, seq FROM mirror WHERE head = $1 AND collection = $2 AND row IS NOT NULL AND bucket = ANY($3) ORDER BY id";
    let statement = read.prepare_cached(sql).await?;
    let found = read.query(&statement, &[&entry.n, &collection.as_str(), &wanted]).await?;
    Ok((entry.head(), found.iter().map(|row| (row.get(0), count(row, 1))).collect()))
}
