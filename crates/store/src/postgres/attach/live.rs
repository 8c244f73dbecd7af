//! What is attached, as a running server has it in memory: never older than the transaction that asks.

use std::sync::{Arc, PoisonError, RwLock};

use mstore_protocol::BranchKey;
use tokio_postgres::Client;

use super::{
    AttachError, alarms, guard,
    registry::{self, Attached},
    resolve, rows,
    rows::Found,
    watch,
};

/// What is attached now.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Live(RwLock<Arc<Attached>>);

/// What a wanted row of an attached collection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::postgres) enum Read {
    /// The collection is not attached: the row is of our own tables.
    Own,
    /// This.
    Row(Found),
    /// It cannot be known now: devices keep what they have.
    Kept,
}

impl Live {
    /// As the client's transaction sees it.
    pub(in crate::postgres) async fn fresh(&self, client: &Client) -> Result<Arc<Attached>, AttachError> {
        let known = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        if !known.is_stale(client).await? {
            return Ok(known);
        }
        let fresh = Arc::new(Attached::load(client).await?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        Ok(fresh)
    }

    /// Resolves marks in a sequencing transaction, those at these places (`ctid`) or all; tells whether there were any.
    pub(in crate::postgres) async fn resolve(&self, client: &Client, places: Option<&[String]>) -> Result<bool, AttachError> {
        let attached = self.fresh(client).await?;
        resolve::resolve(client, &attached, places).await
    }

    /// Reads what is attached of the rows that are wanted, in a transaction: branch, collection, id of each.
    pub(in crate::postgres) async fn read(&self, client: &Client, wanted: &[(&BranchKey, &str, &str)]) -> Result<Vec<Read>, AttachError> {
        let attached = self.fresh(client).await?;
        let mut found = vec![Read::Own; wanted.len()];
        let mut names: Vec<&str> = wanted.iter().map(|(_, collection, _)| *collection).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let places: Vec<usize> = (0..wanted.len()).filter(|at| wanted[*at].1 == name).collect();
            match attached.collection(name) {
                Some(registered) if registered.stopped.is_none() => {
                    let wants: Vec<(&BranchKey, &str)> = places.iter().map(|at| (wanted[*at].0, wanted[*at].2)).collect();
                    match guard::guarded(client, rows::read(client, &registered.source, &wants)).await? {
                        Ok(rows) => places.iter().zip(rows).for_each(|(at, row)| found[*at] = Read::Row(row)),
                        Err(why) => {
                            stop(client, name, &why).await?;
                            places.iter().for_each(|at| found[*at] = Read::Kept);
                        }
                    }
                }
                Some(_stopped) => places.iter().for_each(|at| found[*at] = Read::Kept),
                // Attached by a newer version, or not any more: nobody here knows what it is.
                None if !is_built_in(name) => places.iter().for_each(|at| found[*at] = Read::Kept),
                None if attached.is_broken(name) => places.iter().for_each(|at| found[*at] = Read::Kept),
                None => {}
            }
        }
        Ok(found)
    }

    /// Looks after the attached tables; call it every few seconds, on one server or on all.
    pub(in crate::postgres) async fn tend(&self, client: &mut Client) -> Result<bool, AttachError> {
        watch::tend(client).await
    }
}

fn is_built_in(name: &str) -> bool {
    matches!(name, "product" | "inventory" | "transaction" | "branch")
}

/// The table cannot be read: the collection stands still until somebody looks at it ([`watch::tend`], within seconds).
pub(super) async fn stop(client: &Client, name: &str, why: &str) -> Result<(), AttachError> {
    registry::set_stopped(client, name, Some(why)).await?;
    let detail = format!("{name}: {why}; devices keep what they have, and it is tried again every few seconds");
    alarms::raise_unless_open(client, alarms::CHANGED, name, &detail).await
}
