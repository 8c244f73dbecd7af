//! The books of the stock as a manager reads them: what was sold without being there, what is under way, whether transfers add up.

use async_trait::async_trait;
use mstore_protocol::{BranchKey, Code, MerchantId, OperationId};
use rusqlite::{Connection, params, types::Value as Sql};

use super::{
    Size, SqliteStore,
    job::{Seen, Work},
    listing::{self, After},
    transfers,
};
use crate::{BooksOf, Imbalance, Page, StockBooks, StoreError, TransferArrival, Written};

const OVERSELLS: &str = "SELECT s.n, json_object('n', s.n, 'branch', s.branch_id, 'collection', s.collection, 'item_id', s.item_id, 'type', s.type,
    'operation_id', s.operation_id, 'move_id', s.move_id, 'device', o.device_id,
    'receipt_no', iif(json_valid(o.body), o.body ->> '$.receipt_no', NULL), 'quantity_milli', s.quantity_milli, 'stock_after_milli', s.stock_milli,
    'stock_now_milli', CASE s.collection
      WHEN 'product' THEN (SELECT stock_milli FROM branch_product p WHERE p.merchant_id = s.merchant_id AND p.branch_id = s.branch_id AND p.product_id = s.item_id)
      ELSE (SELECT quantity_milli FROM inventory i WHERE i.merchant_id = s.merchant_id AND i.branch_id = s.branch_id AND i.id = s.item_id) END,
    'occurred_at', o.occurred_at, 'recorded_at', s.recorded_at, 'settled_at', s.settled_at, 'note', s.note)
    FROM oversell s LEFT JOIN operation o ON o.merchant_id = s.merchant_id AND o.id = s.operation_id
    WHERE s.n < ?1 AND s.merchant_id = ?3 AND (?4 IS NULL OR s.branch_id = ?4) AND (?5 OR s.settled_at IS NULL) ORDER BY s.n DESC LIMIT ?2";

const TRANSFERS: &str =
    "SELECT n, json_object('id', id, 'from_branch', from_branch, 'to_branch', to_branch, 'collection', collection, 'item_id', item_id,
    'quantity_milli', quantity_milli, 'sent_at', sent_at, 'arrived_at', arrived_at)
    FROM transfer WHERE n < ?1 AND merchant_id = ?3 AND (?4 IS NULL OR from_branch = ?4 OR to_branch = ?4) AND (?5 OR arrived_at IS NULL)
    ORDER BY n DESC LIMIT ?2";

/// Every transfer has its movement out, and one in as soon as it arrived; together with what is in transit they come to nothing.
const IMBALANCES: &str = "SELECT collection, item_id, sum(milli), sum(in_transit) FROM (
      SELECT collection, item_id, quantity_milli AS milli, 0 AS in_transit FROM stock_move WHERE merchant_id = ?1 AND type = 'transfer'
      UNION ALL
      SELECT collection, item_id, quantity_milli, quantity_milli FROM transfer WHERE merchant_id = ?1 AND arrived_at IS NULL
    ) GROUP BY collection, item_id HAVING sum(milli) <> 0 ORDER BY collection, item_id";

#[async_trait]
impl StockBooks for SqliteStore {
    async fn oversells(&self, of: BooksOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.page_of_books(OVERSELLS, of, after, limit).await
    }

    async fn settle_oversell(&self, merchant: &MerchantId, n: u64, note: &str) -> Result<(), StoreError> {
        let (merchant, note) = (merchant.clone(), note.to_owned());
        self.submit(Size::Small, move |work| settle(work, &merchant, n, &note), |(), _| ()).await
    }

    async fn transfers(&self, of: BooksOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.page_of_books(TRANSFERS, of, after, limit).await
    }

    async fn receive_transfer(&self, at: &BranchKey, id: OperationId) -> Result<Written, StoreError> {
        let at = at.clone();
        let finish = |is_new: bool, seen: &Seen| Written {
            seqs: if is_new { seen.commits.clone() } else { Default::default() },
            duplicate: !is_new,
            durable_at_us: seen.durable_at_us,
        };
        self.submit(Size::Small, move |work| transfers::receive(work, &at, id), finish).await
    }

    async fn set_transfer_arrival(&self, merchant: &MerchantId, arrival: TransferArrival) -> Result<(), StoreError> {
        let merchant = merchant.clone();
        self.submit(Size::Small, move |work| transfers::set_arrival(work, &merchant, arrival), |(), _| ()).await
    }

    async fn imbalances(&self, merchant: &MerchantId) -> Result<Vec<Imbalance>, StoreError> {
        let merchant = merchant.clone();
        self.readers.read(move |conn| imbalances(conn, &merchant)).await
    }
}

impl SqliteStore {
    async fn page_of_books(&self, sql: &'static str, of: BooksOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let after = after.map(str::to_owned);
        let branch = of.branch.map_or(Sql::Null, |branch| Sql::Text(branch.to_string()));
        let scope = vec![Sql::Text(of.merchant.to_string()), branch, Sql::Integer(of.settled_too.into())];
        self.readers.read(move |conn| listing::read(conn, sql, &After::NumberDown, scope, after.as_deref(), limit)).await
    }
}

fn settle(work: &mut Work<'_>, merchant: &MerchantId, n: u64, note: &str) -> Result<(), StoreError> {
    let sql = "UPDATE oversell SET settled_at = coalesce(settled_at, ?3), note = coalesce(note, ?4) WHERE merchant_id = ?1 AND n = ?2";
    let n_sql = i64::try_from(n).unwrap_or(i64::MAX);
    if work.conn.prepare_cached(sql)?.execute(params![merchant.as_str(), n_sql, work.now.to_string(), note])? == 0 {
        return Err(StoreError::refused(Code::NotFound, format!("no exception {n} of {merchant}")));
    }
    Ok(())
}

fn imbalances(conn: &Connection, merchant: &MerchantId) -> Result<Vec<Imbalance>, StoreError> {
    use mstore_protocol::{Quantity, StockTarget};
    let mut statement = conn.prepare_cached(IMBALANCES)?;
    let rows = statement.query_map([merchant.as_str()], |row| {
        let collection = row.get::<_, String>(0)?;
        Ok(Imbalance {
            collection: if collection == "product" { StockTarget::Product } else { StockTarget::Inventory },
            item_id: row.get(1)?,
            difference: Quantity::from_milli(row.get(2)?),
            in_transit: Quantity::from_milli(row.get(3)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
