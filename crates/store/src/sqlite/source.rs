//! Reads rows of the source tables as devices see them: canonical text, one row at a time.

use mstore_protocol::BranchKey;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    StoreError,
    source_row::{self, Item, Product, SourceRow},
};

/// Reads one row.
pub(super) fn read(conn: &Connection, key: &BranchKey, collection: &str, id: &str) -> Result<SourceRow, StoreError> {
    let row = match collection {
        "product" => product(conn, key, id),
        "inventory" => inventory(conn, key, id),
        "transaction" => transaction(conn, key, id),
        _unknown => return Ok(SourceRow::Gone),
    };
    row.or_else(|error| match breach(&error) {
        Some(why) => Ok(SourceRow::Bad(why)),
        None => Err(error.into()),
    })
}

/// What is wrong with the value that could not be read; `None` when it was the database that failed.
fn breach(error: &rusqlite::Error) -> Option<String> {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    let is_value = matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..));
    is_value.then(|| format!("a value cannot be read: {error}"))
}

const PRODUCT: &str = "SELECT p.sku, p.barcode, p.name, p.category, p.unit, coalesce(bp.price_amount, p.price_amount), m.currency,
    coalesce(bp.stock_milli, 0), p.track_stock, p.is_active, max(p.updated_at, coalesce(bp.price_updated_at, '')),
    EXISTS (SELECT 1 FROM recipe r WHERE r.merchant_id = p.merchant_id AND r.product_id = p.id)
  FROM branch b JOIN merchant m ON m.merchant_id = b.merchant_id JOIN product p ON p.merchant_id = b.merchant_id
  LEFT JOIN branch_product bp ON bp.merchant_id = b.merchant_id AND bp.branch_id = b.branch_id AND bp.product_id = p.id
  WHERE b.merchant_id = ?1 AND b.branch_id = ?2 AND p.id = ?3";

fn product(conn: &Connection, key: &BranchKey, id: &str) -> rusqlite::Result<SourceRow> {
    let mut statement = conn.prepare_cached(PRODUCT)?;
    let mut rows = statement.query(params![key.merchant.as_str(), key.branch.as_str(), id])?;
    let Some(row) = rows.next()? else { return Ok(SourceRow::Gone) };
    let optional = |i: usize| -> rusqlite::Result<Option<&str>> { Ok(row.get_ref(i)?.as_str_or_null()?) };
    let text = |i: usize| -> rusqlite::Result<&str> { Ok(row.get_ref(i)?.as_str()?) };
    let has_recipe: bool = row.get(11)?;
    let product = Product {
        id,
        sku: text(0)?,
        barcode: optional(1)?,
        name: text(2)?,
        category: optional(3)?,
        unit: text(4)?,
        price_amount: row.get(5)?,
        currency: text(6)?,
        stock_milli: row.get(7)?,
        track_stock: row.get(8)?,
        is_active: row.get(9)?,
        updated_at: text(10)?,
        recipe: if has_recipe { recipe_lines(conn, key.merchant.as_str(), id)? } else { Vec::new() },
    };
    Ok(product.row())
}

/// The ingredients of a product with their thousandths, by item.
fn recipe_lines(conn: &Connection, merchant: &str, product_id: &str) -> rusqlite::Result<Vec<(String, i64)>> {
    let sql = "SELECT item_id, quantity_milli FROM recipe WHERE merchant_id = ?1 AND product_id = ?2 ORDER BY item_id";
    let mut statement = conn.prepare_cached(sql)?;
    let lines = statement.query_map([merchant, product_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    lines.collect()
}

const INVENTORY: &str = "SELECT i.name, i.unit, i.quantity_milli, i.reorder_level_milli, i.updated_at FROM branch b
  JOIN inventory i ON i.merchant_id = b.merchant_id AND i.branch_id = b.branch_id
  WHERE b.merchant_id = ?1 AND b.branch_id = ?2 AND i.id = ?3";

fn inventory(conn: &Connection, key: &BranchKey, id: &str) -> rusqlite::Result<SourceRow> {
    let mut statement = conn.prepare_cached(INVENTORY)?;
    let mut rows = statement.query(params![key.merchant.as_str(), key.branch.as_str(), id])?;
    let Some(row) = rows.next()? else { return Ok(SourceRow::Gone) };
    let text = |i: usize| -> rusqlite::Result<&str> { Ok(row.get_ref(i)?.as_str()?) };
    let item =
        Item { id, name: text(0)?, unit: text(1)?, quantity_milli: row.get(2)?, reorder_level_milli: row.get(3)?, updated_at: text(4)? };
    Ok(item.row())
}

const TRANSACTION: &str =
    "SELECT t.body, t.recorded_at >= coalesce((SELECT c.cutoff FROM transaction_cutoff c WHERE c.merchant_id = t.merchant_id),
    (SELECT value FROM setting WHERE name = 'transaction_cutoff')) FROM branch b
  JOIN transactions t ON t.merchant_id = b.merchant_id AND t.branch_id = b.branch_id
  WHERE b.merchant_id = ?1 AND b.branch_id = ?2 AND t.id = ?3";

fn transaction(conn: &Connection, key: &BranchKey, id: &str) -> rusqlite::Result<SourceRow> {
    let found = conn
        .prepare_cached(TRANSACTION)?
        .query_row(params![key.merchant.as_str(), key.branch.as_str(), id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))
        .optional()?;
    Ok(found.map_or(SourceRow::Gone, |(body, is_within_window)| source_row::transaction(id, &body, is_within_window)))
}
