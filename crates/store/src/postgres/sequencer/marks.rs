//! Which marks a round takes: all visible ones of the branches in it, whole branches at a time.
//!
//! Marks of transactions whose end the last round had seen were taken or put aside then, so a round looks at the others only, by the index on the
//! transaction. However many deleted marks an old snapshot keeps in the table, they are not looked at again.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use deadpool_postgres::Object;
use futures_util::TryStreamExt as _;
use mstore_protocol::BranchKey;
use tokio_postgres::{Error, Row, RowStream};

use super::super::{
    mirror::{columns, count},
    snapshot::{Shards, Snapshot},
};

/// Marks of transactions that a snapshot had not seen the end of.
const NEW: &str = "SELECT m.merchant_id, m.branch_id, m.collection, m.id, m.ctid::text FROM mark m WHERE m.xid >= $1::text::xid8
  UNION ALL SELECT m.merchant_id, m.branch_id, m.collection, m.id, m.ctid::text FROM mark m WHERE m.xid = ANY($2::text[]::xid8[]) LIMIT $3";
/// Everything that waits, the longest first.
const GROUPS: &str = "SELECT merchant_id, branch_id, count(*), min(xid::text::bigint) FROM mark GROUP BY merchant_id, branch_id ORDER BY 4";
const OF_BRANCHES: &str = "SELECT DISTINCT m.merchant_id, m.branch_id, m.collection, m.id FROM mark m
  WHERE (m.merchant_id, m.branch_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))";
/// Branches that have not been visited since merchant-wide marks were left, and how many.
const STARS: &str = "WITH s AS (SELECT merchant_id, xid, count(*) AS n FROM mark WHERE branch_id = '*' AND merchant_id = ANY($1::text[]) GROUP BY merchant_id, xid)
  SELECT b.merchant_id, b.branch_id, sum(s.n)::bigint FROM s JOIN branch b ON b.merchant_id = s.merchant_id
  LEFT JOIN head h ON h.merchant_id = b.merchant_id AND h.branch_id = b.branch_id
  WHERE NOT pg_visible_in_snapshot(s.xid, coalesce(h.snapshot, '1:1:')) GROUP BY b.merchant_id, b.branch_id";
const OF_STARS: &str =
    "SELECT DISTINCT k.merchant_id, k.branch_id, m.collection, m.id FROM unnest($1::text[], $2::text[]) AS k (merchant_id, branch_id)
  LEFT JOIN head h ON h.merchant_id = k.merchant_id AND h.branch_id = k.branch_id
  JOIN mark m ON m.merchant_id = k.merchant_id AND m.branch_id = '*'
  WHERE NOT pg_visible_in_snapshot(m.xid, coalesce(h.snapshot, '1:1:'))";
/// Merchant-wide marks that every branch of the merchant was visited after.
const DELETE_STARS: &str = "DELETE FROM mark m WHERE m.branch_id = '*' AND m.merchant_id = ANY($1::text[])
  AND m.xid NOT IN (SELECT s.xid FROM (SELECT DISTINCT xid, merchant_id FROM mark WHERE branch_id = '*' AND merchant_id = ANY($1::text[])) s
    JOIN branch b ON b.merchant_id = s.merchant_id LEFT JOIN head h ON h.merchant_id = b.merchant_id AND h.branch_id = b.branch_id
    WHERE NOT pg_visible_in_snapshot(s.xid, coalesce(h.snapshot, '1:1:')))";
const LEFT_STARS: &str = "SELECT DISTINCT merchant_id FROM mark WHERE branch_id = '*' AND merchant_id = ANY($1::text[])";

/// Marks looked at to know whether there are any.
const GLANCE: i64 = 500;

/// A collection and an id.
pub(super) type Place = (Box<str>, Box<str>);

/// What a round takes.
#[derive(Default)]
pub(super) struct Taken {
    /// The rows to compare, by branch; a branch with none is visited all the same.
    pub(super) branches: BTreeMap<BranchKey, BTreeSet<Place>>,
    /// The marks to delete, if each was seen on its own; otherwise all of the branches.
    pub(super) places: Option<Vec<String>>,
    /// Merchants with merchant-wide marks.
    pub(super) merchants: BTreeSet<String>,
    /// Branches were left out for want of room.
    pub(super) is_behind: bool,
}

/// What is asked of the marks.
pub(super) struct Ask<'a> {
    /// Ours.
    pub(super) shards: Shards,
    /// Everything that this snapshot saw was looked at; `None`: nothing was.
    pub(super) since: Option<&'a Snapshot>,
    /// Branches to leave out.
    pub(super) without: &'a BTreeSet<BranchKey>,
    /// Merchants known to have merchant-wide marks.
    pub(super) merchants: &'a BTreeSet<String>,
    /// Most marks.
    pub(super) marks_max: usize,
    /// One branch only.
    pub(super) one_branch: bool,
}

