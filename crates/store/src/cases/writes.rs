//! Writes to the source tables through our own API: each one savepoint, all or none; triggers leave the marks.

use mstore_protocol::{BranchKey, Code, Currency, MerchantId, Money, OperationId, Quantity, Row, StockAuthority, StockTarget};

use super::{Case, Size, Work, admission, audit, events, ledger, ledger::Movement, locks, recipe};
use crate::{
    Act, By, InventoryItem, Merchant, MoveKind, Product, RecipeLine, SourceWrite, StockMove, StockPolicy, StoreError,
    sql::{args, damaged},
};

/// How much a write changes, and what it locks.
pub(super) fn case(write: &SourceWrite) -> Case {
    match write {
        SourceWrite::PutProducts { merchant, products } => Size::of(products.len()).at(merchant),
        SourceWrite::PutInventory { key, items } => Size::of(items.len()).at(key),
        SourceWrite::MoveStock { key, moves } => Size::of(moves.len()).at(key),
        // A new branch gets the whole catalogue, a confirmed hold may be anything.
        SourceWrite::PutMerchant(merchant) => Size::Large.at(&merchant.merchant),
        SourceWrite::PutBranch { key, .. } | SourceWrite::ConfirmHold { key, .. } => Size::Large.at(key),
        SourceWrite::DeleteProduct { merchant, .. } | SourceWrite::PutRecipe { merchant, .. } => Size::Small.at(merchant),
        SourceWrite::PutBranchPrice { key, .. } | SourceWrite::DeleteInventory { key, .. } | SourceWrite::Event { key, .. } => {
            Size::Small.at(key)
        }
    }
}

/// Carries out a write; tells whether it had been seen before, and with which commit.
pub(super) fn perform(work: &mut Work<'_>, write: &SourceWrite) -> Result<events::Outcome, StoreError> {
    match write {
        SourceWrite::PutMerchant(merchant) => put_merchant(work, merchant)?,
        SourceWrite::PutBranch { key, name } => put_branch(work, key, name)?,
        SourceWrite::PutProducts { merchant, products } => put_products(work, merchant, products)?,
        SourceWrite::DeleteProduct { merchant, id } => delete_product(work, merchant, id)?,
        SourceWrite::PutBranchPrice { key, product_id, price } => put_branch_price(work, key, product_id, *price)?,
        SourceWrite::PutInventory { key, items } => put_inventory(work, key, items)?,
        SourceWrite::DeleteInventory { key, id } => delete_inventory(work, key, id)?,
        SourceWrite::PutRecipe { merchant, product_id, lines } => put_recipe(work, merchant, product_id, lines)?,
        SourceWrite::MoveStock { key, moves } => move_stock(work, key, moves)?,
        SourceWrite::Event { key, event } => return events::take(work, key, event),
        SourceWrite::ConfirmHold { key, by } => confirm_hold(work, key, by)?,
    }
    Ok(events::Outcome::Written)
}

/// A merchant's settings; refused when there is none.
pub(super) fn merchant(work: &Work<'_>, id: &MerchantId) -> Result<Merchant, StoreError> {
    let sql = "SELECT name, currency, stock_policy, stock_authority FROM merchant WHERE merchant_id = ?1";
    let found = work.sql.row(sql, args![id.as_str()], |row| {
        let stock_policy = match row.text(2)? {
            "allow" => StockPolicy::Allow,
            "block" => StockPolicy::Block,
            _warn => StockPolicy::Warn,
        };
        let stock_authority = if row.text(3)? == "backend" { StockAuthority::Backend } else { StockAuthority::Mstore };
        let currency = Currency::parse(row.text(1)?).map_err(|error| damaged("a merchant", error))?;
        Ok(Merchant { merchant: id.clone(), name: row.string(0)?, currency, stock_policy, stock_authority })
    })?;
    found.ok_or_else(|| StoreError::refused(Code::NotFound, format!("no merchant {id}")))
}

