//! What a clock starts: transactions leave their window, old deletions and bodies are forgotten.

use deadpool_postgres::{GenericClient, Object};
use mstore_protocol::Timestamp;

use super::{PgConfig, mirror::signed, shared::Shared, source::Reader as _};
use crate::{StoreError, failpoint};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Heads whose deletions are forgotten in one transaction: sequencing waits for it.
const HEADS_PER_TRANSACTION: i64 = 200;

fn days_before(now: Timestamp, days: u32) -> String {
    now.plus_ms(-i64::from(days) * DAY_MS).to_string()
}

/// All of it.
pub(super) async fn run(client: &mut Object, shared: &Shared, now: Timestamp) -> Result<(), StoreError> {
    let config = &shared.config;
    advance_cutoff(client, config, now).await?;
    let moved = client.transaction().await?;
    shared.attached.advance_windows(moved.plain(), now).await?;
    moved.commit().await?;
    forget_deletions(client, config, now).await?;
    forget_bodies(client, config, now).await?;
    client.execute("DELETE FROM claim WHERE expires_at < $1", &[&days_before(now, 1)]).await?;
    // The newest stays: whoever reads on after its number finds its place.
    let sql = "DELETE FROM alarm WHERE cleared_at < $1 AND id < (SELECT max(id) FROM alarm)";
    client.execute(sql, &[&days_before(now, config.alarm_keep_days)]).await?;
    client.execute("DELETE FROM audit WHERE at < $1", &[&days_before(now, config.audit_keep_days)]).await?;
    failpoint::point("upkeep_done");
    Ok(())
}

/// Moves the beginning of the window and marks what has left it. Also before anything is sequenced: old transactions must not go out to devices first and be
/// taken back later.
pub(super) async fn advance_cutoff(client: &mut Object, config: &PgConfig, now: Timestamp) -> Result<(), StoreError> {
    let new = days_before(now, config.transaction_window_days);
    let moved = client.transaction().await?;
    let sql = "SELECT value FROM setting WHERE name = 'transaction_cutoff' FOR UPDATE";
    let old: String = moved.query_one(sql, &[]).await?.get(0);
    if new <= old {
        return Ok(());
    }
    let sql = "INSERT INTO mark (collection, merchant_id, branch_id, id)
        SELECT 'transaction', t.merchant_id, t.branch_id, t.id FROM transactions t
        JOIN head h ON h.merchant_id = t.merchant_id AND h.branch_id = t.branch_id
        JOIN mirror m ON m.head = h.n AND m.collection = 'transaction' AND m.id = t.id AND m.row IS NOT NULL
        WHERE t.recorded_at >= $1 AND t.recorded_at < $2
          AND NOT EXISTS (SELECT 1 FROM transaction_cutoff c WHERE c.merchant_id = t.merchant_id)";
    moved.execute(sql, &[&old, &new]).await?;
    moved.execute("UPDATE setting SET value = $1 WHERE name = 'transaction_cutoff'", &[&new]).await?;
    Ok(moved.commit().await?)
}

/// Raises the floors to the newest commit that is too old, or one too many. The commit at the floor stays: a device that is exactly there has seen every
/// deletion that was forgotten.
async fn forget_deletions(client: &Object, config: &PgConfig, now: Timestamp) -> Result<(), StoreError> {
    let sql = "WITH f AS (
          UPDATE head h SET floor = f.floor FROM (
            SELECT n, greatest(coalesce((SELECT c.seq - 1 FROM commit_log c WHERE c.head = x.n AND c.at >= $2 ORDER BY c.seq LIMIT 1), x.seq), x.seq - $3) AS floor
              FROM head x WHERE x.n > $1 AND x.n <= $1 + $4) f
           WHERE f.n = h.n AND f.floor > h.floor RETURNING h.n, h.floor),
        t AS (DELETE FROM mirror m USING f WHERE m.head = f.n AND m.seq <= f.floor AND m.row IS NULL),
        c AS (DELETE FROM commit_log c USING f WHERE c.head = f.n AND c.seq < f.floor)
        SELECT coalesce(max(n), 0) FROM head";
    let before = days_before(now, config.tombstone_keep_days);
    let statement = client.prepare_cached(sql).await?;
    let (mut from, mut last) = (0, 1);
    while from < last {
        last = client.query_one(&statement, &[&from, &before, &signed(config.commits_keep_max), &HEADS_PER_TRANSACTION]).await?.get(0);
        from += HEADS_PER_TRANSACTION;
    }
    Ok(())
}

/// Rows are in the order of time, so each pass reads only what it forgets.
async fn forget_bodies(client: &Object, config: &PgConfig, now: Timestamp) -> Result<(), StoreError> {
    let before = days_before(now, config.operation_keep_days);
    let done = client.query_opt("SELECT value FROM setting WHERE name = 'operations_without_body'", &[]).await?;
    let done: i64 = done.and_then(|row| row.get::<_, &str>(0).parse().ok()).unwrap_or(0);
    let sql = "SELECT coalesce((SELECT n - 1 FROM operation WHERE n > $1 AND recorded_at >= $2 ORDER BY n LIMIT 1), (SELECT max(n) FROM operation), 0)";
    let until: i64 = client.query_one(sql, &[&done, &before]).await?.get(0);
    if until > done {
        // What nobody has decided about keeps its body: without it there would be nothing to decide.
        let sql = "UPDATE operation SET body = NULL WHERE n > $1 AND n <= $2 AND (status = 'accepted'
            OR EXISTS (SELECT 1 FROM operation_decision d WHERE d.merchant_id = operation.merchant_id AND d.id = operation.id))";
        client.execute(sql, &[&done, &until]).await?;
        let sql = "INSERT INTO setting (name, value) VALUES ('operations_without_body', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        client.execute(sql, &[&until.to_string()]).await?;
    }
    let sql = "DELETE FROM event_seen WHERE n < coalesce((SELECT n FROM event_seen WHERE recorded_at >= $1 ORDER BY n LIMIT 1), 9223372036854775807)";
    client.execute(sql, &[&before]).await?;
    client.execute("DELETE FROM operation_inbox WHERE decided_at < $1", &[&before]).await?;
    Ok(())
}

/// Another cluster than the one that counted the transactions: a dump was restored here. Its transaction numbers mean nothing, so every branch is looked at
/// again, whatever was seen there.
pub(super) async fn notice_another_cluster(client: &mut Object) -> Result<(), StoreError> {
    let moved = client.transaction().await?;
    let here: String = moved.query_one("SELECT system_identifier::text FROM pg_control_system()", &[]).await?.get(0);
    let sql = "SELECT value FROM setting WHERE name = 'system_identifier'";
    let there: Option<String> = moved.query_opt(sql, &[]).await?.map(|row| row.get(0));
    if there.as_ref() == Some(&here) {
        return Ok(());
    }
    if there.is_some() {
        tracing::warn!("the schema mstore came here from another database cluster");
        moved
            .batch_execute(
                "UPDATE head SET snapshot = '1:1:'; UPDATE mark SET xid = pg_current_xact_id(); DELETE FROM lease; DELETE FROM server;
            UPDATE shard SET server_id = NULL, token = token + 1",
            )
            .await?;
    }
    let sql = "INSERT INTO setting (name, value) VALUES ('system_identifier', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    moved.execute(sql, &[&here]).await?;
    Ok(moved.commit().await?)
}