impl Ask<'_> {
    fn takes(&self, key: &BranchKey) -> bool {
        self.shards.have(key) && !self.without.contains(key)
    }

    async fn new_marks(&self, client: &Object, limit: i64) -> Result<Vec<Row>, Error> {
        let (end, running) = match self.since {
            Some(since) => (since.end, since.running.iter().map(u64::to_string).collect()),
            None => (0, Vec::new()),
        };
        let statement = client.prepare_cached(NEW).await?;
        client.query(&statement, &[&end.to_string(), &running, &limit]).await
    }
}

/// Whether there is something for this server; also answers what a look at the marks has seen for certain.
pub(super) async fn glance(client: &Object, ask: &Ask<'_>) -> Result<(bool, Option<Snapshot>), Error> {
    let statement = client.prepare_cached("SELECT pg_current_snapshot()::text").await?;
    // Asked first, so everything that it sees is among the marks read after it.
    let snapshot = client.query_one(&statement, &[]);
    let (snapshot, rows) = futures_util::future::try_join(snapshot, ask.new_marks(client, GLANCE)).await?;
    let is_full = rows.len() >= usize::try_from(GLANCE).unwrap_or(usize::MAX);
    let concerns = |row: &Row| {
        row.get::<_, &str>(1) == "*" || row.get::<_, &str>(0).is_empty() || key_of(row).is_some_and(|key| ask.shards.have(&key))
    };
    Ok((is_full || rows.iter().any(concerns), Snapshot::parse(snapshot.get(0))))
}

fn key_of(row: &Row) -> Option<BranchKey> {
    BranchKey::parse(row.get(0), row.get(1)).ok()
}

/// Where the marks are whose merchant has to be found out; `None`: they have to be looked for.
pub(super) fn unresolved(ask: &Ask<'_>, new: &[Row], is_thorough: bool) -> Option<Vec<String>> {
    let is_all = !is_thorough && new.len() <= ask.marks_max;
    is_all.then(|| new.iter().filter(|row| row.get::<_, &str>(0).is_empty()).map(|row| row.get(4)).collect())
}

/// Takes marks within the round's snapshot; `new` are those that were read with it.
pub(super) async fn take(client: &Object, ask: &Ask<'_>, new: Vec<Row>, is_thorough: bool) -> Result<Taken, Error> {
    let confirmed = confirmed(client, ask, &new).await?;
    let is_few = !is_thorough && confirmed.is_empty() && new.len() <= ask.marks_max && !ask.one_branch;
    let mut taken = if is_few { few(ask, &new) } else { many(client, ask, &confirmed).await? };
    taken.merchants.extend(ask.merchants.iter().cloned());
    if !taken.merchants.is_empty() {
        add_stars(client, ask, &mut taken).await?;
    }
    Ok(taken)
}

/// Branches that stand still, but whose held commit an operator has let go: whoever does leaves a mark.
async fn confirmed(client: &Object, ask: &Ask<'_>, new: &[Row]) -> Result<BTreeSet<BranchKey>, Error> {
    let asks =
        |row: &Row| row.get::<_, &str>(2) == "branch" && key_of(row).is_some_and(|key| ask.shards.have(&key) && ask.without.contains(&key));
    if !new.iter().any(asks) {
        return Ok(BTreeSet::new());
    }
    let statement = client.prepare_cached("SELECT merchant_id, branch_id FROM hold WHERE is_confirmed = 1").await?;
    let held = client.query(&statement, &[]).await?;
    Ok(held.iter().filter_map(key_of).filter(|key| ask.shards.have(key)).collect())
}

/// Everything new is taken, each mark by its place.
fn few(ask: &Ask<'_>, new: &[Row]) -> Taken {
    let mut taken = Taken::default();
    let mut places = Vec::with_capacity(new.len());
    for row in new {
        if row.get::<_, &str>(1) == "*" && !row.get::<_, &str>(0).is_empty() {
            taken.merchants.insert(row.get(0));
        } else if let Some(key) = key_of(row).filter(|key| ask.takes(key)) {
            taken.branches.entry(key).or_default().insert((row.get(2), row.get(3)));
            places.push(row.get(4));
        }
    }
    taken.places = Some(places);
    taken
}