fn put_merchant(work: &Work<'_>, merchant: &Merchant) -> Result<(), StoreError> {
    let id = merchant.merchant.as_str();
    locks::merchant(work, &merchant.merchant)?;
    let sql =
        "SELECT 1 FROM merchant m JOIN product p ON p.merchant_id = m.merchant_id WHERE m.merchant_id = ?1 AND m.currency <> ?2 LIMIT 1";
    if work.sql.exists(sql, args![id, merchant.currency.as_str()])? {
        return Err(StoreError::refused(Code::Conflict, format!("the catalogue of {id} has prices in another currency")));
    }
    let policy = match merchant.stock_policy {
        StockPolicy::Allow => "allow",
        StockPolicy::Warn => "warn",
        StockPolicy::Block => "block",
    };
    let authority = match merchant.stock_authority {
        StockAuthority::Mstore => "mstore",
        StockAuthority::Backend => "backend",
    };
    let sql = "INSERT INTO merchant (merchant_id, name, currency, stock_policy, stock_authority) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (merchant_id) DO UPDATE SET name = excluded.name, currency = excluded.currency,
          stock_policy = excluded.stock_policy, stock_authority = excluded.stock_authority";
    work.sql.execute(sql, args![id, merchant.name, merchant.currency.as_str(), policy, authority])?;
    Ok(())
}

fn put_branch(work: &Work<'_>, key: &BranchKey, name: &str) -> Result<(), StoreError> {
    merchant(work, &key.merchant)?;
    let sql = "INSERT INTO branch (merchant_id, branch_id, name) VALUES (?1, ?2, ?3) ON CONFLICT (merchant_id, branch_id) DO UPDATE SET name = excluded.name";
    work.sql.execute(sql, args![key.merchant.as_str(), key.branch.as_str(), name])?;
    Ok(())
}

fn check_id(what: &str, id: &str) -> Result<(), StoreError> {
    Row::check_id(id).map_err(|error| StoreError::refused(Code::MalformedRow, format!("{what} {id:?}: {error}")))
}

fn check_price(merchant: &Merchant, price: &Money, id: &str) -> Result<(), StoreError> {
    if price.currency == merchant.currency {
        return admission::check_price(price, id);
    }
    let detail = format!("the price of {id:?} is in {}, the merchant's currency is {}", price.currency, merchant.currency);
    Err(StoreError::refused(Code::CurrencyDiffers, detail))
}

const PUT_PRODUCT: &str = "INSERT INTO product (merchant_id, id, sku, barcode, name, category, unit, price_amount, track_stock, is_active, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
    ON CONFLICT (merchant_id, id) DO UPDATE SET sku = excluded.sku, barcode = excluded.barcode, name = excluded.name, category = excluded.category,
      unit = excluded.unit, price_amount = excluded.price_amount, track_stock = excluded.track_stock, is_active = excluded.is_active,
      updated_at = excluded.updated_at
    WHERE product.sku <> excluded.sku OR product.barcode IS DISTINCT FROM excluded.barcode OR product.name <> excluded.name
      OR product.category IS DISTINCT FROM excluded.category OR product.unit <> excluded.unit OR product.price_amount <> excluded.price_amount
      OR product.track_stock <> excluded.track_stock OR product.is_active <> excluded.is_active";

fn put_products(work: &Work<'_>, id: &MerchantId, products: &[Product]) -> Result<(), StoreError> {
    locks::merchant(work, id)?;
    let merchant = merchant(work, id)?;
    let now = work.now.to_string();
    let mut new_skus = Vec::new();
    for product in products {
        check_id("product", &product.id)?;
        check_price(&merchant, &product.price, &product.id)?;
        admission::check_product_texts(work, product)?;
        admission::check_product_size(work, id, product)?;
        if admission::is_new_sku(work, id, product)? {
            new_skus.push(product);
        }
        let Product { id: product_id, sku, barcode, name, category, unit, price, track_stock, is_active } = product;
        let (price, id) = (price.amount, id.as_str());
        let values = args![id, product_id, sku, barcode, name, category, unit, price, track_stock, is_active, now];
        work.sql.send(PUT_PRODUCT, values)?;
    }
    new_skus.into_iter().try_for_each(|product| admission::check_sku(work, id, product))
}

