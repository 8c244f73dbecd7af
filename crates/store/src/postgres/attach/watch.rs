//! Notices what is done to attached tables: columns added, renamed, dropped; partitions; triggers taken off; a table swapped by renaming.
//!
//! Nothing tells us when that happens (event triggers need a superuser), so the catalogue is compared with what it was, every few seconds and with each
//! sweep. What can be put right is put right, and all rows are looked at again; what cannot stops the collection, with an alarm, and devices keep what
//! they have.

use tokio_postgres::Client;

use super::{
    AttachError, alarms, install,
    install::Planned,
    look,
    mapping::{CollectionMapping, NewColumns},
    name::ColumnName,
    propose,
    registry::{self, Attached, Registered},
    source::Tables,
    table::Table,
};

/// What a look at one collection came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// As it was.
    Same,
    /// Something was put right, or has to be taken note of: why.
    Renewed(String),
    /// It cannot be read as it is mapped: why.
    Stopped(String),
}

/// Looks at every attached table and puts right what can be; tells whether anything changed.
pub(in crate::postgres) async fn tend(client: &mut Client) -> Result<bool, AttachError> {
    let attached = Attached::load(client).await?;
    let mut is_changed = false;
    for (name, registered) in attached.collections() {
        let verdict = look_at(client, registered).await?;
        is_changed |= act(client, name, registered, verdict).await?;
    }
    Ok(is_changed)
}

async fn act(client: &mut Client, name: &str, registered: &Registered, verdict: Verdict) -> Result<bool, AttachError> {
    match verdict {
        Verdict::Same if registered.stopped.is_none() => return Ok(false),
        Verdict::Stopped(why) if registered.stopped.as_deref() == Some(&*why) => return Ok(false),
        Verdict::Stopped(why) => {
            let transaction = client.transaction().await?;
            registry::set_stopped(&transaction, name, Some(&why)).await?;
            alarms::clear(&transaction, alarms::CHANGED, name).await?;
            let detail = format!(
                "{name}: {why}; devices keep what they have. Put it back, or run `mstore-sync attach` again with a mapping that fits"
            );
            alarms::raise_unless_open(&transaction, alarms::CHANGED, name, &detail).await?;
            transaction.commit().await?;
        }
        verdict @ (Verdict::Same | Verdict::Renewed(_)) => {
            let transaction = client.transaction().await?;
            registry::set_stopped(&transaction, name, None).await?;
            alarms::clear(&transaction, alarms::CHANGED, name).await?;
            registry::mark_everything(&transaction, name).await?;
            transaction.commit().await?;
            if let Verdict::Renewed(what) = verdict {
                tracing::warn!(collection = name, what, "an attached table changed; all of its rows are looked at again");
            }
        }
    }
    Ok(true)
}

async fn look_at(client: &mut Client, registered: &Registered) -> Result<Verdict, AttachError> {
    let names = install::names_of(&registered.mapping);
    let found = look::some(client, &names).await?;
    let tables: Tables = found.into_iter().map(|table| (table.name.clone(), table)).collect();
    for (name, was) in &registered.tables {
        let Some(is) = tables.get(name) else { return Ok(Verdict::Stopped(gone(client, was).await?)) };
        if !is.rights.select {
            return Ok(Verdict::Stopped(format!("{name} may not be read any more")));
        }
        if is.rights.row_security && !was.rights.row_security {
            return Ok(Verdict::Stopped(format!("row security hides rows of {name} from us")));
        }
        if let Some(why) = columns_differ(registered, was, is) {
            return Ok(Verdict::Stopped(why));
        }
    }
    let mapping = grown(&registered.mapping, &registered.tables, &tables);
    let planned = match install::planned(&mapping, &tables, &registered.currency) {
        Ok(planned) => planned,
        Err(AttachError::Mapping { why, .. }) => return Ok(Verdict::Stopped(why)),
        Err(other) => return Err(other),
    };
    let uncaptured = uncaptured(client, &planned).await?;
    let changes = changes(registered, &planned);
    if uncaptured.is_none() && changes.is_none() {
        return Ok(Verdict::Same);
    }
    if uncaptured.is_some() {
        match renew(client, &planned).await {
            Err(error @ (AttachError::Database(_) | AttachError::Locked { .. })) => {
                return Ok(Verdict::Stopped(format!("capture cannot be put back: {error}")));
            }
            done => done?,
        }
    }
    registry::store(client, &planned.mapping, &planned.tables, &registered.currency, planned.source.table.oid).await?;
    let what: Vec<String> = uncaptured.into_iter().chain(changes).collect();
    Ok(Verdict::Renewed(what.join("; ")))
}

