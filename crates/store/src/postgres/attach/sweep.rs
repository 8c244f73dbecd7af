//! Compares attached tables with what devices have, slice by slice by key: what no trigger saw is found here.

use std::collections::{BTreeMap, BTreeSet};

use mstore_protocol::{BranchKey, PersonalData};
use tokio_postgres::GenericClient;

use super::{
    AttachError,
    registry::{Attached, Registered},
    resolve, rows,
};
use crate::source_row::SourceRow;

/// What a slice came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::postgres) struct Swept {
    /// Rows compared.
    pub(in crate::postgres) compared: u64,
    /// Rows that differed; they are marked.
    pub(in crate::postgres) differing: u64,
    /// Where to go on; none: everything was compared.
    pub(in crate::postgres) next: Option<Position>,
}

/// Where a sweep is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::postgres) struct Position {
    collection: String,
    /// First the table is walked, then the mirror.
    side: Side,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Side {
    /// After this id of the table.
    Source(Option<String>),
    /// After this id of this head.
    Mirror { head: i64, after: String },
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = match &self.side {
            Side::Source(after) => serde_json::json!([self.collection, after]),
            Side::Mirror { head, after } => serde_json::json!([self.collection, head, after]),
        };
        write!(f, "{json}")
    }
}

impl Position {
    /// Reads what `to_string` wrote.
    pub(in crate::postgres) fn parse(text: &str) -> Option<Self> {
        if let Ok((collection, head, after)) = serde_json::from_str(text) {
            return Some(Self { collection, side: Side::Mirror { head, after } });
        }
        let (collection, after) = serde_json::from_str(text).ok()?;
        Some(Self { collection, side: Side::Source(after) })
    }

    fn start(collection: &str) -> Self {
        Self { collection: collection.to_owned(), side: Side::Source(None) }
    }
}

/// Compares the next rows; start with `None`.
pub(in crate::postgres) async fn slice(
    client: &impl GenericClient,
    attached: &Attached,
    personal: &PersonalData,
    from: Option<Position>,
    rows_max: i64,
) -> Result<Swept, AttachError> {
    let first = || attached.collections().next().map(|(name, _)| Position::start(name));
    let Some(at) = from.or_else(first) else { return Ok(Swept::default()) };
    // Detached meanwhile, or stopped: the one after it.
    let registered = attached.collection(&at.collection).filter(|registered| registered.stopped.is_none());
    let after = |name: &str| attached.collections().find(|(other, _)| *other > name).map(|(next, _)| Position::start(next));
    let Some(registered) = registered else { return Ok(Swept { next: after(&at.collection), ..Swept::default() }) };
    let (mut swept, side) = match at.side {
        Side::Source(after) => source_side(client, registered, personal, (after.as_deref(), rows_max)).await?,
        Side::Mirror { head, after } => mirror_side(client, registered, personal, head, (&after, rows_max)).await?,
    };
    swept.next = match side {
        Some(side) => Some(Position { collection: at.collection, side }),
        None => after(&at.collection),
    };
    Ok(swept)
}

/// Every row of the table is on the devices of its branch, as it is.
async fn source_side(
    client: &impl GenericClient,
    registered: &Registered,
    personal: &PersonalData,
    (after, rows_max): (Option<&str>, i64),
) -> Result<(Swept, Option<Side>), AttachError> {
    // A row that every branch has is compared as often as there are branches.
    let rows_max = match registered.source.branch {
        Some(_) => rows_max,
        None => {
            let branches: i64 = client.query_one("SELECT count(*) FROM mstore.branch", &[]).await?.get(0);
            (rows_max / branches.max(1)).max(1)
        }
    };
    let (owned, last) = resolve::page(client, &registered.source, after, "0", rows_max).await?;
    let places = owned.places(client).await?;
    let swept = compare(client, registered, &places, personal).await?;
    let next = last.map_or(Side::Mirror { head: -1, after: String::new() }, |id| Side::Source(Some(id)));
    Ok((swept, Some(next)))
}

