//! One life of a database server, from its start to its end. Numbers of transactions mean something within it only: after a crash, or on a replica that took
//! over, they may be given again.

use tokio_postgres::{Client, Error};

/// The life that answers a statement, as an expression in SQL.
pub(super) const LIFE: &str = "CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000 AS BIGINT)";

/// When it began, microseconds by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Life(pub(super) i64);

/// A transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Xid {
    /// Who gave the number.
    pub(super) life: Life,
    /// Its number.
    pub(super) number: u64,
}

/// The life that a connection leads to; it ends with that.
pub(super) async fn of(client: &Client) -> Result<Life, Error> {
    let row = client.query_one(&format!("SELECT {LIFE}"), &[]).await?;
    Ok(Life(row.get(0)))
}
