//! Reads rows of the source tables as devices see them: canonical text, one row at a time.

use mstore_protocol::{
    BranchKey, Quantity, Row,
    limits::{QUANTITY_MILLI_MAX, ROW_BYTES_MAX},
};
use rusqlite::{Connection, OptionalExtension as _, params, types::Type};

use crate::{StoreError, text::Text};

/// A source row.
pub(super) enum SourceRow {
    /// As devices are to have it.
    Is(Box<str>),
    /// There is none.
    Gone,
    /// There is one, but it is too old to be on devices.
    Expired,
    /// It breaks the rules of rows; devices keep what they have.
    Bad(String),
}

/// Reads one row.
pub(super) fn read(conn: &Connection, key: &BranchKey, collection: &str, id: &str) -> Result<SourceRow, StoreError> {
    let row = match collection {
        "product" => product(conn, key, id).map(bounded),
        "inventory" => inventory(conn, key, id).map(bounded),
        "transaction" => transaction(conn, key, id),
        _unknown => return Ok(SourceRow::Gone),
    };
    row.or_else(|error| match breach(&error) {
        Some(why) => Ok(SourceRow::Bad(why)),
        None => Err(error.into()),
    })
}

fn bounded(row: Option<Box<str>>) -> SourceRow {
    match row {
        None => SourceRow::Gone,
        Some(text) if text.len() > ROW_BYTES_MAX => SourceRow::Bad(format!("{} bytes; a row has at most {ROW_BYTES_MAX}", text.len())),
        Some(text) => SourceRow::Is(text),
    }
}

/// What is wrong with the value that could not be read; `None` when it was the database that failed.
fn breach(error: &rusqlite::Error) -> Option<String> {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    let is_value = matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..));
    is_value.then(|| format!("a value cannot be read: {error}"))
}

/// A quantity within the range of the protocol.
fn quantity(row: &rusqlite::Row<'_>, i: usize) -> rusqlite::Result<Quantity> {
    let milli: i64 = row.get(i)?;
    if milli.unsigned_abs() > QUANTITY_MILLI_MAX.unsigned_abs() {
        let why = format!("{milli} thousandths; a quantity has at most {QUANTITY_MILLI_MAX}");
        return Err(rusqlite::Error::FromSqlConversionFailure(i, Type::Integer, why.into()));
    }
    Ok(Quantity::from_milli(milli))
}

const PRODUCT: &str = "SELECT p.sku, p.barcode, p.name, p.category, p.unit, coalesce(bp.price_amount, p.price_amount), m.currency,
    coalesce(bp.stock_milli, 0), p.track_stock, p.is_active, max(p.updated_at, coalesce(bp.price_updated_at, '')),
    EXISTS (SELECT 1 FROM recipe r WHERE r.merchant_id = p.merchant_id AND r.product_id = p.id)
  FROM branch b JOIN merchant m ON m.merchant_id = b.merchant_id JOIN product p ON p.merchant_id = b.merchant_id
  LEFT JOIN branch_product bp ON bp.merchant_id = b.merchant_id AND bp.branch_id = b.branch_id AND bp.product_id = p.id
  WHERE b.merchant_id = ?1 AND b.branch_id = ?2 AND p.id = ?3";

fn product(conn: &Connection, key: &BranchKey, id: &str) -> rusqlite::Result<Option<Box<str>>> {
    let mut statement = conn.prepare_cached(PRODUCT)?;
    let mut rows = statement.query(params![key.merchant.as_str(), key.branch.as_str(), id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let optional = |i: usize| -> rusqlite::Result<Option<&str>> { Ok(row.get_ref(i)?.as_str_or_null()?) };
    let text = |i: usize| -> rusqlite::Result<&str> { Ok(row.get_ref(i)?.as_str()?) };
    let has_recipe: bool = row.get(11)?;
    let mut out = Text::object();
    out.key("barcode").string_or_null(optional(1)?);
    out.key("category").string_or_null(optional(3)?);
    out.key("id").string(id);
    out.key("is_active").plain(row.get::<_, bool>(9)?);
    out.key("name").string(text(2)?);
    out.key("price").amount(row.get(5)?, text(6)?);
    if has_recipe {
        recipe(conn, key, id, &mut out)?;
    }
    out.key("sku").string(text(0)?);
    out.key("stock").quantity(quantity(row, 7)?);
    out.key("track_stock").plain(row.get::<_, bool>(8)?);
    out.key("unit").string(text(4)?);
    out.key("updated_at").string(text(10)?);
    Ok(Some(out.end()))
}

fn recipe(conn: &Connection, key: &BranchKey, product_id: &str, out: &mut Text) -> rusqlite::Result<()> {
    let lines = recipe_lines(conn, key.merchant.as_str(), product_id)?;
    out.key("recipe").objects(lines, |out, (item, quantity)| {
        out.key("item_id").string(&item);
        out.key("quantity").quantity(quantity);
    });
    Ok(())
}

/// The ingredients of a product, by item.
fn recipe_lines(conn: &Connection, merchant: &str, product_id: &str) -> rusqlite::Result<Vec<(String, Quantity)>> {
    let sql = "SELECT item_id, quantity_milli FROM recipe WHERE merchant_id = ?1 AND product_id = ?2 ORDER BY item_id";
    let mut statement = conn.prepare_cached(sql)?;
    let lines = statement.query_map([merchant, product_id], |row| Ok((row.get(0)?, quantity(row, 1)?)))?;
    lines.collect()
}

const INVENTORY: &str = "SELECT i.name, i.unit, i.quantity_milli, i.reorder_level_milli, i.updated_at FROM branch b
  JOIN inventory i ON i.merchant_id = b.merchant_id AND i.branch_id = b.branch_id
  WHERE b.merchant_id = ?1 AND b.branch_id = ?2 AND i.id = ?3";

fn inventory(conn: &Connection, key: &BranchKey, id: &str) -> rusqlite::Result<Option<Box<str>>> {
    let mut statement = conn.prepare_cached(INVENTORY)?;
    let mut rows = statement.query(params![key.merchant.as_str(), key.branch.as_str(), id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let text = |i: usize| -> rusqlite::Result<&str> { Ok(row.get_ref(i)?.as_str()?) };
    let mut out = Text::object();
    out.key("id").string(id);
    out.key("name").string(text(0)?);
    out.key("quantity").quantity(quantity(row, 2)?);
    out.key("reorder_level").quantity(quantity(row, 3)?);
    out.key("unit").string(text(1)?);
    out.key("updated_at").string(text(4)?);
    Ok(Some(out.end()))
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
    Ok(match found {
        None => SourceRow::Gone,
        Some((_, false)) => SourceRow::Expired,
        Some((body, true)) => match Row::parse(&body) {
            Ok(row) if row.id() == id => SourceRow::Is(row.as_str().into()),
            Ok(row) => SourceRow::Bad(format!("its body has the id {:?}", row.id())),
            Err(error) => SourceRow::Bad(error.to_string()),
        },
    })
}
