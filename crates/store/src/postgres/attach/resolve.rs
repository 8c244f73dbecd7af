//! Marks that do not say whose row it is: finds out, inside the transaction that is about to sequence.
//!
//! A trigger on a table that knows no branch leaves the row's id, or the key of a parent. What they mean is looked up here, under the snapshot of
//! whoever sequences: the branches that have the row now, and every branch whose devices have it. Nothing that a concurrent writer does can fall between,
//! because his own mark is looked up after his commit. Resolved marks keep the `xid` of the writer, so they belong to his transaction still.

use std::collections::{BTreeMap, BTreeSet};

use mstore_protocol::BranchKey;
use tokio_postgres::GenericClient;

use super::{
    AttachError, guard, key, live,
    mapping::NewBranch,
    registry::{Attached, Registered},
    rows::Wanted,
    source::{Related, Source},
    strays,
    triggers::{A_ROW, EVERYTHING},
};

/// Rows of one page when a whole collection is marked.
const PAGE_ROWS: i64 = 5_000;

/// Ids with the transactions that touched them.
type Touched = BTreeSet<(String, String)>;

/// Turns visible unresolved marks, those at these places (`ctid`) or all, into marks of branches; tells whether there were any. Call it first in a
/// sequencing transaction.
pub(super) async fn resolve(client: &impl GenericClient, attached: &Attached, places: Option<&[String]>) -> Result<bool, AttachError> {
    let marks = match places {
        Some(places) => {
            let sql = "SELECT collection, branch_id, id, xid::text, ctid::text FROM mstore.mark WHERE ctid = ANY($1::text[]::tid[]) AND merchant_id = ''";
            client.query(sql, &[&places]).await?
        }
        None => {
            client.query("SELECT collection, branch_id, id, xid::text, ctid::text FROM mstore.mark WHERE merchant_id = ''", &[]).await?
        }
    };
    if marks.is_empty() {
        return Ok(false);
    }
    let mut by_collection: BTreeMap<&str, BTreeMap<&str, Touched>> = BTreeMap::new();
    for mark in &marks {
        let touched = by_collection.entry(mark.get(0)).or_default().entry(mark.get(1)).or_default();
        touched.insert((mark.get(2), mark.get(3)));
    }
    for (name, kinds) in by_collection {
        // Nobody reads a collection that is stopped; when it flows again, all of it is marked.
        let Some(registered) = attached.collection(name).filter(|registered| registered.stopped.is_none()) else { continue };
        let resolved = collection(client, registered, attached.new_branch(), &kinds);
        if let Err(why) = guard::guarded(client, resolved).await? {
            live::stop(client, name, &why).await?;
        }
    }
    let places: Vec<&str> = marks.iter().map(|mark| mark.get(4)).collect();
    client.execute("DELETE FROM mstore.mark WHERE ctid = ANY($1::text[]::tid[])", &[&places]).await?;
    Ok(true)
}

async fn collection(
    client: &impl GenericClient,
    registered: &Registered,
    new: NewBranch,
    kinds: &BTreeMap<&str, Touched>,
) -> Result<(), AttachError> {
    for (kind, touched) in kinds {
        match *kind {
            A_ROW => rows(client, registered, new, touched).await?,
            EVERYTHING => {
                let scopes: BTreeMap<&str, &str> = touched.iter().map(|(scope, xid)| (scope.as_str(), xid.as_str())).collect();
                for (scope, xid) in scopes {
                    everything(client, registered, new, scope, xid).await?;
                }
            }
            alias => {
                let found = of_related(client, &registered.source, alias, touched).await?;
                rows(client, registered, new, &found).await?;
            }
        }
    }
    Ok(())
}

