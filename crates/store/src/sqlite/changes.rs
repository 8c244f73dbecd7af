//! What devices read: rows since a cursor or all of them, digests, ranges. Each in one consistent read.

use std::collections::BTreeSet;

use mstore_protocol::{
    BranchKey, Collection, DeviceId, Digest, Head, OperationId, RowHash, SUB_DIGESTS, Seq, Tag, limits::CHANGES_OPS_MAX,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    error::damaged,
    mirror::{self, HeadEntry},
};
use crate::{
    ChangeRow, ChangesAsk, ChangesError, ChangesSummary, RowSink, StoreError,
    start::{self, Known, Start},
};

/// Hands the rows to the sink.
pub(super) fn changes(conn: &Connection, ask: &ChangesAsk, sink: &mut dyn RowSink) -> Result<ChangesSummary, ChangesError> {
    let entry = mirror::load_head(conn, &ask.key)?.ok_or_else(|| ChangesError::UnknownBranch(ask.key.clone()))?;
    let logged = ask.after.map(|cursor| logged_tag(conn, &entry, cursor.seq)).transpose()?.flatten();
    let start = start::start(&Known { state: &entry.state, floor: entry.floor, logged }, ask)?;
    let rows = emit(conn, &entry, &start, sink)?;
    let state = &entry.state;
    Ok(ChangesSummary { epoch: state.epoch, from: start.from, to: state.seq, tag: state.tag, rows, digests: entry.digests() })
}

fn logged_tag(conn: &Connection, entry: &HeadEntry, seq: Seq) -> Result<Option<Tag>, StoreError> {
    let sql = "SELECT tag FROM commit_log WHERE head = ?1 AND seq = ?2";
    let tag: Option<String> = conn.prepare_cached(sql)?.query_row(params![entry.n, mirror::signed(seq)], |row| row.get(0)).optional()?;
    Ok(tag.and_then(|tag| Tag::parse(&tag).ok()))
}

fn emit(conn: &Connection, entry: &HeadEntry, start: &Start, sink: &mut dyn RowSink) -> Result<u64, StoreError> {
    const COLUMNS: &str = "SELECT collection, id, seq, row FROM mirror WHERE head = ?1";
    const ORDER: &str = "ORDER BY seq, collection, id";
    let only_rows = if start.with_tombstones { "" } else { "AND row IS NOT NULL" };
    let mut names: BTreeSet<Collection> = entry.state.collections.keys().cloned().collect();
    let sql = match &start.after {
        Some(_) => format!("{COLUMNS} AND (seq, collection, id) > (?2, ?3, ?4) {only_rows} {ORDER}"),
        None => format!("{COLUMNS} AND seq > ?2 {only_rows} {ORDER}"),
    };
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = match &start.after {
        Some((collection, id)) => statement.query(params![entry.n, start.from, collection.as_str(), id])?,
        None => statement.query(params![entry.n, start.from])?,
    };
    let mut count = 0;
    let mut current = Collection::product();
    while let Some(row) = rows.next()? {
        let name = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if current.as_str() != name {
            let parsed = Collection::parse(name).map_err(|error| damaged("a collection", error))?;
            names.insert(parsed.clone());
            current = parsed;
        }
        let id = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        let text = row.get_ref(3)?.as_str_or_null().map_err(rusqlite::Error::from)?;
        sink.row(ChangeRow { collection: &current, id, seq: row.get(2)?, row: text });
        count += 1;
    }
    Ok(count)
}

/// The device's own operations in a range of commits, oldest first.
pub(super) fn own_operations(
    conn: &Connection,
    key: &BranchKey,
    device: &DeviceId,
    from: Seq,
    to: Seq,
) -> Result<Vec<OperationId>, StoreError> {
    let sql = "SELECT id FROM operation WHERE merchant_id = ?1 AND branch_id = ?2 AND device_id = ?3
        AND seq > ?4 AND seq <= ?5 ORDER BY seq DESC, n DESC LIMIT ?6";
    let mut statement = conn.prepare_cached(sql)?;
    let who = params![key.merchant.as_str(), key.branch.as_str(), device.as_str(), from, mirror::signed(to), CHANGES_OPS_MAX];
    let ids = statement.query_map(who, |row| row.get::<_, String>(0))?;
    let mut ids: Vec<OperationId> =
        ids.map(|id| OperationId::parse(&id?).ok_or_else(|| damaged("an operation", "its id"))).collect::<Result<_, _>>()?;
    ids.reverse();
    Ok(ids)
}

fn head_of(conn: &Connection, key: &BranchKey) -> Result<HeadEntry, StoreError> {
    let unknown = || StoreError::refused(mstore_protocol::Code::NotFound, format!("no branch {key}"));
    mirror::load_head(conn, key)?.ok_or_else(unknown)
}

/// The 256 sub-digests.
pub(super) struct SubDigests {
    pub(super) head: Head,
    pub(super) sums: Box<[Digest; SUB_DIGESTS]>,
    /// Every text fits its hash, and together they add up to the head's digest. Otherwise the mirror itself was altered.
    pub(super) add_up: bool,
}

/// Sums the texts themselves: whoever asks has found a difference, and the mirror may be what is wrong.
pub(super) fn digests(conn: &Connection, key: &BranchKey, collection: &Collection) -> Result<SubDigests, StoreError> {
    let entry = head_of(conn, key)?;
    let mut sums = Box::new([Digest::EMPTY; SUB_DIGESTS]);
    let (mut whole, mut add_up) = (Digest::EMPTY, true);
    let sql = "SELECT id, row, hash, bucket FROM mirror WHERE head = ?1 AND collection = ?2 AND row IS NOT NULL";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![entry.n, collection.as_str()])?;
    while let Some(row) = rows.next()? {
        let (Ok(id), Ok(text)) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str()) else {
            add_up = false;
            continue;
        };
        let hash = RowHash::of(collection, id, text);
        add_up &= mirror::hash(row, 2).is_ok_and(|stored| stored == hash);
        let sum = &mut sums[usize::from(row.get::<_, u8>(3)?)];
        *sum = sum.with(hash);
        whole = whole.with(hash);
    }
    let stored = entry.state.collections.get(collection).map_or(Digest::EMPTY, |state| state.digest);
    add_up &= whole == stored;
    Ok(SubDigests { head: entry.head(), sums, add_up })
}

/// The rows of some ranges.
pub(super) fn rows(
    conn: &Connection,
    key: &BranchKey,
    collection: &Collection,
    ranges: &[u8],
) -> Result<(Head, Vec<(String, Seq)>), StoreError> {
    let entry = head_of(conn, key)?;
    let mut wanted = [false; SUB_DIGESTS];
    for range in ranges {
        wanted[usize::from(*range)] = true;
    }
    let sql = "SELECT bucket, row, seq FROM mirror WHERE head = ?1 AND collection = ?2 AND row IS NOT NULL ORDER BY id";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![entry.n, collection.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if wanted[usize::from(row.get::<_, u8>(0)?)] {
            found.push((row.get(1)?, row.get(2)?));
        }
    }
    Ok((entry.head(), found))
}
