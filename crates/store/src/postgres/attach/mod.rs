//! Attaching tables that are not ours: looks at a database, proposes a mapping, puts capture on its tables, reads their rows as collections.
//!
//! What it writes outside the schema `mstore` is triggers, nothing else; [`Attacher::detach`] takes every one of them away again.

mod alarms;
mod branches;
mod convert;
mod decimal;
mod error;
mod guard;
mod install;
mod key;
mod live;
mod look;
pub mod mapping;
mod name;
mod propose;
mod registry;
mod resolve;
mod rows;
mod source;
mod strays;
mod sweep;
pub mod table;
#[cfg(test)]
mod tests;
mod triggers;
mod watch;
mod windows;

pub use error::AttachError;
pub use install::Plan;
pub(super) use live::{Live, Read};
pub use name::{ColumnName, TableName};
pub use propose::{Given, Notes, Proposal, propose};
use tokio_postgres::Client;

use self::{mapping::Mapping, table::Table};
use super::{PgConfig, connect::Connector, error::described, migrate};

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
    /// Connects as whoever the URL says, with the same rules about TLS as the store.
    pub async fn connect(url: &str) -> Result<Self, AttachError> {
        let config = PgConfig::new(url, std::sync::Arc::new(|| mstore_protocol::Timestamp::from_ms(0)));
        let connector = Connector::new(&config).map_err(|error| AttachError::Unreachable(error.to_string()))?;
        let client = connector.connect().await.map_err(|error| AttachError::Unreachable(described(&error)))?;
        client.batch_execute(SESSION).await?;
        Ok(Self { client })
    }

    /// Brings our schema up to date, and makes it if there is none.
    pub async fn prepare(&self) -> Result<(), AttachError> {
        migrate::up(&self.client).await.map_err(|error| AttachError::Damaged(error.to_string()))
    }

    /// Every table, view and foreign table that is not the system's or ours.
    pub async fn look(&self) -> Result<Vec<Table>, AttachError> {
        look::all(&self.client).await
    }

    /// Checks a mapping against the tables.
    pub async fn plan(&self, mapping: Mapping) -> Result<Plan, AttachError> {
        install::plan(&self.client, mapping).await
    }

    /// Carries a plan out; repeating it does no harm. `inbox` says whether operations of merchants whose backend decides are put into the table that it reads;
    /// when left out, they are unless the database says otherwise.
    pub async fn install(
        &mut self,
        plan: &Plan,
        inbox: Option<bool>,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), AttachError> {
        install::install(&mut self.client, plan, inbox, progress).await
    }

    /// Whether operations of merchants whose backend decides are put into the table that it reads.
    pub async fn is_inbox_on(&self) -> Result<bool, AttachError> {
        let sql = "SELECT 1 FROM mstore.setting WHERE name = 'operation_inbox' AND value = 'on'";
        Ok(self.client.query_opt(sql, &[]).await?.is_some())
    }

    /// The collections that are attached.
    pub async fn attached(&self) -> Result<Vec<String>, AttachError> {
        if self.client.query_opt("SELECT 1 FROM pg_tables WHERE schemaname = 'mstore' AND tablename = 'attached'", &[]).await?.is_none() {
            return Ok(Vec::new());
        }
        let rows = self.client.query("SELECT collection FROM mstore.attached ORDER BY collection", &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The database's name.
    pub async fn database(&self) -> Result<String, AttachError> {
        Ok(self.client.query_one("SELECT current_database()::text", &[]).await?.get(0))
    }

    /// Drops our schema with everything in it. Detach first: dropping a function that a trigger calls takes the trigger's lock.
    pub async fn purge(&mut self) -> Result<(), AttachError> {
        Ok(self.client.batch_execute("DROP SCHEMA IF EXISTS mstore CASCADE").await?)
    }

    /// Takes a collection off its tables; gives how many triggers that were.
    pub async fn detach(&mut self, collection: &str) -> Result<usize, AttachError> {
        install::detach(&mut self.client, collection).await
    }
}

/// The advisory lock of the server that looks after attached tables; it holds it as long as its session lasts.
pub(super) const TEND_LOCK: i64 = 0x6d73_746f_7266;

/// What the session of that server needs beside what every session of ours has.
pub(super) const TEND_SESSION: &str = "SET search_path = pg_catalog";

/// Whether anything is attached.
pub(super) async fn is_any(client: &Client) -> Result<bool, AttachError> {
    Ok(client.query_opt("SELECT 1 FROM mstore.attached LIMIT 1", &[]).await?.is_some())
}

/// What our sessions need, whatever the role's or the database's defaults: floats in their shortest exact form, no rows hidden without an error.
const SESSION: &str =
    "SET search_path = pg_catalog; SET extra_float_digits = 1; SET row_security = off; SET standard_conforming_strings = on;
    SET application_name = 'mstore-sync attach'";
