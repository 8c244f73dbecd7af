//! What our own API refuses at the door although SQL may write it: rows over the limit, personal data, prices below zero, a sku that is taken.
//!
//! A foreign writer cannot be refused; its rows are quarantined where they break the rules of rows, and stand where they do not.

use mstore_protocol::{Code, MerchantId, Money, Quantity, limits::ROW_BYTES_MAX};

use super::{Work, recipe};
use crate::{InventoryItem, Product, RecipeLine, StoreError, sql::args, text};

/// What a row holds beside its texts: keys, numbers, times.
const FRAMEWORK_BYTES_MAX: usize = 512;
/// A recipe may fill half of its product's row, so that a small product never has to ask how large its recipe is.
const RECIPE_BYTES_MAX: usize = ROW_BYTES_MAX / 2;

/// Refuses a price below zero: a discount belongs on a receipt's line.
pub(super) fn check_price(price: &Money, id: &str) -> Result<(), StoreError> {
    if price.amount >= 0 {
        return Ok(());
    }
    Err(StoreError::refused(Code::NegativePrice, format!("the price of {id:?} is {price}")))
}

/// Refuses personal data in the texts of a row.
fn check_personal<const N: usize>(work: &Work<'_>, what: &str, id: &str, texts: [(&str, &str); N]) -> Result<(), StoreError> {
    let found = texts.into_iter().find_map(|(field, text)| work.personal.find_text(field, text));
    found.map_or(Ok(()), |found| {
        let id: String = id.chars().take(64).collect();
        Err(StoreError::refused(Code::PersonalData, format!("{what} {id:?}: {found}")))
    })
}

/// Refuses personal data in a product.
pub(super) fn check_product_texts(work: &Work<'_>, product: &Product) -> Result<(), StoreError> {
    let Product { id, sku, barcode, name, category, unit, .. } = product;
    let [barcode, category] = [barcode, category].map(|text| text.as_deref().unwrap_or_default());
    check_personal(work, "product", id, [("sku", sku), ("barcode", barcode), ("name", name), ("category", category), ("unit", unit)])
}

/// Refuses personal data in an inventory item.
pub(super) fn check_item_texts(work: &Work<'_>, item: &InventoryItem) -> Result<(), StoreError> {
    check_personal(work, "inventory item", &item.id, [("name", &item.name), ("unit", &item.unit)])
}

/// Refuses an inventory item whose row no device would get.
pub(super) fn check_item_size(item: &InventoryItem) -> Result<(), StoreError> {
    check_size("inventory item", &item.id, FRAMEWORK_BYTES_MAX + texts_bytes([item.id.as_str(), &item.name, &item.unit]))
}

/// Refuses a product whose row, its recipe included, no device would get.
pub(super) fn check_product_size(work: &Work<'_>, merchant: &MerchantId, product: &Product) -> Result<(), StoreError> {
    let Product { id, sku, barcode, name, category, unit, .. } = product;
    let optional = [barcode, category].map(|text| text.as_deref().unwrap_or_default());
    let own = FRAMEWORK_BYTES_MAX + texts_bytes([id.as_str(), sku, name, unit]) + texts_bytes(optional);
    if own + RECIPE_BYTES_MAX <= ROW_BYTES_MAX {
        return Ok(());
    }
    let recipe = recipe::lines(work.sql, merchant.as_str(), id)?;
    check_size("product", id, own + recipe_bytes(recipe.iter().map(|(item, quantity)| (item.as_str(), *quantity))))
}

/// Refuses a recipe that its product's row cannot hold.
pub(super) fn check_recipe_size(work: &Work<'_>, merchant: &MerchantId, id: &str, lines: &[RecipeLine]) -> Result<(), StoreError> {
    let recipe = recipe_bytes(lines.iter().map(|line| (line.item_id.as_str(), line.quantity)));
    if recipe > RECIPE_BYTES_MAX {
        let detail = format!("the recipe of {id:?} has {recipe} bytes; at most {RECIPE_BYTES_MAX}");
        return Err(StoreError::refused(Code::RowTooLarge, detail));
    }
    let sql = "SELECT id, sku, coalesce(barcode, ''), name, coalesce(category, ''), unit FROM product WHERE merchant_id = ?1 AND id = ?2";
    let own = work.sql.row(sql, args![merchant.as_str(), id], |row| {
        // A text of a foreign writer may not be UTF-8; the question is only how long it is.
        (0..6).try_fold(FRAMEWORK_BYTES_MAX, |sum, i| Ok(sum + text::string_bytes(&String::from_utf8_lossy(row.bytes(i)?))))
    })?;
    // Whether there is such a product is another question.
    own.map_or(Ok(()), |own| check_size("product", id, own + recipe))
}

fn check_size(what: &str, id: &str, bytes: usize) -> Result<(), StoreError> {
    if bytes <= ROW_BYTES_MAX {
        return Ok(());
    }
    let id: String = id.chars().take(64).collect();
    Err(StoreError::refused(Code::RowTooLarge, format!("the row of {what} {id:?} has {bytes} bytes; at most {ROW_BYTES_MAX}")))
}

fn texts_bytes<const N: usize>(texts: [&str; N]) -> usize {
    texts.into_iter().map(text::string_bytes).sum()
}

/// `{"item_id":…,"quantity":…},` for each.
fn recipe_bytes<'a>(lines: impl Iterator<Item = (&'a str, Quantity)>) -> usize {
    lines.map(|(item, quantity)| 25 + text::string_bytes(item) + text::string_bytes(&quantity.to_string())).sum()
}

/// Whether a product gets a sku that it does not have yet: asked before it is written.
pub(super) fn is_new_sku(work: &Work<'_>, merchant: &MerchantId, product: &Product) -> Result<bool, StoreError> {
    if product.sku.is_empty() {
        return Ok(false);
    }
    let sql = "SELECT 1 FROM product WHERE merchant_id = ?1 AND id = ?2 AND sku = ?3";
    Ok(!work.sql.exists(sql, args![merchant.as_str(), &product.id, &product.sku])?)
}

/// Refuses a sku that two products have: asked when all products of a write are written, so that two may exchange theirs.
pub(super) fn check_sku(work: &Work<'_>, merchant: &MerchantId, product: &Product) -> Result<(), StoreError> {
    let sql = "SELECT id FROM product WHERE merchant_id = ?1 AND sku = ?2 AND id <> ?3 LIMIT 1";
    let other = work.sql.row(sql, args![merchant.as_str(), product.sku, product.id], |row| row.string(0))?;
    other.map_or(Ok(()), |other| {
        Err(StoreError::refused(Code::SkuTaken, format!("the sku {:?} of {:?} is that of {other:?}", product.sku, product.id)))
    })
}