/// Every row that devices have is in the table.
async fn mirror_side(
    client: &impl GenericClient,
    registered: &Registered,
    personal: &PersonalData,
    head: i64,
    (after, rows_max): (&str, i64),
) -> Result<(Swept, Option<Side>), AttachError> {
    let (mut at, mut next) = ((head, after.to_owned()), None);
    let mut places: Vec<(BranchKey, String)> = Vec::new();
    for _ in 0..HEADS_MAX {
        let limit = rows_max - i64::try_from(places.len()).unwrap_or(rows_max);
        let rows = client.query(OF_HEAD, &[&registered.source.collection.as_str(), &at.0, &at.1, &limit]).await?;
        places.extend(rows.iter().filter_map(|row| Some((BranchKey::parse(row.get(1), row.get(2)).ok()?, row.get(0)))));
        next = match rows.last().filter(|_| i64::try_from(rows.len()).is_ok_and(|count| count >= limit)) {
            Some(last) => Some(Side::Mirror { head: at.0, after: last.get(0) }),
            None => {
                let row = client.query_one("SELECT min(n) FROM mstore.head WHERE n > $1", &[&at.0]).await?;
                row.get::<_, Option<i64>>(0).map(|head| Side::Mirror { head, after: String::new() })
            }
        };
        match &next {
            Some(Side::Mirror { head, after }) if after.is_empty() => at = (*head, String::new()),
            Some(_) | None => break,
        }
    }
    let swept = compare(client, registered, &places, personal).await?;
    Ok((swept, next))
}

/// Heads looked at in one slice: most may have nothing of a collection.
const HEADS_MAX: usize = 200;
/// Rows of one head after an id, by the key of the mirror.
pub(super) const OF_HEAD: &str = "SELECT m.id, h.merchant_id, h.branch_id FROM mstore.head h CROSS JOIN LATERAL
      (SELECT m.id FROM mstore.mirror m WHERE m.head = h.n AND m.collection = $1 AND m.id > $3 AND m.row IS NOT NULL ORDER BY m.id LIMIT $4) m
    WHERE h.n = $2";
/// What devices have of rows: `n, row`.
pub(super) const STORED: &str = "SELECT w.n, m.row FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS w(m, b, id, n)
    JOIN mstore.head h ON h.merchant_id = w.m AND h.branch_id = w.b
    CROSS JOIN LATERAL (SELECT m.row FROM mstore.mirror m WHERE m.head = h.n AND m.collection = $1 AND m.id = w.id AND m.row IS NOT NULL OFFSET 0) m";
/// Marks of rows, in one look at the marks: they have no index by row.
const MARKED: &str =
    "SELECT DISTINCT k.id, k.branch_id FROM mstore.mark k JOIN unnest($2::text[]) AS w(id) ON w.id = k.id WHERE k.collection = $1";

/// Marks what differs and is not marked yet.
async fn compare(
    client: &impl GenericClient,
    registered: &Registered,
    places: &[(BranchKey, String)],
    personal: &PersonalData,
) -> Result<Swept, AttachError> {
    let collection = registered.source.collection.as_str();
    let wants: Vec<(&BranchKey, &str)> = places.iter().map(|(key, id)| (key, id.as_str())).collect();
    let found = rows::read(client, &registered.source, &wants, personal).await?;
    let (merchants, branches): (Vec<&str>, Vec<&str>) = places.iter().map(|(key, _)| (key.merchant.as_str(), key.branch.as_str())).unzip();
    let ids: Vec<&str> = places.iter().map(|(_, id)| id.as_str()).collect();
    let stored: BTreeMap<i64, String> =
        client.query(STORED, &[&collection, &merchants, &branches, &ids]).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
    let differs = |at: &usize| {
        let text = i64::try_from(at + 1).ok().and_then(|n| stored.get(&n));
        match &found[*at] {
            SourceRow::Is(row) => text.map(String::as_str) != Some(&**row),
            SourceRow::Gone | SourceRow::Expired => text.is_some(),
            // Whoever sequences tells about it, once.
            SourceRow::Bad(_) => true,
            SourceRow::Kept => false,
        }
    };
    let differing: Vec<usize> = (0..places.len()).filter(differs).collect();
    let known = marked(client, collection, &differing.iter().map(|at| ids[*at]).collect::<Vec<_>>()).await?;
    let is_new = |at: &usize| ![branches[*at], "*", ""].iter().any(|branch| known.contains(&(ids[*at].to_owned(), (*branch).to_owned())));
    let marked: Vec<usize> = differing.into_iter().filter(is_new).collect();
    let differing = marked.iter().filter(|at| !matches!(found[**at], SourceRow::Bad(_))).count();
    let pick = |of: &[&str]| -> Vec<String> { marked.iter().map(|at| of[*at].to_owned()).collect() };
    let sql = "INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT $1, w.m, w.b, w.id FROM unnest($2::text[], $3::text[], $4::text[]) AS w(m, b, id)";
    if !marked.is_empty() {
        client.execute(sql, &[&collection, &pick(&merchants), &pick(&branches), &pick(&ids)]).await?;
    }
    Ok(Swept { compared: places.len() as u64, differing: differing as u64, next: None })
}

/// Which of these rows have marks already, and of which branches.
async fn marked(client: &impl GenericClient, collection: &str, ids: &[&str]) -> Result<BTreeSet<(String, String)>, AttachError> {
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = client.query(MARKED, &[&collection, &ids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
