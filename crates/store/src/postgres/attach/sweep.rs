//! Compares attached tables with what devices have, slice by slice by key: what no trigger saw is found here.

use std::collections::BTreeMap;

use mstore_protocol::BranchKey;
use tokio_postgres::GenericClient;

use super::{
    AttachError,
    registry::{Attached, Registered},
    resolve,
    rows::{self, Found},
};

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
        Side::Source(after) => source_side(client, registered, after.as_deref(), rows_max).await?,
        Side::Mirror { head, after } => mirror_side(client, registered, head, &after, rows_max).await?,
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
    after: Option<&str>,
    rows_max: i64,
) -> Result<(Swept, Option<Side>), AttachError> {
    let (owned, last) = resolve::page(client, &registered.source, after, "0", rows_max).await?;
    let places = owned.places(client).await?;
    let swept = compare(client, registered, &places).await?;
    let next = last.map_or(Side::Mirror { head: -1, after: String::new() }, |id| Side::Source(Some(id)));
    Ok((swept, Some(next)))
}

/// Every row that devices have is in the table.
async fn mirror_side(
    client: &impl GenericClient,
    registered: &Registered,
    head: i64,
    after: &str,
    rows_max: i64,
) -> Result<(Swept, Option<Side>), AttachError> {
    let sql = "SELECT m.head, m.id, h.merchant_id, h.branch_id FROM mstore.mirror m JOIN mstore.head h ON h.n = m.head
        WHERE m.collection = $1 AND m.row IS NOT NULL AND (m.head, m.id) > ($2, $3) ORDER BY m.head, m.id LIMIT $4";
    let rows = client.query(sql, &[&registered.source.collection.as_str(), &head, &after, &rows_max]).await?;
    let place = |row: &tokio_postgres::Row| Some((BranchKey::parse(row.get(2), row.get(3)).ok()?, row.get(1)));
    let places: Vec<(BranchKey, String)> = rows.iter().filter_map(place).collect();
    let swept = compare(client, registered, &places).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|count| count == rows_max);
    let next = rows.last().filter(|_| is_full).map(|row| Side::Mirror { head: row.get(0), after: row.get(1) });
    Ok((swept, next))
}

/// Marks what differs and is not marked yet.
async fn compare(client: &impl GenericClient, registered: &Registered, places: &[(BranchKey, String)]) -> Result<Swept, AttachError> {
    let collection = registered.source.collection.as_str();
    let wants: Vec<(&BranchKey, &str)> = places.iter().map(|(key, id)| (key, id.as_str())).collect();
    let found = rows::read(client, &registered.source, &wants).await?;
    let (merchants, branches): (Vec<&str>, Vec<&str>) = places.iter().map(|(key, _)| (key.merchant.as_str(), key.branch.as_str())).unzip();
    let ids: Vec<&str> = places.iter().map(|(_, id)| id.as_str()).collect();
    let sql = "SELECT w.n, m.row, EXISTS (SELECT 1 FROM mstore.mark k WHERE k.collection = $1 AND k.id = w.id AND k.branch_id IN (w.b, '*', '')) AS is_marked
        FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS w(m, b, id, n)
        LEFT JOIN mstore.head h ON h.merchant_id = w.m AND h.branch_id = w.b
        LEFT JOIN mstore.mirror m ON m.head = h.n AND m.collection = $1 AND m.id = w.id";
    let mirror: BTreeMap<i64, (Option<String>, bool)> = client
        .query(sql, &[&collection, &merchants, &branches, &ids])
        .await?
        .iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2))))
        .collect();
    let differs = |at: &usize| {
        let (text, is_marked) = i64::try_from(at + 1).ok().and_then(|n| mirror.get(&n)).cloned().unwrap_or_default();
        !is_marked
            && match &found[*at] {
                Found::Is(row) => text.as_deref() != Some(&**row),
                Found::Gone | Found::Expired => text.is_some(),
                // Whoever sequences tells about it, once.
                Found::Bad(_) => true,
            }
    };
    let marked: Vec<usize> = (0..places.len()).filter(differs).collect();
    let differing = marked.iter().filter(|at| !matches!(found[**at], Found::Bad(_))).count();
    let pick = |of: &[&str]| -> Vec<String> { marked.iter().map(|at| of[*at].to_owned()).collect() };
    let sql = "INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT $1, w.m, w.b, w.id FROM unnest($2::text[], $3::text[], $4::text[]) AS w(m, b, id)";
    if !marked.is_empty() {
        client.execute(sql, &[&collection, &pick(&merchants), &pick(&branches), &pick(&ids)]).await?;
    }
    Ok(Swept { compared: places.len() as u64, differing: differing as u64, next: None })
}
