//! Rows that belong to no branch: on no device, but where an operator sees them, with the reason, for as long as it is so.

use std::collections::BTreeSet;

use tokio_postgres::GenericClient;

use super::{AttachError, alarms};

/// Takes down which of the rows looked at are nobody's, with the reason of each; the others are no longer among them.
pub(super) async fn settle(
    client: &impl GenericClient,
    collection: &str,
    looked_at: &[&str],
    strays: &[(&str, String)],
) -> Result<(), AttachError> {
    let (ids, reasons): (Vec<&str>, Vec<&str>) = strays.iter().map(|(id, reason)| (*id, reason.as_str())).unzip();
    let stray: BTreeSet<&str> = ids.iter().copied().collect();
    let others: Vec<&str> = looked_at.iter().copied().filter(|id| !stray.contains(id)).collect();
    let sql = "DELETE FROM mstore.stray WHERE collection = $1 AND id = ANY($2)";
    if client.execute(sql, &[&collection, &others]).await? > 0 && ids.is_empty() {
        clear_if_none(client, collection).await?;
    }
    let Some((first, reason)) = strays.first() else { return Ok(()) };
    let sql = "INSERT INTO mstore.stray (collection, id, reason, at) SELECT $1, w.id, w.reason, mstore.utc_now()
        FROM (SELECT DISTINCT ON (id) id, reason FROM unnest($2::text[], $3::text[]) AS u(id, reason)) AS w
        ON CONFLICT (collection, id) DO UPDATE SET reason = excluded.reason";
    client.execute(sql, &[&collection, &ids, &reasons]).await?;
    let detail =
        format!("{collection}: rows belong to no branch and are on no device, such as {first:?}: {reason}; they are in mstore.stray");
    alarms::raise_unless_open(client, alarms::STRAYS, collection, &detail).await.map(|_| ())
}

/// The last of them has a branch, or is gone.
async fn clear_if_none(client: &impl GenericClient, collection: &str) -> Result<(), AttachError> {
    let left = client.query_opt("SELECT 1 FROM mstore.stray WHERE collection = $1 LIMIT 1", &[&collection]).await?;
    if left.is_none() {
        alarms::clear(client, alarms::STRAYS, collection).await?;
    }
    Ok(())
}
