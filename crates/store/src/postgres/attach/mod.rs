//! Attaching tables that are not ours: looks at a database, proposes a mapping, puts capture on its tables, reads their rows as collections.
//!
//! What it writes outside the schema `mstore` is triggers, nothing else; [`Attacher::detach`] takes every one of them away again.

mod alarms;
mod branches;
mod convert;
mod decimal;
mod error;
mod install;
mod key;
mod look;
pub mod mapping;
mod name;
mod propose;
mod registry;
mod resolve;
mod rows;
mod source;
mod sweep;
pub mod table;
#[cfg(test)]
mod tests;
mod triggers;
mod watch;

pub use error::AttachError;
pub use install::Plan;
pub use name::{ColumnName, TableName};
pub use propose::{Given, Notes, Proposal, propose};
use tokio_postgres::Client;

use self::{mapping::Mapping, table::Table};

/// How far an installation has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Triggers are on a table.
    Captured {
        /// The collection that they are for.
        collection: String,
        /// The table.
        table: TableName,
    },
    /// Rows are marked for the first mirror.
    Marked {
        /// The collection.
        collection: String,
        /// How many so far.
        rows: u64,
        /// All of them.
        done: bool,
    },
}

/// A session with the database of somebody else.
pub struct Attacher {
    client: Client,
}

impl Attacher {
    /// Connects as whoever the URL says.
    pub async fn connect(url: &str) -> Result<Self, AttachError> {
        let unreachable = |error: tokio_postgres::Error| AttachError::Unreachable(error.to_string());
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.map_err(unreachable)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection for attaching ended");
            }
        });
        client.batch_execute(SESSION).await?;
        Ok(Self { client })
    }

    /// Every table, view and foreign table that is not the system's or ours.
    pub async fn look(&self) -> Result<Vec<Table>, AttachError> {
        look::all(&self.client).await
    }

    /// Checks a mapping against the tables.
    pub async fn plan(&self, mapping: Mapping) -> Result<Plan, AttachError> {
        install::plan(&self.client, mapping).await
    }

    /// Carries a plan out; repeating it does no harm.
    pub async fn install(&mut self, plan: &Plan, progress: &mut dyn FnMut(Progress)) -> Result<(), AttachError> {
        install::install(&mut self.client, plan, progress).await
    }

    /// The collections that are attached.
    pub async fn attached(&self) -> Result<Vec<String>, AttachError> {
        let rows = self.client.query("SELECT collection FROM mstore.attached ORDER BY collection", &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Takes a collection off its tables; gives how many triggers that were.
    pub async fn detach(&mut self, collection: &str) -> Result<usize, AttachError> {
        install::detach(&mut self.client, collection).await
    }
}

/// What our sessions need, whatever the role's or the database's defaults: floats in their shortest exact form, no rows hidden without an error.
const SESSION: &str =
    "SET search_path = pg_catalog; SET extra_float_digits = 1; SET row_security = off; SET standard_conforming_strings = on;
    SET application_name = 'mstore-sync attach'";
