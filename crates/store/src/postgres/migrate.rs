//! Brings the schema `mstore` up to date: each migration in a transaction of its own, one server at a time.

use tokio_postgres::Client;

use super::error::{PgOpenError, described};

/// Migrations only grow; the number of the last is the schema's version.
const MIGRATIONS: &[(&str, &str)] = &[
    ("source", include_str!("../../migrations/postgres/0001_source.sql")),
    ("capture", include_str!("../../migrations/postgres/0002_capture.sql")),
    ("sync", include_str!("../../migrations/postgres/0003_sync.sql")),
    ("attach", include_str!("../../migrations/postgres/0004_attach.sql")),
    ("inbox", include_str!("../../migrations/postgres/0005_inbox.sql")),
    ("growth", include_str!("../../migrations/postgres/0006_growth.sql")),
    ("windows", include_str!("../../migrations/postgres/0007_windows.sql")),
    ("closing", include_str!("../../migrations/postgres/0008_closing.sql")),
    ("access", include_str!("../../migrations/postgres/0009_access.sql")),
    ("levels", include_str!("../../migrations/postgres/0010_levels.sql")),
    ("capture_cost", include_str!("../../migrations/postgres/0011_capture_cost.sql")),
];

/// "mstore" in ASCII: the advisory lock under which migrations run. It is released with the session at the latest.
const LOCK: i64 = 0x6d73_746f_7265;

/// Carries out what is missing.
pub(super) async fn up(client: &Client) -> Result<(), PgOpenError> {
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.map_err(failed)?;
    // After a failure the lock goes with the connection.
    locked(client).await?;
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await.map_err(failed)?;
    Ok(())
}

async fn locked(client: &Client) -> Result<(), PgOpenError> {
    let exists = client.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = 'mstore'", &[]).await.map_err(failed)?.is_some();
    if !exists {
        client.batch_execute("CREATE SCHEMA mstore").await.map_err(failed)?;
    }
    let table = "CREATE TABLE IF NOT EXISTS mstore.migration (version bigint PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())";
    client.batch_execute(table).await.map_err(failed)?;
    let row = client.query_one("SELECT coalesce(max(version), 0) FROM mstore.migration", &[]).await.map_err(failed)?;
    let (found, known) = (row.get::<_, i64>(0), i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX));
    if found > known {
        return Err(PgOpenError::Newer { found, known });
    }
    for (version, (name, sql)) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        let record = format!("INSERT INTO mstore.migration (version, name) VALUES ({version}, '{name}')");
        client
            .batch_execute(&format!("BEGIN; {sql}; {record}; COMMIT"))
            .await
            .map_err(|error| PgOpenError::Migrate(format!("{version} ({name}): {}", described(&error))))?;
        tracing::info!(version, name, "schema mstore brought up to date");
    }
    Ok(())
}

fn failed(error: tokio_postgres::Error) -> PgOpenError {
    PgOpenError::Migrate(described(&error))
}