/// The rows that depend on keys of a related table.
async fn of_related(client: &impl GenericClient, source: &Source, alias: &str, touched: &Touched) -> Result<Touched, AttachError> {
    let mut found = Touched::new();
    let Some(related) = source.related.iter().find(|related| related.alias == alias) else { return Ok(found) };
    let (parts, xids) = related_parts(related, touched);
    if xids.is_empty() {
        return Ok(found);
    }
    let params: Vec<_> = parts.iter().map(|part| part as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
    for row in client.query(&source.related_sql(related), &params).await? {
        let (id, n): (Option<String>, i64) = (row.get(0), row.get(1));
        if let (Some(id), Some(xid)) = (id, usize::try_from(n - 1).ok().and_then(|at| xids.get(at))) {
            found.insert((id, xid.clone()));
        }
    }
    Ok(found)
}

fn related_parts(related: &Related, touched: &Touched) -> (Vec<Vec<String>>, Vec<String>) {
    let columns: Vec<_> = related.columns.iter().collect();
    let mut parts = vec![Vec::new(); columns.len()];
    let mut xids = Vec::new();
    for (id, xid) in touched {
        let Some(of_one) = key::parts(id, &columns) else { continue };
        for (column, part) in parts.iter_mut().zip(of_one) {
            column.push(part);
        }
        xids.push(xid.clone());
    }
    (parts, xids)
}

/// Marks rows wherever they are now and wherever devices have them.
async fn rows(client: &impl GenericClient, registered: &Registered, new: NewBranch, touched: &Touched) -> Result<(), AttachError> {
    let source = &registered.source;
    let (ids, xids): (Vec<&str>, Vec<&str>) = touched.iter().map(|(id, xid)| (id.as_str(), xid.as_str())).unzip();
    let wanted = Wanted::new(source, ids.iter().map(|id| ("", *id)));
    let mut owned = Owned::default();
    if !wanted.is_empty() {
        for row in client.query(&source.owners_sql(), &wanted.params()).await? {
            let Some(at) = wanted.place(row.get(0)) else { continue };
            owned.push(ids[at], xids[at], row.get(1), row.get(2), source.branch.is_none());
        }
    }
    owned.gone.extend(ids.iter().map(|id| (*id).to_owned()));
    owned.mark(client, source, &registered.currency, new).await?;
    if source.is_direct {
        // Whose it was, its trigger has said.
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO mstore.mark (collection, merchant_id, branch_id, id, xid)
        SELECT $1, h.merchant_id, h.branch_id, w.id, w.xid::xid8 FROM unnest($2::text[], $3::text[]) AS w(id, xid) {}",
        source.on_devices_sql()
    );
    client.execute(&sql, &[&source.collection.as_str(), &ids, &xids]).await?;
    Ok(())
}

/// Marks every row there is and every row that devices have; all, or of one branch (`merchant/branch`).
async fn everything(
    client: &impl GenericClient,
    registered: &Registered,
    new: NewBranch,
    scope: &str,
    xid: &str,
) -> Result<(), AttachError> {
    let source = &registered.source;
    let only = scope.split_once('/').and_then(|(merchant, branch)| BranchKey::parse(merchant, branch).ok());
    let mut after = None;
    loop {
        let (mut owned, last) = page(client, source, after.as_deref(), xid, PAGE_ROWS).await?;
        if let Some(only) = &only {
            owned.keep(only);
        }
        owned.mark(client, source, &registered.currency, new).await?;
        match last {
            Some(id) => after = Some(id),
            None => break,
        }
    }
    // What every branch has, each branch has under the same ids: one mark for all of them, however many there are.
    let branch = if source.branch.is_none() && only.is_none() { "'*'" } else { "h.branch_id" };
    let sql = format!(
        "INSERT INTO mstore.mark (collection, merchant_id, branch_id, id, xid)
        SELECT DISTINCT $1, h.merchant_id, {branch}, m.id, $2::text::xid8 FROM mstore.head h
        CROSS JOIN LATERAL (SELECT m.id FROM mstore.mirror m WHERE m.head = h.n AND m.collection = $1 AND m.row IS NOT NULL OFFSET 0) m
        WHERE $3 IN ('', h.merchant_id || '/' || h.branch_id)"
    );
    client.execute(&sql, &[&source.collection.as_str(), &xid, &scope]).await?;
    Ok(())
}

/// One page of a collection by key, and the id to go on after.
pub(super) async fn page(
    client: &impl GenericClient,
    source: &Source,
    after: Option<&str>,
    xid: &str,
    limit: i64,
) -> Result<(Owned, Option<String>), AttachError> {
    let parts = after.and_then(|id| key::parts(id, &source.key()));
    let mut params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![&limit];
    params.extend(parts.iter().flatten().map(|part| part as &(dyn tokio_postgres::types::ToSql + Sync)));
    let rows = client.query(&source.page_sql(parts.is_some()), &params).await?;
    let mut owned = Owned::default();
    for row in rows.iter().filter(|row| row.get(3)) {
        if let Some(id) = row.get::<_, Option<&str>>(0) {
            owned.push(id, xid, row.get(1), row.get(2), source.branch.is_none());
        }
    }
    let is_full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let last = rows.last().and_then(|row| row.get::<_, Option<String>>(0)).filter(|_| is_full);
    Ok((owned, last))
}

/// Rows with whose they are, and those that are nobody's.
#[derive(Default)]
pub(super) struct Owned {
    ids: Vec<String>,
    xids: Vec<String>,
    merchants: Vec<String>,
    branches: Vec<String>,
    strays: Vec<String>,
    /// Rows that were looked for, there or not.
    gone: Vec<String>,
}

impl Owned {
    fn push(&mut self, id: &str, xid: &str, merchant: Option<&str>, branch: Option<&str>, every: bool) {
        match (merchant, if every { Some("*") } else { branch }) {
            (Some(merchant), Some(branch)) => {
                self.ids.push(id.to_owned());
                self.xids.push(xid.to_owned());
                self.merchants.push(merchant.to_owned());
                self.branches.push(branch.to_owned());
            }
            (None, _) | (_, None) => self.strays.push(id.to_owned()),
        }
    }

    /// Keeps what one branch has.
    fn keep(&mut self, only: &BranchKey) {
        let is_its = |at: usize| {
            self.merchants[at] == only.merchant.as_str() && (self.branches[at] == "*" || self.branches[at] == only.branch.as_str())
        };
        let kept: Vec<usize> = (0..self.ids.len()).filter(|at| is_its(*at)).collect();
        self.ids = kept.iter().map(|at| self.ids[*at].clone()).collect();
        self.xids.truncate(kept.len());
        self.merchants.clear();
        self.merchants.resize(kept.len(), only.merchant.as_str().to_owned());
        self.branches.clear();
        self.branches.resize(kept.len(), only.branch.as_str().to_owned());
        self.strays.clear();
    }

    /// Every branch that has one of them, with its id; branches that do not exist are left out.
    pub(super) async fn places(&self, client: &impl GenericClient) -> Result<Vec<(BranchKey, String)>, AttachError> {
        let sql = "WITH w AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS w(m, b, id))
            SELECT b.merchant_id, b.branch_id, w.id FROM w JOIN mstore.branch b ON b.merchant_id = w.m AND b.branch_id = w.b
            UNION ALL SELECT b.merchant_id, b.branch_id, w.id FROM w JOIN mstore.branch b ON b.merchant_id = w.m WHERE w.b = '*'";
        let rows = client.query(sql, &[&self.merchants, &self.branches, &self.ids]).await?;
        Ok(rows.iter().filter_map(|row| Some((BranchKey::parse(row.get(0), row.get(1)).ok()?, row.get(2)))).collect())
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len() + self.strays.len()
    }

    /// The marks; branches that nobody has seen before are made or alarmed.
    pub(super) async fn mark(
        &self,
        client: &impl GenericClient,
        source: &Source,
        currency: &str,
        new: NewBranch,
    ) -> Result<(), AttachError> {
        let collection = source.collection.as_str();
        let unknown = self.unknown(client).await?;
        if new == NewBranch::Create {
            for key in &unknown {
                super::branches::create(client, key, "", currency).await?;
            }
        }
        let sql = "INSERT INTO mstore.mark (collection, merchant_id, branch_id, id, xid)
            SELECT $1, w.m, w.b, w.id, w.xid::xid8 FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS w(m, b, id, xid)";
        client.execute(sql, &[&collection, &self.merchants, &self.branches, &self.ids, &self.xids]).await?;
        let is_unknown =
            |at: usize| unknown.iter().any(|key| self.merchants[at] == key.merchant.as_str() && self.branches[at] == key.branch.as_str());
        let waits = |at: &usize| new == NewBranch::Alarm && is_unknown(*at);
        let waiting = (0..self.ids.len())
            .filter(waits)
            .map(|at| (self.ids[at].as_str(), format!("there is no branch {}/{}", self.merchants[at], self.branches[at])));
        let nobodys = self.strays.iter().map(|id| (id.as_str(), "its merchant or branch is NULL".to_owned()));
        let strays: Vec<(&str, String)> = nobodys.chain(waiting).collect();
        let looked_at: Vec<&str> = self.ids.iter().chain(&self.strays).chain(&self.gone).map(String::as_str).collect();
        strays::settle(client, collection, &looked_at, &strays).await
    }

    /// Their branches that do not exist.
    async fn unknown(&self, client: &impl GenericClient) -> Result<BTreeSet<BranchKey>, AttachError> {
        let sql = "SELECT DISTINCT w.m, w.b FROM unnest($1::text[], $2::text[]) AS w(m, b)
            WHERE w.b <> '*' AND NOT EXISTS (SELECT 1 FROM mstore.branch b WHERE b.merchant_id = w.m AND b.branch_id = w.b)";
        let rows = client.query(sql, &[&self.merchants, &self.branches]).await?;
        Ok(rows.iter().filter_map(|row| BranchKey::parse(row.get(0), row.get(1)).ok()).collect())
    }
}
