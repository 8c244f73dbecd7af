//! What a clock starts: transactions leave their window, old deletions and bodies are forgotten.

use mstore_protocol::{BranchKey, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{SqliteConfig, job::Work, mirror};
use crate::{
    StoreError,
    cases::{inbox, windows},
    failpoint,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn days_before(now: Timestamp, days: u32) -> String {
    now.plus_ms(-i64::from(days) * DAY_MS).to_string()
}

/// Before anything is sequenced: old transactions must not go out to devices first and be taken back later. Whoever calls it rolls back what fails.
pub(super) fn at_start(conn: &Connection, config: &SqliteConfig) -> Result<(), StoreError> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    advance_cutoff(conn, (config.clock)(), config)?;
    Ok(conn.execute_batch("COMMIT")?)
}

/// All of it.
pub(super) fn run(work: &mut Work<'_>) -> Result<(), StoreError> {
    advance_cutoff(work.conn, work.now, work.config)?;
    windows::advance(work.case.sql, work.now)?;
    let tombstones = days_before(work.now, work.config.tombstone_keep_days);
    for (key, entry) in mirror::load_heads(work.conn)? {
        forget_deletions(work, &key, entry, &tombstones)?;
    }
    forget_bodies(work)?;
    work.conn.prepare_cached("DELETE FROM claim WHERE expires_at < ?1")?.execute([days_before(work.now, 1)])?;
    // The newest stays: SQLite would give its number to the next one, and journals remember alarms by number.
    let sql = "DELETE FROM alarm WHERE cleared_at < ?1 AND id < (SELECT max(id) FROM alarm)";
    work.conn.prepare_cached(sql)?.execute([days_before(work.now, work.config.alarm_keep_days)])?;
    work.conn.prepare_cached("DELETE FROM audit WHERE at < ?1")?.execute([days_before(work.now, work.config.audit_keep_days)])?;
    failpoint::point("upkeep_done");
    Ok(())
}

/// Moves the beginning of the window and marks what has left it.
fn advance_cutoff(conn: &Connection, now: Timestamp, config: &SqliteConfig) -> Result<(), StoreError> {
    let old: String =
        conn.prepare_cached("SELECT value FROM setting WHERE name = 'transaction_cutoff'")?.query_row([], |row| row.get(0))?;
    let new = days_before(now, config.transaction_window_days);
    if new <= old {
        return Ok(());
    }
    let sql = "INSERT INTO mark (collection, merchant_id, branch_id, id)
        SELECT 'transaction', t.merchant_id, t.branch_id, t.id FROM transactions t
        JOIN head h ON h.merchant_id = t.merchant_id AND h.branch_id = t.branch_id
        JOIN mirror m ON m.head = h.n AND m.collection = 'transaction' AND m.id = t.id AND m.row IS NOT NULL
        WHERE t.recorded_at >= ?1 AND t.recorded_at < ?2
          AND NOT EXISTS (SELECT 1 FROM transaction_cutoff c WHERE c.merchant_id = t.merchant_id)";
    conn.prepare_cached(sql)?.execute([&old, &new])?;
    conn.prepare_cached("UPDATE setting SET value = ?1 WHERE name = 'transaction_cutoff'")?.execute([&new])?;
    Ok(())
}

/// Raises the floor to the newest commit that is too old, or one too many.
fn forget_deletions(work: &mut Work<'_>, key: &BranchKey, mut entry: mirror::HeadEntry, before: &str) -> Result<(), StoreError> {
    let sql = "SELECT seq FROM commit_log WHERE head = ?1 AND at >= ?2 ORDER BY seq LIMIT 1";
    let young: Option<u64> = work.conn.prepare_cached(sql)?.query_row(params![entry.n, before], |row| row.get(0)).optional()?;
    let by_age = young.map_or(entry.state.seq, |seq| seq.saturating_sub(1));
    let by_count = entry.state.seq.saturating_sub(work.config.commits_keep_max);
    let floor = by_age.max(by_count);
    if floor <= entry.floor {
        return Ok(());
    }
    work.conn
        .prepare_cached("DELETE FROM mirror INDEXED BY mirror_tombstones WHERE head = ?1 AND seq <= ?2 AND row IS NULL")?
        .execute(params![entry.n, floor])?;
    // The commit at the floor stays: a device that is exactly there has seen every deletion that was forgotten.
    work.conn.prepare_cached("DELETE FROM commit_log WHERE head = ?1 AND seq < ?2")?.execute(params![entry.n, floor])?;
    entry.floor = floor;
    mirror::store_head(work.conn, &entry, &[])?;
    work.reload.insert(key.clone());
    Ok(())
}

/// Rows are in the order of time, so each pass reads only what it forgets.
fn forget_bodies(work: &Work<'_>) -> Result<(), StoreError> {
    let before = days_before(work.now, work.config.operation_keep_days);
    let sql = "SELECT value FROM setting WHERE name = 'operations_without_body'";
    let done: Option<String> = work.conn.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    let done: i64 = done.and_then(|n| n.parse().ok()).unwrap_or(0);
    let sql = "SELECT coalesce((SELECT n - 1 FROM operation WHERE n > ?1 AND recorded_at >= ?2 ORDER BY n LIMIT 1), (SELECT max(n) FROM operation), 0)";
    let until: i64 = work.conn.prepare_cached(sql)?.query_row(params![done, before], |row| row.get(0))?;
    if until > done {
        // What nobody has decided about keeps its body: without it there would be nothing to decide.
        let sql = "UPDATE operation SET body = NULL WHERE n > ?1 AND n <= ?2 AND (status = 'accepted'
            OR EXISTS (SELECT 1 FROM operation_decision d WHERE d.merchant_id = operation.merchant_id AND d.id = operation.id))";
        work.conn.prepare_cached(sql)?.execute([done, until])?;
        let sql = "INSERT INTO setting (name, value) VALUES ('operations_without_body', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        work.conn.prepare_cached(sql)?.execute([until.to_string()])?;
    }
    let sql = "DELETE FROM event_seen WHERE n < coalesce((SELECT n FROM event_seen WHERE recorded_at >= ?1 ORDER BY n LIMIT 1), 9223372036854775807)";
    work.conn.prepare_cached(sql)?.execute([&before])?;
    inbox::forget(work.conn, &before)
}