fn delete_product(work: &Work<'_>, merchant: &MerchantId, id: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM product WHERE merchant_id = ?1 AND id = ?2";
    if work.sql.execute(sql, args![merchant.as_str(), id])? == 0 {
        return Err(StoreError::refused(Code::NotFound, format!("no product {id:?}")));
    }
    work.sql.execute("DELETE FROM recipe WHERE merchant_id = ?1 AND product_id = ?2", args![merchant.as_str(), id])?;
    Ok(())
}

/// Refuses what names no branch.
pub(super) fn check_branch(work: &Work<'_>, key: &BranchKey) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM branch WHERE merchant_id = ?1 AND branch_id = ?2";
    if work.sql.exists(sql, args![key.merchant.as_str(), key.branch.as_str()])? {
        return Ok(());
    }
    Err(StoreError::refused(Code::NotFound, format!("no branch {key}")))
}

fn put_branch_price(work: &Work<'_>, key: &BranchKey, product_id: &str, price: Option<Money>) -> Result<(), StoreError> {
    let merchant = merchant(work, &key.merchant)?;
    check_branch(work, key)?;
    if let Some(price) = &price {
        check_price(&merchant, price, product_id)?;
    }
    ledger::check_item(work, key, StockTarget::Product, product_id)?;
    let sql = "INSERT INTO branch_product (merchant_id, branch_id, product_id, price_amount, price_updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (merchant_id, branch_id, product_id) DO UPDATE SET price_amount = excluded.price_amount, price_updated_at = excluded.price_updated_at
        WHERE branch_product.price_amount IS DISTINCT FROM excluded.price_amount";
    let (merchant, branch) = (key.merchant.as_str(), key.branch.as_str());
    work.sql.execute(sql, args![merchant, branch, product_id, price.map(|price| price.amount), work.now.to_string()])?;
    Ok(())
}

const PUT_INVENTORY: &str = "INSERT INTO inventory (merchant_id, branch_id, id, name, unit, reorder_level_milli, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (merchant_id, branch_id, id) DO UPDATE SET name = excluded.name, unit = excluded.unit,
      reorder_level_milli = excluded.reorder_level_milli, updated_at = excluded.updated_at
    WHERE inventory.name <> excluded.name OR inventory.unit <> excluded.unit OR inventory.reorder_level_milli <> excluded.reorder_level_milli";

fn put_inventory(work: &Work<'_>, key: &BranchKey, items: &[InventoryItem]) -> Result<(), StoreError> {
    check_branch(work, key)?;
    let now = work.now.to_string();
    for item in items {
        check_id("inventory item", &item.id)?;
        admission::check_item_texts(work, item)?;
        admission::check_item_size(item)?;
        let level = item.reorder_level.as_milli();
        let values = args![key.merchant.as_str(), key.branch.as_str(), item.id, item.name, item.unit, level, now];
        work.sql.send(PUT_INVENTORY, values)?;
    }
    Ok(())
}

fn delete_inventory(work: &Work<'_>, key: &BranchKey, id: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM inventory WHERE merchant_id = ?1 AND branch_id = ?2 AND id = ?3";
    if work.sql.execute(sql, args![key.merchant.as_str(), key.branch.as_str(), id])? == 0 {
        return Err(StoreError::refused(Code::NotFound, format!("no inventory item {id:?} at {key}")));
    }
    Ok(())
}

