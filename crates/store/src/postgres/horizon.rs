//! Looks for transactions that have been open for long: nothing that they may still see can be vacuumed, so every table that changes much grows and slows down.
//!
//! Other roles' activity is hidden from an ordinary role, but not that they hold a transaction: how long is then counted from when it was first seen.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, Error};

use super::{error::described, shared::Shared};

/// What the alarm is called.
const ALARM: &str = "old_snapshot_open";
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A transaction: process and virtual id.
type Open = (i32, String);

/// Looks until the store is closed.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut first_seen: HashMap<Open, Instant> = HashMap::new();
    let pause = LOOK_EVERY.min(shared.config.old_snapshot / 2);
    let mut client: Option<Client> = None;
    while !shared.is_closed() {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.until_closed() => return,
        }
        if client.as_ref().is_none_or(Client::is_closed) {
            client = shared.connector.connect().await.ok();
        }
        if let Some(connected) = &client
            && let Err(error) = look(connected, &shared, &mut first_seen).await
        {
            tracing::warn!(error = described(&error), "cannot see which transactions are open");
        }
    }
}

async fn look(client: &Client, shared: &Shared, first_seen: &mut HashMap<Open, Instant>) -> Result<(), Error> {
    let sql = "SELECT l.pid, l.virtualtransaction, a.usename::text, a.application_name, extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
        FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'virtualxid' AND a.datname = current_database() AND a.pid <> pg_backend_pid()
          AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL OR a.state IS NULL)";
    let rows = client.query(sql, &[]).await?;
    let open: Vec<Open> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    first_seen.retain(|transaction, _| open.contains(transaction));
    let mut oldest: Option<(u64, String)> = None;
    for (row, transaction) in rows.iter().zip(open) {
        let pid = transaction.0;
        let seen = first_seen.entry(transaction).or_insert_with(Instant::now).elapsed().as_secs();
        let age = seen.max(row.get::<_, Option<i64>>(4).and_then(|age| u64::try_from(age).ok()).unwrap_or(0));
        if age >= shared.config.old_snapshot.as_secs() && oldest.as_ref().is_none_or(|(oldest, _)| age > *oldest) {
            let (role, program): (Option<&str>, Option<&str>) = (row.get(2), row.get(3));
            let (role, program) = (role.unwrap_or("unknown"), program.unwrap_or(""));
            let detail = format!(
                "process {pid} (role {role}, program {program:?}) has had a transaction open for {age} s: what changed since cannot be vacuumed. End it: SELECT pg_terminate_backend({pid})"
            );
            oldest = Some((age, detail));
        }
    }
    tell(client, shared, oldest.map(|(_, detail)| detail)).await
}

/// One alarm for as long as there is such a transaction.
async fn tell(client: &Client, shared: &Shared, detail: Option<String>) -> Result<(), Error> {
    let now = (shared.config.clock)().to_string();
    match detail {
        Some(detail) => {
            let sql = "INSERT INTO alarm (at, kind, detail) SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT FROM alarm WHERE kind = $2 AND cleared_at IS NULL)";
            if client.execute(sql, &[&now, &ALARM, &detail]).await? > 0 {
                tracing::warn!(kind = ALARM, detail, "alarm raised");
            }
        }
        None => {
            client.execute("UPDATE alarm SET cleared_at = $1 WHERE kind = $2 AND cleared_at IS NULL", &[&now, &ALARM]).await?;
        }
    }
    Ok(())
}
