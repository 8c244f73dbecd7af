//! Pages of what operators look at: each row an object whose members are the columns.
//!
//! What a column's name ends with says how it is written: `_milli` a quantity, `_flag` true or false, `_money` an amount in minor units with the currency in
//! the next column, `_json` a text that holds JSON, `_in` the member of that name in a text that holds a JSON object.

use mstore_protocol::{BranchKey, MerchantId, Quantity, limits::PAGE_ROWS_MAX};
use serde_json::{Map, Value, json};

use crate::{
    Listing, Page, StoreError,
    sql::{Arg, Cell, Row, Sql, ToArg, damaged},
};

const MERCHANTS: &str = "SELECT merchant_id, merchant_id AS merchant, name, currency, stock_policy, stock_authority
    FROM merchant WHERE merchant_id > ?1 ORDER BY merchant_id LIMIT ?2";
const BRANCHES: &str = "SELECT b.branch_id, b.merchant_id AS merchant, b.branch_id AS branch, b.name, h.epoch, h.seq,
    (SELECT detail FROM hold o WHERE o.merchant_id = b.merchant_id AND o.branch_id = b.branch_id) AS held
    FROM branch b LEFT JOIN head h ON h.merchant_id = b.merchant_id AND h.branch_id = b.branch_id
    WHERE b.branch_id > ?1 AND b.merchant_id = ?3 ORDER BY b.branch_id LIMIT ?2";
const PRODUCTS: &str = "SELECT p.id, p.id, p.sku, p.barcode, p.name, p.category, p.unit, p.price_amount AS price_money, m.currency,
    p.track_stock AS track_stock_flag, p.is_active AS is_active_flag, p.updated_at
    FROM product p JOIN merchant m ON m.merchant_id = p.merchant_id WHERE p.id > ?1 AND p.merchant_id = ?3 ORDER BY p.id LIMIT ?2";
const INVENTORY: &str = "SELECT id, id, name, unit, quantity_milli, reorder_level_milli, updated_at
    FROM inventory WHERE id > ?1 AND merchant_id = ?3 AND branch_id = ?4 ORDER BY id LIMIT ?2";
const STOCK_MOVES: &str =
    "SELECT n, n, id, collection, item_id, kind, quantity_milli, effect_milli, flag, type, operation_id, reason, occurred_at, recorded_at
    FROM stock_move WHERE n < ?1 AND merchant_id = ?3 AND branch_id = ?4 ORDER BY n DESC LIMIT ?2";
const OPERATIONS: &str =
    "SELECT n, n, id, device_id, journal_id, device_seq, type, status, code, detail, replaces, seq, occurred_at, recorded_at,
    body AS body_json FROM operation WHERE n > ?1 AND merchant_id = ?3 AND branch_id = ?4 ORDER BY n LIMIT ?2";
const TRANSACTIONS: &str = "SELECT id, body FROM transactions WHERE id > ?1 AND merchant_id = ?3 AND branch_id = ?4 ORDER BY id LIMIT ?2";
const ALARMS: &str = "SELECT id, id, at, kind, merchant_id AS merchant, branch_id AS branch, device_id AS device, detail, cleared_at
    FROM alarm WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
const MERCHANT: &str = "SELECT merchant_id, merchant_id AS merchant, name, currency, stock_policy, stock_authority
    FROM merchant WHERE merchant_id > ?1 AND merchant_id = ?3 ORDER BY merchant_id LIMIT ?2";
const ALARMS_OF: &str = "SELECT id, id, at, kind, merchant_id AS merchant, branch_id AS branch, device_id AS device, detail, cleared_at
    FROM alarm WHERE id < ?1 AND merchant_id = ?3 ORDER BY id DESC LIMIT ?2";

/// Where a listing begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// After a name.
    Name,
    /// After a number.
    Number,
    /// Below a number: the newest first.
    NumberDown,
}

