//! What the stock must be in the end, reckoned by the demo itself from what it did: opening + every delta.

use std::collections::{BTreeMap, BTreeSet};

use mstore_protocol::{BranchKey, Quantity};

use crate::data::{Dataset, Invoice, InvoiceKind};

/// Expected stock per branch and product; a product that was counted on a till is left out, for its figure depends on when.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    stock_milli: BTreeMap<(BranchKey, String), i64>,
    counted: BTreeSet<(BranchKey, String)>,
}

impl Truth {
    /// The stock when the shop opens.
    pub(crate) fn open(&mut self, key: &BranchKey, product: &str, stock: Quantity) {
        self.stock_milli.insert((key.clone(), product.to_owned()), stock.as_milli());
    }

    /// A signed movement.
    pub(crate) fn moved(&mut self, key: &BranchKey, product: &str, delta: Quantity) {
        *self.stock_milli.entry((key.clone(), product.to_owned())).or_default() += delta.as_milli();
    }

    /// Somebody counted it.
    pub(crate) fn counted(&mut self, key: &BranchKey, product: &str) {
        self.counted.insert((key.clone(), product.to_owned()));
    }

    /// A receipt's movements.
    pub(crate) fn rung_up(&mut self, key: &BranchKey, data: &Dataset, invoice: &Invoice) {
        for line in &invoice.lines {
            let units = Quantity::from_units(line.units);
            let delta = if invoice.kind == InvoiceKind::Sale { -units } else { units };
            self.moved(key, &data.catalogue[line.product].id, delta);
        }
    }

    /// Every figure that differs from what `actual` says, for people; products that `actual` does not know were deleted.
    pub(crate) fn differences(&self, key: &BranchKey, actual: &BTreeMap<String, Quantity>) -> Vec<String> {
        self.stock_milli
            .iter()
            .filter(|((branch, product), _)| branch == key && !self.counted.contains(&(branch.clone(), product.clone())))
            .filter_map(|((_, product), expected)| {
                let found = actual.get(product)?;
                let expected = Quantity::from_milli(*expected);
                (*found != expected).then(|| format!("{key}: stock of {product} is {found}, opening and movements give {expected}"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_missing_movement_shows() {
        let key = BranchKey::parse("m", "b").unwrap();
        let mut truth = Truth::default();
        truth.open(&key, "tea", Quantity::from_units(10));
        truth.moved(&key, "tea", Quantity::parse("-1.5").unwrap());
        let stock = |text: &str| BTreeMap::from([("tea".to_owned(), Quantity::parse(text).unwrap())]);
        assert!(truth.differences(&key, &stock("8.5")).is_empty());
        assert_eq!(truth.differences(&key, &stock("10")).len(), 1);
        truth.counted(&key, "tea");
        assert!(truth.differences(&key, &stock("10")).is_empty());
    }
}
