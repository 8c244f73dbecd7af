//! What the device shows: the server's value and the effect of its own operations that the stream does not contain yet.

use mstore_protocol::{OperationKind, Quantity, Row, StockTarget};

use crate::stock::consumption;

/// What an operation does to one figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockEffect {
    /// Product stock or inventory quantity.
    pub target: StockTarget,
    /// The row's id.
    pub item_id: String,
    /// How.
    pub change: StockChange,
}

/// How a figure changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StockChange {
    /// Adds.
    Delta(Quantity),
    /// Replaces: a count.
    Base(Quantity),
}

/// The effects of an operation. `product` gives the row of a product as the device has it: its recipe, if it has one, is consumed too.
pub fn effects_of(kind: &OperationKind, mut product: impl FnMut(&str) -> Option<Row>) -> Vec<StockEffect> {
    match kind {
        OperationKind::Sale(receipt) => receipt_effects(receipt, -1, &mut product),
        OperationKind::Return(receipt) => receipt_effects(receipt, 1, &mut product),
        OperationKind::Receive(act) | OperationKind::Adjust(act) => {
            vec![StockEffect { target: act.collection, item_id: act.item_id.clone(), change: StockChange::Delta(act.quantity) }]
        }
        OperationKind::Count(act) => {
            vec![StockEffect { target: act.collection, item_id: act.item_id.clone(), change: StockChange::Base(act.quantity) }]
        }
        OperationKind::Transfer(transfer) => {
            let act = &transfer.act;
            vec![StockEffect { target: act.collection, item_id: act.item_id.clone(), change: StockChange::Delta(-act.quantity) }]
        }
    }
}

fn receipt_effects(receipt: &mstore_protocol::Receipt, sign: i64, product: &mut impl FnMut(&str) -> Option<Row>) -> Vec<StockEffect> {
    let mut effects = Vec::with_capacity(receipt.lines.len());
    for line in &receipt.lines {
        let moved = sign * line.quantity.as_milli();
        effects.push(StockEffect {
            target: StockTarget::Product,
            item_id: line.product_id.clone(),
            change: StockChange::Delta(Quantity::from_milli(moved)),
        });
        for (item_id, per_unit) in product(&line.product_id).map_or_else(Vec::new, |row| recipe_of(&row)) {
            // Rounded as the server rounds it, or the figure would jump by a thousandth when the sale comes back.
            let used = consumption(Quantity::from_milli(moved), per_unit);
            effects.push(StockEffect { target: StockTarget::Inventory, item_id, change: StockChange::Delta(used) });
        }
    }
    effects
}

/// `recipe: [{item_id, quantity}]` of a product's row; whatever cannot be read is left out, for the server's figure comes anyway.
fn recipe_of(row: &Row) -> Vec<(String, Quantity)> {
    if !row.as_str().contains("\"recipe\"") {
        return Vec::new();
    }
    let map = row.to_map();
    let lines = map.get("recipe").and_then(serde_json::Value::as_array).map_or(&[][..], Vec::as_slice);
    let line = |line: &serde_json::Value| {
        let quantity = Quantity::parse(line.get("quantity")?.as_str()?).ok()?;
        Some((line.get("item_id")?.as_str()?.to_owned(), quantity))
    };
    lines.iter().filter_map(line).collect()
}

/// The figure shown: the server's, then the pending effects in the order of their `device_seq`.
pub fn shown(server: Quantity, pending: impl IntoIterator<Item = StockChange>) -> Quantity {
    pending.into_iter().fold(server, |value, change| match change {
        StockChange::Delta(delta) => value + delta,
        StockChange::Base(base) => base,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sale(of: &str, kind: &str) -> OperationKind {
        let lines: Vec<String> = of
            .split(' ')
            .enumerate()
            .map(|(n, line)| {
                let (product, quantity) = line.split_once('×').unwrap();
                let price = r#"{"amount":0,"currency":"IDR"}"#;
                format!(r#"{{"line_no":{n},"product_id":"{product}","quantity":"{quantity}","unit_price":{price},"total":{price}}}"#)
            })
            .collect();
        let lines = lines.join(",");
        let text = format!(
            r#"{{"type":"{kind}","lines":[{lines}],"tenders":[],"total":{{"amount":0,"currency":"IDR"}},"receipt_no":"1","business_date":"2026-11-22"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn check(kind: &OperationKind, expect: &str) {
        let latte = r#"{"id":"latte","recipe":[{"item_id":"milk","quantity":"0.25"},{"item_id":"beans","quantity":"0.018"}]}"#;
        let effects = effects_of(kind, |id| (id == "latte").then(|| Row::parse(latte).unwrap()));
        let text: Vec<String> = effects
            .iter()
            .map(|effect| match effect.change {
                StockChange::Delta(delta) => format!("{} {} {delta}", effect.target.as_str(), effect.item_id),
                StockChange::Base(base) => format!("{} {} ={base}", effect.target.as_str(), effect.item_id),
            })
            .collect();
        assert_eq!(text.join(", "), expect);
    }

    #[test]
    fn a_sale_takes_goods_and_ingredients_and_a_return_gives_them_back() {
        check(&sale("tea×2", "sale"), "product tea -2");
        check(&sale("latte×2 tea×1", "sale"), "product latte -2, inventory milk -0.5, inventory beans -0.036, product tea -1");
        check(&sale("latte×1.5", "return"), "product latte 1.5, inventory milk 0.375, inventory beans 0.027");
        check(&sale("latte×0.25", "sale"), "product latte -0.25, inventory milk -0.063, inventory beans -0.005");
    }

    #[test]
    fn stock_acts_move_or_set() {
        let act = |kind: &str, quantity: &str, more: &str| -> OperationKind {
            serde_json::from_str(&format!(
                r#"{{"type":"{kind}","collection":"inventory","item_id":"milk","quantity":"{quantity}","reason":"x"{more}}}"#
            ))
            .unwrap()
        };
        check(&act("receive", "3", ""), "inventory milk 3");
        check(&act("adjust", "-0.5", ""), "inventory milk -0.5");
        check(&act("count", "7", ""), "inventory milk =7");
        check(&act("transfer", "2", r#","to_branch":"b2""#), "inventory milk -2");
    }

    #[test]
    fn a_count_hides_what_was_before_it_and_nothing_after() {
        let q = |text: &str| Quantity::parse(text).unwrap();
        let pending = [StockChange::Delta(q("-2")), StockChange::Base(q("10")), StockChange::Delta(q("-1.5"))];
        assert_eq!(shown(q("41"), pending).to_string(), "8.5");
        assert_eq!(shown(q("41"), []).to_string(), "41");
    }
}
