//! What the app and tests read: its own connection, so that a snapshot being shown never makes a screen wait.

use mstore_engine::overlay::{StockChange, shown};
use mstore_protocol::{Collection, Quantity, Row, StockTarget};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::de::DeserializeOwned;

use super::{DbError, damaged};
use crate::views::{InventoryItem, Product, Query, Transaction};

/// The read side.
#[derive(Debug)]
pub(crate) struct Reader {
    conn: Connection,
}

const LIMIT_DEFAULT: usize = 100;

impl Reader {
    pub(super) fn new(conn: Connection) -> Self {
        Self { conn }
    }

    /// One consistent read: a row and the pending effects on it are of the same moment.
    fn consistent<T>(&self, work: impl FnOnce(&Connection) -> Result<T, DbError>) -> Result<T, DbError> {
        let transaction = self.conn.unchecked_transaction()?;
        let result = work(&transaction);
        drop(transaction);
        result
    }

    pub(crate) fn product(&self, id: &str) -> Result<Option<Product>, DbError> {
        self.consistent(|conn| {
            let body = body_of(conn, "product", id)?;
            body.map(|body| with_stock(conn, parse("a product", &body)?)).transpose()
        })
    }

    pub(crate) fn product_by_barcode(&self, barcode: &str) -> Result<Option<Product>, DbError> {
        self.consistent(|conn| {
            let mut find =
                conn.prepare_cached("SELECT body FROM row WHERE collection = 'product' AND body ->> '$.barcode' = ?1 LIMIT 1")?;
            let body: Option<String> = find.query_row([barcode], |row| row.get(0)).optional()?;
            body.map(|body| with_stock(conn, parse("a product", &body)?)).transpose()
        })
    }

    pub(crate) fn products(&self, query: &Query) -> Result<Vec<Product>, DbError> {
        self.find("product", query, "OR body ->> '$.sku' = ?3 OR body ->> '$.barcode' = ?3", |conn, body| {
            with_stock(conn, parse("a product", body)?)
        })
    }

    pub(crate) fn inventory(&self, query: &Query) -> Result<Vec<InventoryItem>, DbError> {
        self.find("inventory", query, "", |conn, body| with_quantity(conn, parse("an inventory item", body)?))
    }

    pub(crate) fn inventory_item(&self, id: &str) -> Result<Option<InventoryItem>, DbError> {
        self.consistent(|conn| {
            let body = body_of(conn, "inventory", id)?;
            body.map(|body| with_quantity(conn, parse("an inventory item", &body)?)).transpose()
        })
    }

    /// The branch's transactions in the order of their ids, own pending ones at the end.
    pub(crate) fn transactions(&self, query: &Query) -> Result<Vec<Transaction>, DbError> {
        let mut found = self.find("transaction", query, "OR body ->> '$.receipt_no' = ?3", |_, body| parse("a transaction", body))?;
        let pending = self.consistent(|conn| {
            let mut read = conn.prepare_cached(
                "SELECT body FROM operation o WHERE state IN ('queued', 'accepted') AND shown = 0 AND body ->> '$.type' IN ('sale', 'return')
                 AND id > ?1 AND NOT EXISTS (SELECT 1 FROM row WHERE collection = 'transaction' AND row.id = o.id) ORDER BY device_seq",
            )?;
            let bodies = read.query_map([query.after.as_deref().unwrap_or("")], |row| row.get::<_, String>(0))?;
            bodies.map(|body| parse::<Transaction>("an operation", &body?)).collect::<Result<Vec<_>, _>>()
        })?;
        found.extend(pending.into_iter().map(|pending| Transaction { status: "pending".into(), ..pending }));
        Ok(found)
    }

    fn find<T>(
        &self,
        collection: &str,
        query: &Query,
        exact: &str,
        read: impl Fn(&Connection, &str) -> Result<T, DbError>,
    ) -> Result<Vec<T>, DbError> {
        let sql = format!(
            "SELECT body FROM row WHERE collection = ?1 AND id > ?2 AND (?3 = '' OR instr(lower(body ->> '$.name'), lower(?3)) > 0 {exact})
             ORDER BY id LIMIT ?4"
        );
        let limit = i64::try_from(if query.limit == 0 { LIMIT_DEFAULT } else { query.limit }).unwrap_or(i64::MAX);
        self.consistent(|conn| {
            let mut find = conn.prepare_cached(&sql)?;
            let after = query.after.as_deref().unwrap_or("");
            let bodies = find.query_map(params![collection, after, query.search, limit], |row| row.get::<_, String>(0))?;
            bodies.map(|body| read(conn, &body?)).collect()
        })
    }

    /// The rows of a collection as the server sent them, by id.
    pub(crate) fn rows(&self, collection: &Collection) -> Result<Vec<String>, DbError> {
        let mut read = self.conn.prepare_cached("SELECT body FROM row WHERE collection = ?1 ORDER BY id")?;
        let rows = read.query_map([collection.as_str()], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn row(&self, collection: &Collection, id: &str) -> Result<Option<Row>, DbError> {
        let body = body_of(&self.conn, collection.as_str(), id)?;
        body.map(|body| Row::parse(&body).map_err(|error| damaged("a row", error))).transpose()
    }
}

fn body_of(conn: &Connection, collection: &str, id: &str) -> Result<Option<String>, DbError> {
    let mut find = conn.prepare_cached("SELECT body FROM row WHERE collection = ?1 AND id = ?2")?;
    Ok(find.query_row([collection, id], |row| row.get(0)).optional()?)
}

fn parse<T: DeserializeOwned>(what: &'static str, body: &str) -> Result<T, DbError> {
    serde_json::from_str(body).map_err(|error| damaged(what, error))
}

fn pending(conn: &Connection, target: StockTarget, id: &str) -> Result<Vec<StockChange>, DbError> {
    let mut read =
        conn.prepare_cached("SELECT is_base, milli FROM pending_effect WHERE collection = ?1 AND item_id = ?2 ORDER BY device_seq, n")?;
    let effects = read.query_map([target.as_str(), id], |row| {
        let quantity = Quantity::from_milli(row.get(1)?);
        Ok(if row.get(0)? { StockChange::Base(quantity) } else { StockChange::Delta(quantity) })
    })?;
    Ok(effects.collect::<Result<_, _>>()?)
}

fn with_stock(conn: &Connection, mut product: Product) -> Result<Product, DbError> {
    product.server_stock = product.stock;
    if product.track_stock {
        product.stock = shown(product.server_stock, pending(conn, StockTarget::Product, &product.id)?);
    }
    Ok(product)
}

fn with_quantity(conn: &Connection, mut item: InventoryItem) -> Result<InventoryItem, DbError> {
    item.server_quantity = item.quantity;
    item.quantity = shown(item.server_quantity, pending(conn, StockTarget::Inventory, &item.id)?);
    Ok(item)
}