fn put_recipe(work: &Work<'_>, merchant: &MerchantId, product_id: &str, lines: &[RecipeLine]) -> Result<(), StoreError> {
    for line in lines {
        check_id("inventory item", &line.item_id)?;
        if line.quantity.as_milli() <= 0 {
            return Err(StoreError::refused(Code::NegativeQuantity, format!("{:?}: a recipe takes more than 0", line.item_id)));
        }
    }
    locks::merchant(work, merchant)?;
    admission::check_recipe_size(work, merchant, product_id, lines)?;
    let existing = recipe::lines(work.sql, merchant.as_str(), product_id)?;
    let mut wanted: Vec<(String, Quantity)> = lines.iter().map(|line| (line.item_id.clone(), line.quantity)).collect();
    wanted.sort();
    if existing == wanted {
        return Ok(());
    }
    let sql = "UPDATE product SET updated_at = ?3 WHERE merchant_id = ?1 AND id = ?2";
    let touch = |at: &str| work.sql.execute(sql, args![merchant.as_str(), product_id, at]);
    let now = work.now.to_string();
    if touch(&now)? == 0 {
        return Err(StoreError::refused(Code::UnknownProduct, format!("no product {product_id:?}")));
    }
    work.sql.execute("DELETE FROM recipe WHERE merchant_id = ?1 AND product_id = ?2", args![merchant.as_str(), product_id])?;
    let sql = "INSERT INTO recipe (merchant_id, product_id, item_id, quantity_milli) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (merchant_id, product_id, item_id) DO UPDATE SET quantity_milli = recipe.quantity_milli + excluded.quantity_milli";
    for (item, quantity) in wanted {
        work.sql.send(sql, args![merchant.as_str(), product_id, item, quantity.as_milli()])?;
    }
    // The recipe's own triggers set the time of the machine; ours is the server's clock.
    touch(&now)?;
    Ok(())
}

fn move_stock(work: &Work<'_>, key: &BranchKey, moves: &[StockMove]) -> Result<(), StoreError> {
    locks::branches(work, [key])?;
    let merchant = merchant(work, &key.merchant)?;
    check_branch(work, key)?;
    if merchant.stock_authority == StockAuthority::Backend {
        return Err(StoreError::refused(Code::StockDecidedElsewhere, format!("the stock of {} is decided by its backend", key.merchant)));
    }
    for (i, stock_move) in moves.iter().enumerate() {
        if is_known(work, key, &stock_move.id)? {
            continue;
        }
        ledger::check_item(work, key, stock_move.collection, &stock_move.item_id)?;
        let movement =
            Movement::at_server(work.now, &stock_move.id.to_string(), stock_move.collection, &stock_move.item_id, &stock_move.reason);
        let movement = match stock_move.kind {
            MoveKind::Delta => movement.delta(stock_move.quantity),
            MoveKind::Count => movement.count(stock_move.quantity),
        };
        if let Some(code) = ledger::record(work, key, merchant.stock_policy, &movement, false)?.refused {
            return Err(StoreError::refused(code, format!("movement {i}, {:?}: {}", stock_move.item_id, code.title())));
        }
    }
    Ok(())
}

fn is_known(work: &Work<'_>, key: &BranchKey, id: &OperationId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM stock_move WHERE merchant_id = ?1 AND id = ?2";
    work.sql.exists(sql, args![key.merchant.as_str(), &id.to_string()])
}

fn confirm_hold(work: &mut Work<'_>, key: &BranchKey, by: &By) -> Result<(), StoreError> {
    let sql = "SELECT detail FROM hold WHERE merchant_id = ?1 AND branch_id = ?2";
    let held = work.sql.row(sql, args![key.merchant.as_str(), key.branch.as_str()], |row| row.string(0))?;
    let Some(held) = held else { return Err(StoreError::refused(Code::NotFound, format!("nothing is held at {key}"))) };
    audit::write(work, &Act { detail: held, ..audit::at("hold.confirmed", key) }, by)?;
    work.confirmed.insert(key.clone());
    work.touched.insert(key.clone());
    Ok(())
}
