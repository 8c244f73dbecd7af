//! The books of the stock as a manager reads them: what was sold without being there, what is under way, whether transfers add up.

use async_trait::async_trait;
use mstore_protocol::{BranchKey, Code, MerchantId, OperationId, StockTarget};

use super::{Carrier, Seen, Size, Work, audit, listing, transfers};
use crate::{
    Act, BooksOf, By, Imbalance, Page, StockBooks, StoreError, TransferArrival, Written,
    sql::{Sql, args},
};

const OVERSELLS: &str = "SELECT s.n, s.n, s.branch_id AS branch, s.collection, s.item_id, s.type, s.operation_id, s.move_id, o.device_id AS device,
    o.body AS receipt_no_in, s.quantity_milli, s.stock_milli AS stock_after_milli,
    CASE s.collection
      WHEN 'product' THEN (SELECT stock_milli FROM branch_product p WHERE p.merchant_id = s.merchant_id AND p.branch_id = s.branch_id AND p.product_id = s.item_id)
      ELSE (SELECT quantity_milli FROM inventory i WHERE i.merchant_id = s.merchant_id AND i.branch_id = s.branch_id AND i.id = s.item_id) END
      AS stock_now_milli,
    o.occurred_at, s.recorded_at, s.settled_at, s.note
    FROM oversell s LEFT JOIN operation o ON o.merchant_id = s.merchant_id AND o.id = s.operation_id
    WHERE s.n < ?1 AND s.merchant_id = ?3 AND (CAST(?4 AS TEXT) IS NULL OR s.branch_id = ?4)";
const UNSETTLED: &str = "AND s.settled_at IS NULL";

const TRANSFERS: &str = "SELECT s.n, s.id, s.from_branch, s.to_branch, s.collection, s.item_id, s.quantity_milli, s.sent_at, s.arrived_at
    FROM transfer s WHERE s.n < ?1 AND s.merchant_id = ?3 AND (CAST(?4 AS TEXT) IS NULL OR s.from_branch = ?4 OR s.to_branch = ?4)";
const IN_TRANSIT: &str = "AND s.arrived_at IS NULL";

/// Every transfer has its movement out, and one in as soon as it arrived; together with what is in transit they come to nothing.
const IMBALANCES: &str = "SELECT collection, item_id, CAST(sum(milli) AS BIGINT), CAST(sum(in_transit) AS BIGINT) FROM (
      SELECT collection, item_id, quantity_milli AS milli, 0 AS in_transit FROM stock_move WHERE merchant_id = ?1 AND type = 'transfer'
      UNION ALL
      SELECT collection, item_id, quantity_milli, quantity_milli FROM transfer WHERE merchant_id = ?1 AND arrived_at IS NULL
    ) AS moved GROUP BY collection, item_id HAVING sum(milli) <> 0 ORDER BY collection, item_id";

#[async_trait]
impl<S: Carrier> StockBooks for S {
    async fn oversells(&self, of: BooksOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        page(self, (OVERSELLS, UNSETTLED), of, after, limit).await
    }

    async fn settle_oversell(&self, merchant: &MerchantId, n: u64, note: &str, by: &By) -> Result<(), StoreError> {
        let (merchant, note, by) = (merchant.clone(), note.to_owned(), by.clone());
        self.carry(Size::Small, move |work| settle(work, &merchant, n, &note, &by), |(), _| ()).await
    }

    async fn transfers(&self, of: BooksOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        page(self, (TRANSFERS, IN_TRANSIT), of, after, limit).await
    }

    async fn receive_transfer(&self, at: &BranchKey, id: OperationId) -> Result<Written, StoreError> {
        let at = at.clone();
        let finish = |is_new: bool, seen: &Seen| Written {
            seqs: if is_new { seen.commits.clone() } else { Default::default() },
            duplicate: !is_new,
            durable_at_us: seen.durable_at_us,
        };
        self.carry(Size::Small.at(&at), move |work| transfers::receive(work, &at, id), finish).await
    }

    async fn set_transfer_arrival(&self, merchant: &MerchantId, arrival: TransferArrival) -> Result<(), StoreError> {
        let merchant = merchant.clone();
        self.carry(Size::Small, move |work| transfers::set_arrival(work, &merchant, arrival), |(), _| ()).await
    }

    async fn imbalances(&self, merchant: &MerchantId) -> Result<Vec<Imbalance>, StoreError> {
        let merchant = merchant.clone();
        self.read(move |db| imbalances(db, &merchant)).await
    }
}

/// A page of the books; the condition leaves out what is settled.
async fn page(
    store: &impl Carrier,
    (sql, open): (&'static str, &'static str),
    of: BooksOf,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, StoreError> {
    let after = after.map(str::to_owned);
    let sql = format!("{sql} {} ORDER BY s.n DESC LIMIT ?2", if of.settled_too { "" } else { open });
    let scope = [Some(of.merchant.to_string()), of.branch.map(|branch| branch.to_string())];
    store.read(move |db| listing::objects(db, &sql, &scope, after.as_deref(), limit)).await
}

fn settle(work: &mut Work<'_>, merchant: &MerchantId, n: u64, note: &str, by: &By) -> Result<(), StoreError> {
    let sql = "UPDATE oversell SET settled_at = coalesce(settled_at, ?3), note = coalesce(note, ?4) WHERE merchant_id = ?1 AND n = ?2";
    if work.sql.execute(sql, args![merchant.as_str(), n, work.now.to_string(), note])? == 0 {
        return Err(StoreError::refused(Code::NotFound, format!("no exception {n} of {merchant}")));
    }
    let branch = "SELECT branch_id FROM oversell WHERE merchant_id = ?1 AND n = ?2";
    let branch = work.sql.row(branch, args![merchant.as_str(), n], |row| row.string(0))?;
    let act = Act {
        action: "oversell.settled",
        merchant: Some(merchant.to_string()),
        branch,
        subject: Some(n.to_string()),
        detail: note.to_owned(),
        ..Act::default()
    };
    audit::write(work, &act, by)
}

fn imbalances(db: &dyn Sql, merchant: &MerchantId) -> Result<Vec<Imbalance>, StoreError> {
    db.rows(IMBALANCES, args![merchant.as_str()], |row| {
        Ok(Imbalance {
            collection: if row.text(0)? == "product" { StockTarget::Product } else { StockTarget::Inventory },
            item_id: row.string(1)?,
            difference: row.milli(2)?,
            in_transit: row.milli(3)?,
        })
    })
}
