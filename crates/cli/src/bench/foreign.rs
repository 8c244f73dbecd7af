//! A writer that is not the server: SQL on the server's tables, in whichever database they are.

use std::{path::Path, time::Duration};

use mstore_protocol::BranchKey;

use super::scratch;
use crate::{failure::Failure, server_process::Usage};

const BUSY: Duration = Duration::from_secs(30);

pub(super) enum Foreign {
    Sqlite(rusqlite::Connection),
    Postgres(tokio_postgres::Client),
}

impl Foreign {
    /// Beside the server, on its database: the file, or what is at the URL.
    pub(super) async fn open(file: &Path, database: Option<&str>) -> Result<Self, Failure> {
        match database {
            Some(url) => {
                let client = scratch::connect(url).await?;
                client.batch_execute("SET search_path = mstore").await.map_err(|error| scratch::failed(&error))?;
                Ok(Self::Postgres(client))
            }
            None => Self::sqlite(file).map_err(|error| Failure::unavailable(error.to_string())),
        }
    }

    fn sqlite(file: &Path) -> rusqlite::Result<Self> {
        let sql = rusqlite::Connection::open(file)?;
        sql.busy_timeout(BUSY)?;
        Ok(Self::Sqlite(sql))
    }

    /// Statements that both databases understand, in one transaction.
    pub(super) async fn execute(&mut self, statements: &str) -> Result<(), Failure> {
        let one = format!("BEGIN; {statements}; COMMIT");
        match self {
            Self::Sqlite(sql) => sql.execute_batch(&one).map_err(|error| refused(&error)),
            Self::Postgres(client) => client.batch_execute(&one).await.map_err(|error| scratch::failed(&error)),
        }
    }

    /// The only number that a query answers.
    pub(super) async fn number(&mut self, query: &str) -> Result<i64, Failure> {
        match self {
            Self::Sqlite(sql) => sql.query_row(query, [], |row| row.get(0)).map_err(|error| refused(&error)),
            Self::Postgres(client) => {
                let row = client.query_one(query, &[]).await.map_err(|error| scratch::failed(&error))?;
                row.try_get(0).map_err(|error| scratch::failed(&error))
            }
        }
    }

    /// Everything on disk, without the log of the last changes.
    pub(super) async fn bytes(&mut self) -> Result<i64, Failure> {
        let query = match self {
            Self::Sqlite(_) => "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            Self::Postgres(_) => "SELECT pg_database_size(current_database())",
        };
        self.number(query).await
    }

    /// CPU time that the database's own processes have used for its other clients; zero where there are none on this machine.
    pub(super) async fn server_cpu_ms(&mut self) -> Result<u64, Failure> {
        let Self::Postgres(client) = self else { return Ok(0) };
        let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND inet_server_addr() IS NOT DISTINCT FROM inet_client_addr()";
        let pids = client.query(sql, &[]).await.map_err(|error| scratch::failed(&error))?;
        Ok(pids.iter().filter_map(|row| u32::try_from(row.get::<_, i32>(0)).ok()).map(|pid| Usage::of(pid).cpu_ms).sum())
    }

    /// One stock figure, in a transaction of its own; returns when it is durable.
    pub(super) async fn set_stock(&mut self, key: &BranchKey, product: &str, milli: i64) -> Result<(), Failure> {
        let (merchant, branch) = (key.merchant.as_str(), key.branch.as_str());
        match self {
            Self::Sqlite(sql) => {
                let statement = "INSERT INTO branch_product (merchant_id, branch_id, product_id, stock_milli) VALUES (?1, ?2, ?3, ?4)
                    ON CONFLICT (merchant_id, branch_id, product_id) DO UPDATE SET stock_milli = excluded.stock_milli";
                sql.execute(statement, (merchant, branch, product, milli)).map_err(|error| refused(&error))?;
            }
            Self::Postgres(client) => {
                let statement = "INSERT INTO branch_product (merchant_id, branch_id, product_id, stock_milli) VALUES ($1, $2, $3, $4)
                    ON CONFLICT (merchant_id, branch_id, product_id) DO UPDATE SET stock_milli = excluded.stock_milli";
                client.execute(statement, &[&merchant, &branch, &product, &milli]).await.map_err(|error| scratch::failed(&error))?;
            }
        }
        Ok(())
    }

    /// The branch's own prices of these products, in one transaction.
    pub(super) async fn set_prices(&mut self, key: &BranchKey, prices: &[(&str, i64)]) -> Result<(), Failure> {
        match self {
            Self::Sqlite(sql) => sqlite_prices(sql, key, prices).map_err(|error| refused(&error)),
            Self::Postgres(client) => {
                let (products, amounts): (Vec<&str>, Vec<i64>) = prices.iter().copied().unzip();
                let statement = "INSERT INTO branch_product (merchant_id, branch_id, product_id, price_amount)
                    SELECT $1, $2, product, amount FROM unnest($3::text[], $4::bigint[]) AS p (product, amount)
                    ON CONFLICT (merchant_id, branch_id, product_id) DO UPDATE SET price_amount = excluded.price_amount";
                let (merchant, branch) = (key.merchant.as_str(), key.branch.as_str());
                let written = client.execute(statement, &[&merchant, &branch, &products, &amounts]).await;
                written.map(drop).map_err(|error| scratch::failed(&error))
            }
        }
    }
}

fn sqlite_prices(sql: &mut rusqlite::Connection, key: &BranchKey, prices: &[(&str, i64)]) -> rusqlite::Result<()> {
    let set = "INSERT INTO branch_product (merchant_id, branch_id, product_id, price_amount) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (merchant_id, branch_id, product_id) DO UPDATE SET price_amount = excluded.price_amount";
    let transaction = sql.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut update = transaction.prepare_cached(set)?;
    for (product, amount) in prices {
        update.execute((key.merchant.as_str(), key.branch.as_str(), product, amount))?;
    }
    drop(update);
    transaction.commit()
}

fn refused(error: &rusqlite::Error) -> Failure {
    Failure::check(format!("SQL: {error}"))
}