/// One page.
pub(crate) fn page(db: &dyn Sql, listing: &Listing, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
    let of_merchant = |merchant: &MerchantId| vec![Some(merchant.to_string())];
    let of_branch = |key: &BranchKey| vec![Some(key.merchant.to_string()), Some(key.branch.to_string())];
    let (sql, begins, scope) = match listing {
        Listing::Merchants => (MERCHANTS, After::Name, Vec::new()),
        Listing::Branches(merchant) => (BRANCHES, After::Name, of_merchant(merchant)),
        Listing::Products(merchant) => (PRODUCTS, After::Name, of_merchant(merchant)),
        Listing::Inventory(key) => (INVENTORY, After::Name, of_branch(key)),
        Listing::StockMoves(key) => (STOCK_MOVES, After::NumberDown, of_branch(key)),
        Listing::Operations(key) => (OPERATIONS, After::Number, of_branch(key)),
        Listing::Transactions(key) => return read(db, TRANSACTIONS, After::Name, &of_branch(key), after, limit, body),
        Listing::Alarms => (ALARMS, After::NumberDown, Vec::new()),
        Listing::Merchant(merchant) => (MERCHANT, After::Name, of_merchant(merchant)),
        Listing::AlarmsOf(merchant) => (ALARMS_OF, After::NumberDown, of_merchant(merchant)),
    };
    read(db, sql, begins, &scope, after, limit, members)
}

/// A page of objects made of the columns; see [`read`].
pub(crate) fn objects(db: &dyn Sql, sql: &str, scope: &[Option<String>], after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
    read(db, sql, After::NumberDown, scope, after, limit, members)
}

/// Reads a page: ?1 is where it begins, ?2 how many rows to read, the scope follows. The first column is what the next page begins after.
fn read(
    db: &dyn Sql,
    sql: &str,
    begins: After,
    scope: &[Option<String>],
    after: Option<&str>,
    limit: usize,
    item: fn(&Row<'_>) -> Result<Value, StoreError>,
) -> Result<Page, StoreError> {
    let limit = limit.clamp(1, PAGE_ROWS_MAX);
    let number = after.and_then(|raw| raw.parse::<i64>().ok());
    let begin = match begins {
        After::Name => Arg::Text(after.unwrap_or("")),
        After::Number => Arg::Integer(number.unwrap_or(0)),
        After::NumberDown => Arg::Integer(number.unwrap_or(i64::MAX)),
    };
    // One more than asked for, to know whether there is a next page.
    let count = limit + 1;
    let mut values: Vec<&dyn ToArg> = vec![&begin, &count];
    values.extend(scope.iter().map(|name| name as &dyn ToArg));
    let mut rows = db.rows(sql, &values, |row| {
        let name = match row.cell(0) {
            Cell::Integer(n) => n.to_string(),
            Cell::Text(_) => row.string(0)?,
            Cell::Null | Cell::Blob(_) | Cell::Foreign => String::new(),
        };
        Ok((name, item(row)?))
    })?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_more).map(|(name, _)| name.clone());
    Ok(Page { items: rows.into_iter().map(|(_, item)| item).collect(), next })
}

/// The object that the second column holds.
fn body(row: &Row<'_>) -> Result<Value, StoreError> {
    let body: Map<String, Value> = serde_json::from_str(row.text(1)?).map_err(|error| damaged("a listing", error))?;
    Ok(Value::Object(body))
}

/// The object made of all columns but the first.
fn members(row: &Row<'_>) -> Result<Value, StoreError> {
    let mut object = Map::new();
    let mut columns = row.named().skip(1);
    while let Some((name, cell)) = columns.next() {
        let (name, value) = match name.rsplit_once('_') {
            Some((short, "milli")) => (short, quantity(cell)),
            Some((short, "flag")) => (short, Value::Bool(cell == Cell::Integer(1))),
            Some((short, "money")) => {
                let currency = columns.next().map_or(Value::Null, |(_, cell)| plain(cell));
                (short, json!({"amount": plain(cell), "currency": currency}))
            }
            Some((short, "json")) => (short, parsed(cell).unwrap_or_else(|| plain(cell))),
            Some((short, "in")) => (short, parsed(cell).and_then(|mut object| Some(object.get_mut(short)?.take())).unwrap_or(Value::Null)),
            _plain => (name, plain(cell)),
        };
        object.insert(name.to_owned(), value);
    }
    Ok(Value::Object(object))
}

/// `1250` becomes `"1.25"`.
fn quantity(cell: Cell<'_>) -> Value {
    match cell {
        Cell::Integer(milli) => Value::String(Quantity::from_milli(milli).to_string()),
        Cell::Null | Cell::Text(_) | Cell::Blob(_) | Cell::Foreign => plain(cell),
    }
}

fn parsed(cell: Cell<'_>) -> Option<Value> {
    let Cell::Text(bytes) = cell else { return None };
    serde_json::from_slice(bytes).ok()
}

fn plain(cell: Cell<'_>) -> Value {
    match cell {
        Cell::Integer(value) => value.into(),
        Cell::Text(bytes) => String::from_utf8_lossy(bytes).into(),
        Cell::Null | Cell::Blob(_) | Cell::Foreign => Value::Null,
    }
}
