//! Alarms about attached tables: one for each trouble of a collection, as long as it lasts.

use tokio_postgres::GenericClient;

use super::AttachError;

/// An attached table is not what it was when it was attached.
pub(super) const CHANGED: &str = "attached_table_changed";
/// Rows of an attached table belong to no branch.
pub(super) const STRAYS: &str = "attached_rows_without_branch";

/// Raises an alarm unless one of its kind is open about the collection. The detail begins with the collection's name and a colon.
pub(super) async fn raise_unless_open(client: &impl GenericClient, kind: &str, collection: &str, detail: &str) -> Result<(), AttachError> {
    let sql = "INSERT INTO mstore.alarm (at, kind, detail) SELECT mstore.utc_now(), $1, $3
        WHERE NOT EXISTS (SELECT 1 FROM mstore.alarm WHERE kind = $1 AND cleared_at IS NULL AND starts_with(detail, $2 || ':'))";
    if client.execute(sql, &[&kind, &collection, &detail]).await? > 0 {
        tracing::warn!(kind, detail, "alarm raised");
    }
    Ok(())
}

/// The trouble is over.
pub(super) async fn clear(client: &impl GenericClient, kind: &str, collection: &str) -> Result<(), AttachError> {
    let sql =
        "UPDATE mstore.alarm SET cleared_at = mstore.utc_now() WHERE kind = $1 AND cleared_at IS NULL AND starts_with(detail, $2 || ':')";
    client.execute(sql, &[&kind, &collection]).await?;
    Ok(())
}
