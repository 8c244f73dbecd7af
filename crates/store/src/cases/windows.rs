//! Windows of merchants' own: their transactions leave the devices sooner, or stay longer, than the server's setting says.

use mstore_protocol::{MerchantId, Timestamp};

use crate::{
    StoreError,
    sql::{Sql, args},
};

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Clocks of servers differ by less: a window goes back only when somebody made it longer.
const BACK_MIN_MS: i64 = HOUR_MS;

/// Merchants with a window of their own, and those whose window was theirs and is none any more.
const WINDOWS: &str =
    "SELECT w.merchant_id, w.days, c.cutoff FROM transaction_window w LEFT JOIN transaction_cutoff c ON c.merchant_id = w.merchant_id
    UNION ALL SELECT c.merchant_id, NULL, c.cutoff FROM transaction_cutoff c
     WHERE NOT EXISTS (SELECT 1 FROM transaction_window w WHERE w.merchant_id = c.merchant_id)
    ORDER BY 1";
/// Of what was recorded meanwhile, what devices have.
const LEAVES: &str = "INSERT INTO mark (collection, merchant_id, branch_id, id)
    SELECT 'transaction', t.merchant_id, t.branch_id, t.id FROM transactions t
    JOIN head h ON h.merchant_id = t.merchant_id AND h.branch_id = t.branch_id
    JOIN mirror m ON m.head = h.n AND m.collection = 'transaction' AND m.id = t.id AND m.row IS NOT NULL
    WHERE t.merchant_id = ?1 AND t.recorded_at >= ?2 AND t.recorded_at < ?3";
const COMES_BACK: &str = "INSERT INTO mark (collection, merchant_id, branch_id, id)
    SELECT 'transaction', merchant_id, branch_id, id FROM transactions WHERE merchant_id = ?1 AND recorded_at >= ?2 AND recorded_at < ?3";

struct Window {
    merchant: MerchantId,
    days: Option<u64>,
    cutoff: Option<Timestamp>,
}

/// Moves every merchant's own window to now, and marks the transactions that leave it or come back into it.
pub(crate) fn advance(db: &dyn Sql, now: Timestamp) -> Result<(), StoreError> {
    // One server at a time. Everybody else's window begins here.
    let sql = "UPDATE setting SET value = value WHERE name = 'transaction_cutoff' RETURNING value";
    let Some(everybodys) = db.row(sql, args![], |row| row.time(0))? else { return Ok(()) };
    let windows = db.rows(WINDOWS, args![], |row| {
        let merchant = MerchantId::parse(row.text(0)?).map_err(|error| crate::sql::damaged("a merchant", error))?;
        Ok(Window { merchant, days: row.optional_number(1)?, cutoff: row.optional_time(2)? })
    })?;
    for window in windows {
        advance_one(db, now, everybodys, &window)?;
    }
    Ok(())
}

fn advance_one(db: &dyn Sql, now: Timestamp, everybodys: Timestamp, window: &Window) -> Result<(), StoreError> {
    let merchant = window.merchant.as_str();
    let own = |days: u64| now.plus_ms(-DAY_MS.saturating_mul(i64::try_from(days).unwrap_or(i64::MAX / DAY_MS)));
    let (is, wanted) = (window.cutoff.unwrap_or(everybodys), window.days.map_or(everybodys, own));
    let is_longer = wanted.plus_ms(if window.days.is_some() { BACK_MIN_MS } else { 0 }) < is;
    if is < wanted {
        db.execute(LEAVES, args![merchant, is.to_string(), wanted.to_string()])?;
    } else if is_longer {
        db.execute(COMES_BACK, args![merchant, wanted.to_string(), is.to_string()])?;
    }
    if window.days.is_none() {
        db.execute("DELETE FROM transaction_cutoff WHERE merchant_id = ?1", args![merchant])?;
    } else if is < wanted || is_longer || window.cutoff.is_none() {
        let sql = "INSERT INTO transaction_cutoff (merchant_id, cutoff) VALUES (?1, ?2) ON CONFLICT (merchant_id) DO UPDATE SET cutoff = excluded.cutoff";
        let cutoff = if is < wanted || is_longer { wanted } else { is };
        db.execute(sql, args![merchant, cutoff.to_string()])?;
    }
    Ok(())
}
