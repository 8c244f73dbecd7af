//! Receipts as an app gives them, completed from the local catalogue.

use mstore_protocol::{BusinessDate, Money, Operation, OperationId, OperationKind, Quantity, Receipt, ReceiptLine, Row, Tender, Timestamp};

use crate::error::CommitError;

/// A receipt to commit. What is left out is filled in from the local catalogue.
#[derive(Debug, Clone, Default)]
pub struct NewReceipt {
    /// What was sold, at least one line.
    pub lines: Vec<NewLine>,
    /// How it was paid; empty: cash, exactly.
    pub tenders: Vec<Tender>,
    /// The number printed; none: `{device}-{device_seq}`.
    pub receipt_no: Option<String>,
    /// The day it is booked on; none: the UTC day of `occurred_at`.
    pub business_date: Option<BusinessDate>,
    /// When it happened, by the device's clock; none: now.
    pub occurred_at: Option<Timestamp>,
}

impl NewReceipt {
    /// A receipt of some products at their local prices, paid in cash.
    pub fn of(lines: impl IntoIterator<Item = (impl Into<String>, Quantity)>) -> Self {
        let lines =
            lines.into_iter().map(|(product_id, quantity)| NewLine { product_id: product_id.into(), quantity, ..NewLine::default() });
        Self { lines: lines.collect(), ..Self::default() }
    }
}

/// One line of it.
#[derive(Debug, Clone, Default)]
pub struct NewLine {
    /// The product; it need not be known here: what was sold was sold.
    pub product_id: String,
    /// How much, above 0.
    pub quantity: Quantity,
    /// Price of one unit; none: the local price.
    pub unit_price: Option<Money>,
    /// What the line costs; none: quantity × price, half a minor unit rounded up.
    pub total: Option<Money>,
}

/// An operation that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its id, for life.
    pub id: OperationId,
    /// Its number in the journal.
    pub device_seq: u64,
    /// The number printed, for receipts.
    pub receipt_no: Option<String>,
    /// What it came to, for receipts.
    pub total: Option<Money>,
    /// When it happened, by the device's clock.
    pub occurred_at: Timestamp,
}

impl Committed {
    /// Of an operation in the journal.
    pub(crate) fn of(operation: &Operation) -> Self {
        let receipt = match &operation.kind {
            OperationKind::Sale(receipt) | OperationKind::Return(receipt) => Some(receipt),
            OperationKind::Receive(_) | OperationKind::Adjust(_) | OperationKind::Count(_) | OperationKind::Transfer(_) => None,
        };
        Self {
            id: operation.id,
            device_seq: operation.device_seq,
            receipt_no: receipt.map(|receipt| receipt.receipt_no.clone()),
            total: receipt.map(|receipt| receipt.total),
            occurred_at: operation.occurred_at,
        }
    }
}

/// Completes a receipt.
pub(crate) fn complete(
    new: NewReceipt,
    default_no: String,
    occurred_at: Timestamp,
    product: &dyn Fn(&str) -> Option<Row>,
) -> Result<Receipt, CommitError> {
    let mut lines = Vec::with_capacity(new.lines.len());
    for (n, line) in new.lines.into_iter().enumerate() {
        let no_price = || CommitError::NoPrice { product_id: line.product_id.clone() };
        let unit_price = match line.unit_price {
            Some(price) => price,
            None => product(&line.product_id).and_then(|row| price_of(&row)).ok_or_else(no_price)?,
        };
        let total = line.total.unwrap_or(Money { amount: times(unit_price.amount, line.quantity), currency: unit_price.currency });
        let line_no = u32::try_from(n + 1).unwrap_or(u32::MAX);
        lines.push(ReceiptLine { line_no, product_id: line.product_id, quantity: line.quantity, unit_price, total });
    }
    let Some(currency) = lines.first().map(|line| line.total.currency) else { return Err(CommitError::NoLines) };
    let total = Money { amount: lines.iter().fold(0i64, |sum, line| sum.saturating_add(line.total.amount)), currency };
    let tenders = if new.tenders.is_empty() { vec![Tender { kind: "cash".into(), amount: total }] } else { new.tenders };
    let business_date = match new.business_date {
        Some(date) => date,
        None => BusinessDate::parse(&occurred_at.date()).expect("a timestamp has a date"),
    };
    Ok(Receipt { lines, tenders, total, receipt_no: new.receipt_no.unwrap_or(default_no), business_date })
}

fn price_of(row: &Row) -> Option<Money> {
    serde_json::from_value(row.to_map().remove("price")?).ok()
}

/// Price × quantity in minor units, half up.
fn times(amount: i64, quantity: Quantity) -> i64 {
    let product = i128::from(amount) * i128::from(quantity.as_milli());
    i64::try_from((product + 500).div_euclid(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tea(id: &str) -> Option<Row> {
        (id == "tea").then(|| Row::parse(r#"{"id":"tea","price":{"amount":1250,"currency":"IDR"}}"#).unwrap())
    }

    #[test]
    fn what_is_left_out_comes_from_the_catalogue() {
        let new = NewReceipt::of([("tea", Quantity::parse("2").unwrap()), ("tea", Quantity::parse("0.333").unwrap())]);
        let receipt = complete(new, "R-1".into(), Timestamp::from_ms(0), &tea).unwrap();
        let totals: Vec<i64> = receipt.lines.iter().map(|line| line.total.amount).collect();
        assert_eq!((totals, receipt.total.amount), (vec![2500, 416], 2916));
        assert_eq!((receipt.receipt_no.as_str(), receipt.business_date.as_str()), ("R-1", "1970-01-01"));
        assert_eq!(receipt.tenders[0].amount, receipt.total);
    }

    #[test]
    fn half_a_minor_unit_is_rounded_up() {
        let half = Quantity::parse("0.5").unwrap();
        assert_eq!((times(1, half), times(-1, half), times(3, half)), (1, 0, 2));
    }

    #[test]
    fn a_line_without_any_price_is_refused() {
        let new = NewReceipt::of([("coffee", Quantity::from_units(1))]);
        assert!(matches!(complete(new, String::new(), Timestamp::from_ms(0), &tea), Err(CommitError::NoPrice { .. })));
        assert!(matches!(complete(NewReceipt::default(), String::new(), Timestamp::from_ms(0), &tea), Err(CommitError::NoLines)));
    }
}
