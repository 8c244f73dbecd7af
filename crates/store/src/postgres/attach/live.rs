//! What is attached, as a running server has it in memory: never older than the transaction that asks.

use std::sync::{Arc, PoisonError, RwLock};

use mstore_protocol::{BranchKey, PersonalData, Timestamp};
use tokio_postgres::{Client, Error, GenericClient};

use super::{
    AttachError, alarms, guard,
    registry::{self, Attached, Registered},
    resolve, rows, sweep,
    sweep::{Position, Swept},
    watch, windows,
};
use crate::source_row::SourceRow;

/// What is attached now.
#[derive(Debug, Default)]
pub(crate) struct Live {
    attached: RwLock<Arc<Attached>>,
    personal: PersonalData,
}

const VERSION: &str = "SELECT value::bigint FROM mstore.setting WHERE name = 'attach_version'";

/// What a wanted row of an attached collection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::postgres) enum Read {
    /// The collection is not attached: the row is of our own tables.
    Own,
    /// This.
    Row(SourceRow),
    /// It cannot be known now: devices keep what they have.
    Kept,
}

impl Read {
    /// As a row of any other source.
    pub(in crate::postgres) fn row(self) -> SourceRow {
        match self {
            Self::Row(row) => row,
            Self::Own | Self::Kept => SourceRow::Kept,
        }
    }
}

impl Live {
    /// Nothing is known to be attached yet.
    pub(in crate::postgres) fn new(personal: PersonalData) -> Self {
        Self { attached: RwLock::default(), personal }
    }

    /// What no row may hold, attached or of our own.
    pub(in crate::postgres) fn personal_data(&self) -> &PersonalData {
        &self.personal
    }

    fn known(&self) -> Arc<Attached> {
        Arc::clone(&self.attached.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a collection is one of our own tables, as far as is known.
    pub(in crate::postgres) fn is_own(&self, collection: &str) -> bool {
        is_built_in(collection) && !self.known().has(collection)
    }

    /// Whether what is known is what the client's transaction sees.
    pub(in crate::postgres) async fn is_fresh(&self, client: &impl deadpool_postgres::GenericClient) -> Result<bool, Error> {
        let statement = client.prepare_cached(VERSION).await?;
        let version = client.query_opt(&statement, &[]).await?.map_or(0, |row| row.get(0));
        Ok(self.known().version() == version)
    }

    /// As the client's transaction sees it.
    async fn fresh(&self, client: &impl GenericClient) -> Result<Arc<Attached>, AttachError> {
        let known = self.known();
        if !known.is_stale(client).await? {
            return Ok(known);
        }
        let fresh = Arc::new(Attached::load(client).await?);
        *self.attached.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        Ok(fresh)
    }

    /// Resolves marks in a sequencing transaction, those at these places (`ctid`) or all; tells whether there were any.
    pub(in crate::postgres) async fn resolve(&self, client: &impl GenericClient, places: Option<&[String]>) -> Result<bool, Error> {
        let resolved = async {
            let attached = self.fresh(client).await?;
            resolve::resolve(client, &attached, places).await
        };
        or_say(resolved.await, || false)
    }

    /// Reads what is attached of the rows that are wanted, in a transaction: branch, collection, id of each.
    pub(in crate::postgres) async fn read(
        &self,
        client: &impl GenericClient,
        wanted: &[(&BranchKey, &str, &str)],
    ) -> Result<Vec<Read>, Error> {
        or_say(self.read_all(client, wanted).await, || vec![Read::Kept; wanted.len()])
    }

    async fn read_all(&self, client: &impl GenericClient, wanted: &[(&BranchKey, &str, &str)]) -> Result<Vec<Read>, AttachError> {
        let attached = self.fresh(client).await?;
        let mut found = vec![Read::Own; wanted.len()];
        let mut names: Vec<&str> = wanted.iter().map(|(_, collection, _)| *collection).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            if is_built_in(name) && !attached.has(name) {
                continue;
            }
            let places: Vec<usize> = (0..wanted.len()).filter(|at| wanted[*at].1 == name).collect();
            // Attached by a newer version, stopped, or not any more: devices keep what they have.
            let flowing = attached.collection(name).filter(|registered| registered.stopped.is_none());
            let wants: Vec<(&BranchKey, &str)> = places.iter().map(|at| (wanted[*at].0, wanted[*at].2)).collect();
            let rows = match flowing {
                Some(registered) => of_one(client, registered, &wants, &self.personal).await?,
                None => vec![Read::Kept; places.len()],
            };
            places.into_iter().zip(rows).for_each(|(at, row)| found[at] = row);
        }
        Ok(found)
    }

    /// Compares the next rows of attached tables and marks what differs; from the beginning if the text is no position.
    pub(in crate::postgres) async fn sweep(&self, client: &impl GenericClient, from: &str, rows_max: i64) -> Result<Swept, Error> {
        let swept = async {
            let attached = self.fresh(client).await?;
            sweep::slice(client, &attached, &self.personal, Position::parse(from), rows_max).await
        };
        or_say(swept.await, Swept::default)
    }

    /// Moves the windows of attached tables to now, and marks what leaves them; in a transaction.
    pub(in crate::postgres) async fn advance_windows(&self, client: &impl GenericClient, now: Timestamp) -> Result<(), Error> {
        let advanced = async {
            let attached = self.fresh(client).await?;
            windows::advance(client, &attached, now).await
        };
        or_say(advanced.await, || ())
    }

    /// Looks after the attached tables; call it every few seconds.
    pub(in crate::postgres) async fn tend(&self, client: &mut Client) -> Result<bool, AttachError> {
        watch::tend(client).await
    }
}

/// The database's own errors are for the caller; what else there is about attached tables must not be in his way.
fn or_say<T>(result: Result<T, AttachError>, otherwise: impl FnOnce() -> T) -> Result<T, Error> {
    match result {
        Err(AttachError::Database(error)) => Err(error),
        Err(other) => {
            tracing::error!(error = %other, "attached tables cannot be read");
            Ok(otherwise())
        }
        Ok(value) => Ok(value),
    }
}

async fn of_one(
    client: &impl GenericClient,
    registered: &Registered,
    wants: &[(&BranchKey, &str)],
    personal: &PersonalData,
) -> Result<Vec<Read>, AttachError> {
    match guard::guarded(client, rows::read(client, &registered.source, wants, personal)).await? {
        Ok(rows) => Ok(rows.into_iter().map(Read::Row).collect()),
        Err(why) => {
            stop(client, registered.source.collection.as_str(), &why).await?;
            Ok(vec![Read::Kept; wants.len()])
        }
    }
}

fn is_built_in(name: &str) -> bool {
    matches!(name, "product" | "inventory" | "transaction" | "branch")
}

/// The table cannot be read: the collection stands still until somebody looks at it ([`watch::tend`], within seconds). Whoever only reads leaves that to others.
pub(super) async fn stop(client: &impl GenericClient, name: &str, why: &str) -> Result<(), AttachError> {
    let reads_only: bool = client.query_one("SELECT current_setting('transaction_read_only')::boolean", &[]).await?.get(0);
    if reads_only {
        return Ok(());
    }
    registry::set_stopped(client, name, Some(why)).await?;
    let detail = format!("{name}: {why}; devices keep what they have, and it is tried again every few seconds");
    alarms::raise_unless_open(client, alarms::CHANGED, name, &detail).await.map(|_| ())
}
