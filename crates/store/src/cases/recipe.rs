//! What a product is made of.

use mstore_protocol::Quantity;

use crate::{
    StoreError,
    sql::{Sql, args},
};

/// The ingredients of a product, by item.
pub(super) fn lines(db: &dyn Sql, merchant: &str, product_id: &str) -> Result<Vec<(String, Quantity)>, StoreError> {
    let sql = "SELECT item_id, quantity_milli FROM recipe WHERE merchant_id = ?1 AND product_id = ?2 ORDER BY item_id";
    db.rows(sql, args![merchant, product_id], |row| Ok((row.string(0)?, row.quantity(1)?)))
}
