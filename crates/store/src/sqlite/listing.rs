//! Pages of what operators look at: built as JSON by the database, quantities written as the contract writes them.

use mstore_protocol::{BranchKey, MerchantId, Quantity, limits::PAGE_ROWS_MAX};
use rusqlite::{Connection, types::Value as Sql};
use serde_json::{Map, Value};

use super::error::damaged;
use crate::{Listing, Page, StoreError};

const MERCHANTS: &str = "SELECT merchant_id, json_object('merchant', merchant_id, 'name', name, 'currency', currency,
    'stock_policy', stock_policy, 'stock_authority', stock_authority) FROM merchant WHERE merchant_id > ?1 ORDER BY merchant_id LIMIT ?2";
const BRANCHES: &str =
    "SELECT b.branch_id, json_object('merchant', b.merchant_id, 'branch', b.branch_id, 'name', b.name, 'epoch', h.epoch, 'seq', h.seq,
    'held', (SELECT detail FROM hold o WHERE o.merchant_id = b.merchant_id AND o.branch_id = b.branch_id))
    FROM branch b LEFT JOIN head h ON h.merchant_id = b.merchant_id AND h.branch_id = b.branch_id
    WHERE b.branch_id > ?1 AND b.merchant_id = ?3 ORDER BY b.branch_id LIMIT ?2";
const PRODUCTS: &str =
    "SELECT p.id, json_object('id', p.id, 'sku', p.sku, 'barcode', p.barcode, 'name', p.name, 'category', p.category, 'unit', p.unit,
    'price', json_object('amount', p.price_amount, 'currency', m.currency), 'track_stock', json(iif(p.track_stock, 'true', 'false')),
    'is_active', json(iif(p.is_active, 'true', 'false')), 'updated_at', p.updated_at)
    FROM product p JOIN merchant m ON m.merchant_id = p.merchant_id WHERE p.id > ?1 AND p.merchant_id = ?3 ORDER BY p.id LIMIT ?2";
const INVENTORY: &str = "SELECT id, json_object('id', id, 'name', name, 'unit', unit, 'quantity_milli', quantity_milli,
    'reorder_level_milli', reorder_level_milli, 'updated_at', updated_at)
    FROM inventory WHERE id > ?1 AND merchant_id = ?3 AND branch_id = ?4 ORDER BY id LIMIT ?2";
const STOCK_MOVES: &str =
    "SELECT n, json_object('n', n, 'id', id, 'collection', collection, 'item_id', item_id, 'kind', kind, 'quantity_milli', quantity_milli,
    'effect_milli', effect_milli, 'flag', flag, 'type', type, 'operation_id', operation_id, 'reason', reason, 'occurred_at', occurred_at,
    'recorded_at', recorded_at) FROM stock_move WHERE n < ?1 AND merchant_id = ?3 AND branch_id = ?4 ORDER BY n DESC LIMIT ?2";
const OPERATIONS: &str = "SELECT n, json_object('n', n, 'id', id, 'device_id', device_id, 'journal_id', journal_id, 'device_seq', device_seq, 'type', type,
    'status', status, 'code', code, 'detail', detail, 'replaces', replaces, 'seq', seq, 'occurred_at', occurred_at, 'recorded_at', recorded_at,
    'body', iif(json_valid(body), json(body), body)) FROM operation WHERE n > ?1 AND merchant_id = ?3 AND branch_id = ?4 ORDER BY n LIMIT ?2";
const TRANSACTIONS: &str = "SELECT id, body FROM transactions WHERE id > ?1 AND merchant_id = ?3 AND branch_id = ?4 ORDER BY id LIMIT ?2";
const ALARMS: &str =
    "SELECT id, json_object('id', id, 'at', at, 'kind', kind, 'merchant', merchant_id, 'branch', branch_id, 'device', device_id,
    'detail', detail, 'cleared_at', cleared_at) FROM alarm WHERE id < ?1 ORDER BY id DESC LIMIT ?2";

/// Where a listing begins.
pub(super) enum After {
    /// After a name.
    Name,
    /// After a number.
    Number,
    /// Below a number: the newest first.
    NumberDown,
}

/// One page.
pub(super) fn page(conn: &Connection, listing: &Listing, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
    let of_merchant = |merchant: &MerchantId| vec![merchant.to_string()];
    let of_branch = |key: &BranchKey| vec![key.merchant.to_string(), key.branch.to_string()];
    let (sql, begins, scope) = match listing {
        Listing::Merchants => (MERCHANTS, After::Name, Vec::new()),
        Listing::Branches(merchant) => (BRANCHES, After::Name, of_merchant(merchant)),
        Listing::Products(merchant) => (PRODUCTS, After::Name, of_merchant(merchant)),
        Listing::Inventory(key) => (INVENTORY, After::Name, of_branch(key)),
        Listing::StockMoves(key) => (STOCK_MOVES, After::NumberDown, of_branch(key)),
        Listing::Operations(key) => (OPERATIONS, After::Number, of_branch(key)),
        Listing::Transactions(key) => (TRANSACTIONS, After::Name, of_branch(key)),
        Listing::Alarms => (ALARMS, After::NumberDown, Vec::new()),
    };
    read(conn, sql, &begins, scope.into_iter().map(Sql::Text).collect(), after, limit)
}

/// Reads a page: ?1 is where it begins, ?2 how many rows to read, the scope follows.
pub(super) fn read(
    conn: &Connection,
    sql: &str,
    begins: &After,
    scope: Vec<Sql>,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, StoreError> {
    let limit = limit.clamp(1, PAGE_ROWS_MAX);
    let number = after.and_then(|raw| raw.parse::<i64>().ok());
    let begin = match begins {
        After::Name => Sql::Text(after.unwrap_or("").to_owned()),
        After::Number => Sql::Integer(number.unwrap_or(0)),
        After::NumberDown => Sql::Integer(number.unwrap_or(i64::MAX)),
    };
    let mut values = vec![begin, Sql::Integer(i64::try_from(limit).unwrap_or(1) + 1)];
    values.extend(scope);
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
        let name = match row.get::<_, Sql>(0)? {
            Sql::Integer(n) => n.to_string(),
            Sql::Text(name) => name,
            Sql::Null | Sql::Real(_) | Sql::Blob(_) => String::new(),
        };
        Ok((name, row.get::<_, String>(1)?))
    })?;
    let mut rows: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
    // One more than asked for was read, to know whether there is a next page.
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_more).map(|(name, _)| name.clone());
    let items = rows.iter().map(|(_, json)| item(json)).collect::<Result<_, _>>()?;
    Ok(Page { items, next })
}

/// `quantity_milli: 1250` becomes `quantity: "1.25"`.
fn item(json: &str) -> Result<Value, StoreError> {
    let map: Map<String, Value> = serde_json::from_str(json).map_err(|error| damaged("a listing", error))?;
    let written = map.into_iter().map(|(name, value)| match (name.strip_suffix("_milli"), value.as_i64()) {
        (Some(short), Some(milli)) => (short.to_owned(), Value::String(Quantity::from_milli(milli).to_string())),
        _other => (name, value),
    });
    Ok(Value::Object(written.collect()))
}