/// A table that its name does not lead to any more.
async fn gone(client: &Client, was: &Table) -> Result<String, AttachError> {
    let sql = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let renamed = client.query_opt(sql, &[&was.oid]).await?;
    Ok(match renamed {
        Some(row) => format!("{} is called {}.{} now", was.name, row.get::<_, &str>(0), row.get::<_, &str>(1)),
        None => format!("{} was dropped", was.name),
    })
}

/// A column that the mapping uses and that is not what it was. Which those are, the mapping tells by failing without them.
fn columns_differ(registered: &Registered, was: &Table, is: &Table) -> Option<String> {
    for column in &was.columns {
        let differs = match is.column(&column.name) {
            Some(now) => now.cast != column.cast || now.family != column.family,
            None => true,
        };
        if !differs || !is_used(registered, was, &column.name) {
            continue;
        }
        return Some(match is.column(&column.name) {
            Some(now) => format!("the column {} of {} is {} now, not {}", column.name, was.name, now.cast, column.cast),
            None => format!("{} has no column {} any more", was.name, column.name),
        });
    }
    None
}

/// Whether the mapping cannot do without a column: it does not fit a table that lacks it.
fn is_used(registered: &Registered, table: &Table, column: &str) -> bool {
    let mut without = registered.tables.clone();
    if let Some(table) = without.get_mut(&table.name) {
        table.columns.retain(|other| other.name != column);
    }
    super::source::compile(&registered.mapping, &without, &registered.currency).is_err()
}

/// The mapping with the columns that were added since, if it wants them.
fn grown(mapping: &CollectionMapping, was: &Tables, is: &Tables) -> CollectionMapping {
    let mut mapping = mapping.clone();
    let (Some(was), Some(is)) = (was.get(&mapping.table), is.get(&mapping.table)) else { return mapping };
    if mapping.new_columns == NewColumns::Ignore {
        return mapping;
    }
    for column in is.columns.iter().filter(|column| was.column(&column.name).is_none()) {
        let is_name = !column.name.is_empty()
            && column.name != "id"
            && column.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if let Some((field, _note)) = propose::of_column(column).ok().filter(|_| is_name) {
            mapping
                .fields
                .entry(column.name.clone())
                .or_insert(super::mapping::Field { column: Some(ColumnName::own(&column.name)), ..field });
        }
    }
    mapping
}

/// What is different about a collection that still fits.
fn changes(registered: &Registered, planned: &Planned) -> Option<String> {
    let identity =
        |tables: &Tables| -> Vec<_> { tables.values().map(|table| (table.name.clone(), table.oid, table.parts.clone())).collect() };
    if identity(&registered.tables) != identity(&planned.tables) {
        return Some("another table has its name, or its partitions are others".into());
    }
    if registered.mapping != planned.mapping {
        return Some("columns were added, and the mapping sends them".into());
    }
    let columns = |tables: &Tables| -> Vec<_> { tables.values().map(|table| table.columns.clone()).collect() };
    (columns(&registered.tables) != columns(&planned.tables)).then(|| "columns that are not sent were added, changed or dropped".into())
}

/// A table that our triggers do not watch as they should.
async fn uncaptured(client: &Client, planned: &Planned) -> Result<Option<String>, AttachError> {
    let installed = install::installed(client, &planned.mapping.name).await?;
    for capture in &planned.captures {
        for (oid, table) in capture.tables() {
            for name in capture.trigger_names() {
                match installed.iter().find(|found| found.oid == oid && found.trigger == name) {
                    None => return Ok(Some(format!("{table} had no trigger {name}"))),
                    Some(found) if !found.is_always => return Ok(Some(format!("the trigger {name} on {table} did not fire always"))),
                    Some(_) => {}
                }
            }
        }
    }
    Ok(None)
}

async fn renew(client: &mut Client, planned: &Planned) -> Result<(), AttachError> {
    for capture in &planned.captures {
        client.batch_execute(&capture.function_sql()).await?;
        client.batch_execute(&capture.revoke_sql()).await?;
    }
    install::capture(client, planned, &mut |_| {}).await
}
