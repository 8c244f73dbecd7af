//! Looks at a database before it is used: whether it can be, and what about its settings loses data.

use tokio_postgres::Client;

use super::{
    connect::Connector,
    error::{PgOpenError, described},
};

/// The oldest version that has what we use.
const VERSION_MIN: i32 = 130_000;

fn failed(error: tokio_postgres::Error) -> PgOpenError {
    PgOpenError::Unreachable(described(&error))
}

/// Refuses what cannot work.
pub(super) async fn check(connector: &Connector) -> Result<Client, PgOpenError> {
    let client = connector.connect().await.map_err(failed)?;
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('server_encoding'), current_user::text,
        has_database_privilege(current_database(), 'CREATE'), current_database()::text,
        (SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'mstore')";
    let row = client.query_one(sql, &[]).await.map_err(failed)?;
    if row.get::<_, i32>(0) < VERSION_MIN {
        return Err(PgOpenError::TooOld { version: row.get(1) });
    }
    let encoding: String = row.get(2);
    if encoding != "UTF8" {
        return Err(PgOpenError::Encoding(encoding));
    }
    let (role, database): (String, String) = (row.get(3), row.get(5));
    match row.get::<_, Option<bool>>(6) {
        Some(false) => {
            let remedy = format!("ALTER SCHEMA mstore OWNER TO {role}; and its tables likewise, or connect as the role that made it");
            return Err(PgOpenError::Rights { role, what: "change the schema mstore", remedy });
        }
        None if !row.get::<_, bool>(4) => {
            let remedy = format!("GRANT CREATE ON DATABASE {database} TO {role}");
            return Err(PgOpenError::Rights { role, what: "make the schema mstore", remedy });
        }
        Some(true) | None => {}
    }
    sessions_last(connector, &client).await?;
    for weakness in weaknesses(&client).await? {
        tracing::warn!(weakness, "the database can lose what it has answered for");
    }
    Ok(client)
}

/// A pooler in transaction mode gives one server connection to whoever is in a transaction: seen from two clients at once.
async fn sessions_last(connector: &Connector, first: &Client) -> Result<(), PgOpenError> {
    let second = connector.connect().await.map_err(failed)?;
    let backend = async |client: &Client| -> Result<i32, PgOpenError> {
        Ok(client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(failed)?.get(0))
    };
    let before = backend(first).await?;
    second.batch_execute("BEGIN").await.map_err(failed)?;
    let other = backend(&second).await?;
    let after = backend(first).await?;
    second.batch_execute("ROLLBACK").await.map_err(failed)?;
    if before == after && other != before { Ok(()) } else { Err(PgOpenError::TransactionPooler) }
}

/// Settings under which an answered write may be gone after a crash.
async fn weaknesses(client: &Client) -> Result<Vec<String>, PgOpenError> {
    let sql = "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off' ORDER BY name";
    let rows = client.query(sql, &[]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| format!("{} = {}", row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}
