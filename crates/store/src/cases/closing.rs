//! Closes the ledger behind the shop: old movements become one closing movement per item, with the same sum, and go to an archive.
//!
//! What decides about movements that come late stays: an item's last count, and the last figure that a backend gave. A closing moves no stock; the sum of an
//! item's movements is its stock before and after, and the sum of the archive is what was closed.

use mstore_protocol::Timestamp;

use super::{Carrier, Size};
use crate::{
    StoreError,
    sql::{Sql, args},
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Movements looked at in one transaction.
const BATCH: i64 = 10_000;

/// Movements are in the order of time, so each pass reads only what it closes.
const UNTIL: &str = "SELECT coalesce((SELECT n - 1 FROM stock_move WHERE n > ?1 AND recorded_at >= ?2 ORDER BY n LIMIT 1), (SELECT max(n) FROM stock_move), 0)";
const CHOOSE: &str = "INSERT INTO ledger_closing (n, is_closing) SELECT m.n, 0 FROM stock_move m
    WHERE m.n > ?1 AND m.n <= ?2 AND m.recorded_at < ?3 AND NOT (m.kind = 'direct' AND coalesce(m.type, '') IN ('closing', 'transfer'))
      AND NOT (m.kind IN ('count', 'event') AND NOT EXISTS (SELECT 1 FROM stock_move l WHERE l.merchant_id = m.merchant_id AND l.branch_id = m.branch_id
        AND l.collection = m.collection AND l.item_id = m.item_id AND l.kind = m.kind AND l.occurred_at > m.occurred_at))";
const CHOOSE_EARLIER: &str = "INSERT INTO ledger_closing (n, is_closing) SELECT e.n, 1 FROM stock_move e
    JOIN (SELECT DISTINCT m.merchant_id, m.branch_id, m.collection, m.item_id FROM ledger_closing c JOIN stock_move m ON m.n = c.n) i
      ON i.merchant_id = e.merchant_id AND i.branch_id = e.branch_id AND i.collection = e.collection AND i.item_id = e.item_id
    WHERE e.kind = 'direct' AND e.type IN ('closing', 'transfer')";
const ARCHIVE: &str =
    "INSERT INTO stock_move_archive (n, merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, flag, type,
      operation_id, journal_id, device_seq, reason, occurred_at, recorded_at)
    SELECT m.n, m.merchant_id, m.branch_id, m.id, m.collection, m.item_id, m.kind, m.quantity_milli, m.effect_milli, m.flag, m.type,
      m.operation_id, m.journal_id, m.device_seq, m.reason, m.occurred_at, m.recorded_at
    FROM ledger_closing c JOIN stock_move m ON m.n = c.n WHERE c.is_closing = 0";
/// Transfers apart: what all branches sent and received has to come to nothing.
const CLOSE: &str = "INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, type, reason, occurred_at, recorded_at)
    SELECT merchant_id, branch_id, 'closing:' || becomes || ':' || CAST(max(n) AS TEXT), collection, item_id, 'direct',
      CAST(sum(CASE becomes WHEN 'transfer' THEN quantity_milli ELSE effect_milli END) AS BIGINT), CAST(sum(effect_milli) AS BIGINT), becomes,
      'closing: the sum of older movements', max(occurred_at), ?1
    FROM (SELECT m.n, m.merchant_id, m.branch_id, m.collection, m.item_id, m.quantity_milli, m.effect_milli, m.occurred_at,
        CASE m.type WHEN 'transfer' THEN 'transfer' ELSE 'closing' END AS becomes FROM ledger_closing c JOIN stock_move m ON m.n = c.n) AS closed
    GROUP BY merchant_id, branch_id, collection, item_id, becomes";

/// Closes what was recorded so many days ago or earlier; zero: nothing, ever.
pub(crate) async fn close_ledger(store: &impl Carrier, keep_days: u32) -> Result<(), StoreError> {
    if keep_days == 0 {
        return Ok(());
    }
    loop {
        let run = move |work: &mut super::Work<'_>| close(work.sql, work.now, work.now.plus_ms(-i64::from(keep_days) * DAY_MS));
        if !store.carry(Size::Large, run, |is_more, _| is_more).await? {
            return Ok(());
        }
    }
}

/// One transaction of it; tells whether there is more to do.
fn close(db: &dyn Sql, now: Timestamp, before: Timestamp) -> Result<bool, StoreError> {
    // One server at a time.
    let sql = "UPDATE setting SET value = value WHERE name = 'ledger_closed_n' RETURNING CAST(value AS BIGINT)";
    let done = db.row(sql, args![], |row| row.integer(0))?.unwrap_or(0);
    let before = before.to_string();
    let old = db.row(UNTIL, args![done, before], |row| row.integer(0))?.unwrap_or(0);
    if old <= done {
        return Ok(false);
    }
    let until = old.min(done + BATCH);
    db.execute(CHOOSE, args![done, until, before])?;
    db.execute(CHOOSE_EARLIER, args![])?;
    db.execute(ARCHIVE, args![])?;
    db.execute(CLOSE, args![now.to_string()])?;
    db.execute("DELETE FROM stock_move WHERE n IN (SELECT n FROM ledger_closing)", args![])?;
    db.execute("DELETE FROM ledger_closing", args![])?;
    db.execute("UPDATE setting SET value = ?1 WHERE name = 'ledger_closed_n'", args![until.to_string()])?;
    Ok(until < old)
}
