//! Reads rows of an attached collection as devices are to have them.

use mstore_protocol::{BranchKey, PersonalData, Row, RowError};
use tokio_postgres::{GenericClient, types::ToSql};

use super::{
    AttachError, key,
    source::{Source, Value},
};
use crate::source_row::SourceRow;

/// Parameters of a query: the branches that are asked for, and the parts of the keys, column by column.
pub(super) struct Wanted {
    branches: Vec<String>,
    parts: Vec<Vec<String>>,
    /// Which want each place belongs to.
    of: Vec<usize>,
}

impl Wanted {
    /// Leaves out what cannot be a key of this table.
    pub(super) fn new<'a>(source: &Source, wants: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let key = source.key();
        let mut wanted = Self { branches: Vec::new(), parts: vec![Vec::new(); key.len()], of: Vec::new() };
        for (n, (branch, id)) in wants.enumerate() {
            let Some(parts) = key::parts(id, &key) else { continue };
            wanted.branches.push(branch.to_owned());
            for (column, part) in wanted.parts.iter_mut().zip(parts) {
                column.push(part);
            }
            wanted.of.push(n);
        }
        wanted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&self.branches];
        params.extend(self.parts.iter().map(|part| part as &(dyn ToSql + Sync)));
        params
    }

    /// The want that the `n` of an answer belongs to.
    pub(super) fn place(&self, n: i64) -> Option<usize> {
        usize::try_from(n).ok()?.checked_sub(1).and_then(|at| self.of.get(at).copied())
    }
}

/// Reads rows, in the order of the wants.
pub(super) async fn read(
    client: &impl GenericClient,
    source: &Source,
    wants: &[(&BranchKey, &str)],
    personal: &PersonalData,
) -> Result<Vec<SourceRow>, AttachError> {
    let mut found = vec![SourceRow::Gone; wants.len()];
    let wanted = Wanted::new(source, wants.iter().map(|(key, id)| (key.branch.as_str(), *id)));
    if wanted.is_empty() {
        return Ok(found);
    }
    let statement = client.prepare(&source.rows_sql()).await?;
    let mut seen = vec![false; wants.len()];
    for row in client.query(&statement, &wanted.params()).await? {
        let Some(at) = wanted.place(row.get(0)) else { continue };
        let (key, id) = wants[at];
        let (merchant, branch): (Option<&str>, Option<&str>) = (row.get(1), row.get(2));
        let is_here = merchant == Some(key.merchant.as_str()) && (source.branch.is_none() || branch == Some(key.branch.as_str()));
        if !is_here {
            continue;
        }
        if std::mem::replace(&mut seen[at], true) {
            found[at] = SourceRow::Bad("several rows have this key".into());
            continue;
        }
        if !row.get::<_, bool>(3) {
            found[at] = SourceRow::Expired;
            continue;
        }
        let values: Vec<Option<&str>> = (0..source.values.len()).map(|i| row.get(i + 4)).collect();
        found[at] = text(source, id, &values).screened(personal);
    }
    Ok(found)
}

/// Reads no row at all: fails as reading one would.
pub(super) async fn probe(client: &impl GenericClient, source: &Source) -> Result<(), AttachError> {
    let none = Wanted::new(source, std::iter::empty());
    client.query(&source.rows_sql(), &none.params()).await?;
    Ok(())
}

/// Runs every statement that reads a collection, for no row.
pub(super) async fn check(client: &impl GenericClient, source: &Source) -> Result<(), AttachError> {
    probe(client, source).await?;
    let none = Wanted::new(source, std::iter::empty());
    client.query(&source.owners_sql(), &none.params()).await?;
    client.query(&source.page_sql(false), &[&0_i64]).await?;
    for related in &source.related {
        let parts = vec![Vec::<String>::new(); related.lefts.len()];
        let params: Vec<_> = parts.iter().map(|part| part as &(dyn ToSql + Sync)).collect();
        client.query(&source.related_sql(related), &params).await?;
    }
    Ok(())
}

/// One row as canonical text.
fn text(source: &Source, id: &str, values: &[Option<&str>]) -> SourceRow {
    let mut out = String::with_capacity(256);
    for field in &source.fields {
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(&quoted(&field.name));
        out.push(':');
        let written = match &field.value {
            Value::Id => {
                out.push_str(&quoted(id));
                Ok(())
            }
            Value::Constant(json) => {
                out.push_str(json);
                Ok(())
            }
            Value::Column { at, convert, otherwise } => match (values.get(*at).copied().flatten(), otherwise) {
                (None, Some(json)) => {
                    out.push_str(json);
                    Ok(())
                }
                (value, _) => convert.write(&mut out, value, values),
            },
        };
        if let Err(why) = written {
            return SourceRow::Bad(format!("{}: {why}", field.name));
        }
    }
    out.push('}');
    match SourceRow::bounded(out.into()) {
        SourceRow::Is(text) => {
            Row::parse(&text).map_or_else(|error| SourceRow::Bad(reason(&error)), |row| SourceRow::Is(row.as_str().into()))
        }
        bad @ (SourceRow::Bad(_) | SourceRow::Gone | SourceRow::Expired | SourceRow::Kept) => bad,
    }
}

fn reason(error: &RowError) -> String {
    match error {
        RowError::Canonical(_) => format!("{error}; a JSON column with floats can be sent as = \"text\""),
        RowError::NotAnObject | RowError::Id | RowError::IdChanged => error.to_string(),
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}
