//! What is remembered of the service levels: sums per merchant, by the minute for two hours and by the hour for a month.

use std::collections::BTreeMap;

use async_trait::async_trait;
use mstore_protocol::{MerchantId, ServiceFigures, Timestamp};

use super::{Carrier, Size, Work, locks};
use crate::{
    LevelSpan, ServiceLevels, StoreError,
    sql::{Row, args, damaged},
};

/// Each length of a span, seconds, and for how long spans of it are kept, milliseconds.
const KEPT: [(u32, i64); 2] = [(60, 2 * 3_600_000), (3_600, 31 * 86_400_000)];

#[async_trait]
impl<S: Carrier> ServiceLevels for S {
    async fn add_levels(&self, figures: BTreeMap<MerchantId, ServiceFigures>) -> Result<(), StoreError> {
        self.carry(Size::Small, move |work| add(work, &figures), |(), _| ()).await
    }

    async fn levels(&self, merchant: Option<&MerchantId>, length_s: u32, since: Timestamp) -> Result<Vec<LevelSpan>, StoreError> {
        let merchant = merchant.map_or("", MerchantId::as_str).to_owned();
        self.read(move |db| {
            let sql =
                "SELECT at, figures FROM service_level WHERE length_s = ?1 AND at >= ?2 AND (?3 = '' OR merchant_id = ?3) ORDER BY at";
            db.rows(sql, args![i64::from(length_s), since.as_ms(), merchant], span)
        })
        .await
    }
}

fn add(work: &mut Work<'_>, figures: &BTreeMap<MerchantId, ServiceFigures>) -> Result<(), StoreError> {
    let now = work.now.as_ms();
    for (merchant, figures) in figures {
        locks::merchant(work, merchant)?;
        for (length_s, _) in KEPT {
            let length_ms = i64::from(length_s) * 1_000;
            let at = now - now.rem_euclid(length_ms);
            let sql = "SELECT at, figures FROM service_level WHERE length_s = ?1 AND at = ?2 AND merchant_id = ?3";
            let known = work.sql.row(sql, args![i64::from(length_s), at, merchant.as_str()], span)?;
            let mut sum = known.map(|span| span.figures).unwrap_or_default();
            sum.add(figures);
            let text = serde_json::to_string(&sum).map_err(|error| damaged("service levels", error))?;
            let sql = "INSERT INTO service_level (length_s, at, merchant_id, figures) VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT (length_s, at, merchant_id) DO UPDATE SET figures = excluded.figures";
            work.sql.execute(sql, args![i64::from(length_s), at, merchant.as_str(), text])?;
        }
    }
    for (length_s, keep_ms) in KEPT {
        work.sql.execute("DELETE FROM service_level WHERE length_s = ?1 AND at < ?2", args![i64::from(length_s), now - keep_ms])?;
    }
    Ok(())
}

fn span(row: &Row<'_>) -> Result<LevelSpan, StoreError> {
    let figures = serde_json::from_str(row.text(1)?).map_err(|error| damaged("service levels", error))?;
    Ok(LevelSpan { at: Timestamp::from_ms(row.integer(0)?), figures })
}
