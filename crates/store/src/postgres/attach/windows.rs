//! Rows of attached tables leave the devices when they are as old as the `window` of their mapping says.
//!
//! `attached.cutoff` is where a window begins. It moves in the transaction that leaves marks for what it passes, so whoever sequences sees both or neither.

use mstore_protocol::Timestamp;
use tokio_postgres::GenericClient;

use super::{
    AttachError, guard,
    name::literal,
    registry::{Attached, Registered},
    triggers::A_ROW,
};

/// Moves the windows of all collections to now; in a transaction.
pub(super) async fn advance(client: &impl GenericClient, attached: &Attached, now: Timestamp) -> Result<(), AttachError> {
    for (name, registered) in attached.collections().filter(|(_, registered)| registered.stopped.is_none()) {
        // A table that cannot be read now has its window moved another time.
        if let Err(why) = guard::guarded(client, advance_one(client, name, registered, now)).await? {
            tracing::debug!(collection = name, why, "a window stays where it is");
        }
    }
    Ok(())
}

async fn advance_one(client: &impl GenericClient, name: &str, registered: &Registered, now: Timestamp) -> Result<(), AttachError> {
    let source = &registered.source;
    let Some(window) = &source.window else { return Ok(()) };
    let sql = "UPDATE mstore.attached a SET cutoff = w.until
        FROM (SELECT cutoff AS since, $2::text::timestamptz - make_interval(days => $3::int) AS until FROM mstore.attached WHERE collection = $1 FOR UPDATE) w
        WHERE a.collection = $1 AND w.since < w.until RETURNING w.since::text, w.until::text";
    let moved = client.query_opt(sql, &[&name, &now.to_string(), &window.days]).await?;
    let Some(moved) = moved else { return Ok(()) };
    let (since, until): (String, String) = (moved.get(0), moved.get(1));
    let passed = window.is_between("$1::text::timestamptz", "$2::text::timestamptz");
    let (name, kind, id) = (literal(name), literal(A_ROW), source.id_sql());
    let sql = format!(
        "INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT {name}, '', {kind}, {id} FROM {} WHERE {passed}",
        source.own_with_joins_sql()
    );
    client.execute(&sql, &[&since, &until]).await?;
    Ok(())
}

/// A mapping was installed: its window begins now, and what devices have is compared with it.
pub(super) async fn begin(client: &impl GenericClient, name: &str, days: Option<i32>) -> Result<(), AttachError> {
    let sql = "UPDATE mstore.attached SET cutoff = clock_timestamp() - make_interval(days => $2::int)
        WHERE collection = $1 AND (cutoff IS NOT NULL OR $2::int IS NOT NULL)";
    if client.execute(sql, &[&name, &days]).await? == 0 {
        return Ok(());
    }
    let sql = "INSERT INTO mstore.mark (collection, merchant_id, branch_id, id)
        SELECT $1, h.merchant_id, h.branch_id, m.id FROM mstore.head h JOIN mstore.mirror m ON m.head = h.n AND m.collection = $1 AND m.row IS NOT NULL";
    client.execute(sql, &[&name]).await?;
    Ok(())
}