/// Whole branches as there is room.
async fn many(client: &Object, ask: &Ask<'_>, confirmed: &BTreeSet<BranchKey>) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    let mut room = Room::new(ask);
    let takes = |key: &BranchKey| ask.takes(key) || confirmed.contains(key);
    let statement = client.prepare_cached(GROUPS).await?;
    for row in client.query(&statement, &[]).await? {
        if row.get::<_, &str>(1) == "*" && !row.get::<_, &str>(0).is_empty() {
            taken.merchants.insert(row.get(0));
        } else if let Some(key) = key_of(&row).filter(takes) {
            if room.has(count(&row, 2)) {
                taken.branches.insert(key, BTreeSet::new());
            } else {
                taken.is_behind = true;
            }
        }
    }
    let statement = client.prepare_cached(OF_BRANCHES).await?;
    let (merchants, branches) = columns(taken.branches.keys());
    let rows = client.query_raw(&statement, [&merchants, &branches]).await?;
    add(&mut taken, rows).await?;
    Ok(taken)
}

/// Row by row: a branch may have a million of them.
async fn add(taken: &mut Taken, rows: RowStream) -> Result<(), Error> {
    tokio::pin!(rows);
    while let Some(row) = rows.try_next().await? {
        if let Some(places) = key_of(&row).and_then(|key| taken.branches.get_mut(&key)) {
            places.insert((row.get(2), row.get(3)));
        }
    }
    Ok(())
}

/// Merchant-wide marks count for each branch that was not visited since, beside its own.
async fn add_stars(client: &Object, ask: &Ask<'_>, taken: &mut Taken) -> Result<(), Error> {
    let merchants: Vec<&str> = taken.merchants.iter().map(String::as_str).collect();
    let statement = client.prepare_cached(STARS).await?;
    let mut room = Room::new(ask);
    room.used = taken.branches.values().map(|places| places.len() as u64).sum();
    room.branches = taken.branches.len();
    for row in client.query(&statement, &[&merchants]).await? {
        let Some(key) = key_of(&row).filter(|key| ask.takes(key)) else { continue };
        match taken.branches.entry(key) {
            Entry::Occupied(_) => room.used += count(&row, 2),
            Entry::Vacant(place) if room.has(count(&row, 2)) => drop(place.insert(BTreeSet::new())),
            Entry::Vacant(_) => taken.is_behind = true,
        }
    }
    let concerned: Vec<&BranchKey> = taken.branches.keys().filter(|key| taken.merchants.contains(key.merchant.as_str())).collect();
    let (merchants, branches) = columns(concerned);
    let statement = client.prepare_cached(OF_STARS).await?;
    let rows = client.query_raw(&statement, [&merchants, &branches]).await?;
    add(taken, rows).await
}

/// How much fits into a transaction: at least one branch.
struct Room {
    max: u64,
    one_branch: bool,
    used: u64,
    branches: usize,
}

impl Room {
    fn new(ask: &Ask<'_>) -> Self {
        Self { max: ask.marks_max as u64, one_branch: ask.one_branch, used: 0, branches: 0 }
    }

    fn has(&mut self, marks: u64) -> bool {
        let fits = self.branches == 0 || (!self.one_branch && self.used + marks <= self.max);
        if fits {
            self.used += marks;
            self.branches += 1;
        }
        fits
    }
}

/// Reads what a round begins with.
pub(super) async fn new_marks(client: &Object, ask: &Ask<'_>) -> Result<Vec<Row>, Error> {
    let limit = i64::try_from(ask.marks_max).unwrap_or(i64::MAX - 1) + 1;
    ask.new_marks(client, limit).await
}

/// Deletes the marks of branches that were visited, as the snapshot shows them.
pub(super) async fn delete(client: &Object, taken: &Taken, visited: &[&BranchKey]) -> Result<(), Error> {
    if let Some(places) = taken.places.as_ref().filter(|_| visited.len() == taken.branches.len()) {
        if !places.is_empty() {
            let statement = client.prepare_cached("DELETE FROM mark WHERE ctid = ANY($1::text[]::tid[])").await?;
            client.execute(&statement, &[places]).await?;
        }
        return Ok(());
    }
    let (merchants, branches) = columns(visited.iter().copied());
    let sql = "DELETE FROM mark m WHERE (m.merchant_id, m.branch_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&merchants, &branches]).await?;
    Ok(())
}

/// Deletes merchant-wide marks that nobody needs any more; answers which merchants still have some. Outside of any round: what is not deleted now is later.
pub(super) async fn delete_stars(client: &Object, merchants: &BTreeSet<String>) -> Result<BTreeSet<String>, Error> {
    let named: Vec<&str> = merchants.iter().map(String::as_str).collect();
    let delete = client.prepare_cached(DELETE_STARS).await?;
    let left = client.prepare_cached(LEFT_STARS).await?;
    client.batch_execute("BEGIN; SET LOCAL synchronous_commit = off").await?;
    client.execute(&delete, &[&named]).await?;
    let left = client.query(&left, &[&named]).await?;
    client.batch_execute("COMMIT").await?;
    Ok(left.iter().map(|row| row.get(0)).collect())
}
