//! The shop of every run: a few goods at two branches, and how rows and operations of them are written.

use std::fmt::Write as _;

use mstore_protocol::{BusinessDate, Collection, Currency, Money, Quantity, Receipt, ReceiptLine, StockAct, StockTarget, Tender};

/// A row: its collection and its id.
pub(crate) type Key = (Collection, String);

/// Branches, by number.
pub(crate) const BRANCHES: usize = 2;
/// Products of the catalogue at the start.
pub(crate) const PRODUCTS: [&str; 8] = ["latte", "tea", "bun", "jam", "egg", "rice", "salt", "soap"];
/// The product that uses up [`INGREDIENT`].
pub(crate) const LATTE: &str = "latte";
/// What a latte needs: so little that halves must be rounded.
pub(crate) const INGREDIENT: &str = "milk";
/// Ingredient per unit sold, thousandths.
pub(crate) const INGREDIENT_MILLI: i64 = 15;
/// Nobody but a stocktake and sales touch it.
pub(crate) const COUNTED: &str = "rice";
/// Goods that are only ever carried between these two: their sum never changes, in no commit.
pub(crate) const SHELF: &str = "shelf";
/// The other one.
pub(crate) const CELLAR: &str = "cellar";
/// The sum, thousandths.
pub(crate) const PAIR_MILLI: i64 = 100_000;
/// Inventory items at the start.
pub(crate) const ITEMS: [&str; 3] = [INGREDIENT, SHELF, CELLAR];
/// A product that the catalogue never had: its sale is rejected.
pub(crate) const UNKNOWN: &str = "unicorn";
/// Rows that a bulk import writes: too many for frames.
pub(crate) const BULK_ROWS: usize = mstore_protocol::limits::BULK_CHANGES_MAX + 20;

/// The opening stock of everything, thousandths.
pub(crate) fn opening_milli(target: StockTarget, item: &str) -> i64 {
    match (target, item) {
        (StockTarget::Inventory, SHELF | CELLAR) => PAIR_MILLI / 2,
        (StockTarget::Inventory, _) => 5_000,
        (StockTarget::Product, _) => 4_000,
    }
}

/// The collection whose rows have this figure.
pub(crate) fn collection_of(target: StockTarget) -> Collection {
    match target {
        StockTarget::Product => Collection::product(),
        StockTarget::Inventory => Collection::inventory(),
    }
}

/// The field of a row that holds its figure.
pub(crate) fn figure_field(target: StockTarget) -> &'static str {
    match target {
        StockTarget::Product => "stock",
        StockTarget::Inventory => "quantity",
    }
}

/// A product's row as devices get it, canonical.
pub(crate) fn product_row(id: &str, edition: u32, stock: Quantity) -> Box<str> {
    let mut row = format!(r#"{{"id":"{id}","name":"{id} as the catalogue has it, edition {edition}","#);
    if id == LATTE {
        let per_unit = Quantity::from_milli(INGREDIENT_MILLI);
        // Writing to a string cannot fail.
        let _ = write!(row, r#""recipe":[{{"item_id":"{INGREDIENT}","quantity":"{per_unit}"}}],"#);
    }
    let _ = write!(row, r#""stock":"{stock}"}}"#);
    row.into()
}

/// An inventory item's row, canonical.
pub(crate) fn inventory_row(id: &str, edition: u32, quantity: Quantity) -> Box<str> {
    format!(r#"{{"id":"{id}","name":"{id} as it is held at the branch, edition {edition}","quantity":"{quantity}"}}"#).into()
}

/// A transaction's row, canonical.
pub(crate) fn transaction_row(id: &str, device_seq: u64, receipt: &Receipt, kind: &str) -> Box<str> {
    let line = &receipt.lines[0];
    let (product, quantity, no) = (&line.product_id, line.quantity, &receipt.receipt_no);
    format!(
        r#"{{"device_seq":{device_seq},"id":"{id}","lines":[{{"product_id":"{product}","quantity":"{quantity}"}}],"receipt_no":"{no}","type":"{kind}"}}"#
    )
    .into()
}

/// A receipt of one line.
pub(crate) fn receipt(product: &str, milli: i64, receipt_no: String) -> Receipt {
    let currency = Currency::parse("IDR").expect("it is a currency");
    let price = Money { amount: 500, currency };
    let line =
        ReceiptLine { line_no: 1, product_id: product.into(), quantity: Quantity::from_milli(milli), unit_price: price, total: price };
    let tender = Tender { kind: "cash".into(), amount: price };
    let business_date = BusinessDate::parse("2026-11-22").expect("it is a date");
    Receipt { lines: vec![line], tenders: vec![tender], total: price, receipt_no, business_date }
}

/// An act on the stock of a product.
pub(crate) fn act(product: &str, milli: i64) -> StockAct {
    StockAct {
        collection: StockTarget::Product,
        item_id: product.into(),
        quantity: Quantity::from_milli(milli),
        reason: "as it was seen".into(),
    }
}
