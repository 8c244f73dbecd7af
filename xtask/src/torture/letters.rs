//! Operations that no server may accept: given to tills among the others, and looked for in the lists of dead letters.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::Result;
use serde_json::Value;

use super::process;

/// A product that nobody has.
const NO_PRODUCT: &str = "SKU-NOWHERE";
/// A branch that is none.
const NO_BRANCH: &str = "nowhere";
/// More than any shelf holds, under a policy that lets nothing be taken that is not there.
const TOO_MUCH: &str = "-90000";

/// The merchant's policy from now on: nothing is taken from a shelf that is empty; what was sold was sold.
pub(super) fn forbid_below_zero(database: &Path) -> Result<()> {
    let sql = "UPDATE merchant SET stock_policy = 'block' WHERE merchant_id = 'm1'";
    process::output(Command::new("sqlite3").args(["-bail", "-cmd", ".timeout 5000"]).arg(database).arg(sql)).map(drop)
}

/// The kinds of such operations.
pub(super) const KINDS: usize = 3;

/// The `n`-th kind as a cashier types it.
pub(super) fn order(n: usize, product: &str) -> String {
    match n % KINDS {
        0 => format!("receive {NO_PRODUCT} 1"),
        1 => format!("transfer {product} 1 {NO_BRANCH}"),
        _ => format!("adjust {product} {TOO_MUCH}"),
    }
}

/// What the server has to say to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Yes,
    /// No, with this code.
    No(&'static str),
    /// Yes, or no with this code: that depends on what was there.
    YesUnless(&'static str),
}

impl Due {
    /// By an operation's body.
    pub(super) fn of(body: &Value) -> Self {
        let is = |field: &str, value: &str| body[field] == value;
        if is("item_id", NO_PRODUCT) {
            Self::No("unknown_product")
        } else if is("to_branch", NO_BRANCH) {
            Self::No("unknown_branch")
        } else if is("type", "adjust") && is("quantity", TOO_MUCH) {
            Self::No("below_zero")
        } else if is("type", "adjust") {
            Self::YesUnless("below_zero")
        } else {
            Self::Yes
        }
    }

    /// Whether a verdict is the right one; `code` is there if it was a refusal.
    pub(super) fn allows(self, code: Option<&str>) -> bool {
        match self {
            Self::Yes => code.is_none(),
            Self::No(due) => code == Some(due),
            Self::YesUnless(due) => code.is_none_or(|code| code == due),
        }
    }
}

/// What is wrong with a list that should name each of `refused` once, and nothing else.
pub(super) fn compare<'a>(whose: &str, refused: impl Iterator<Item = &'a str>, listed: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut times: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for id in refused {
        times.entry(id).or_default().0 += 1;
    }
    for id in listed {
        times.entry(id).or_default().1 += 1;
    }
    let wrong = times.iter().filter(|(_, (refused, listed))| refused != listed);
    wrong.map(|(id, (refused, listed))| format!("{whose} {id}: refused {refused} times, listed {listed} times")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_due_is_known_from_the_body() {
        let nowhere = Due::of(&json!({"type": "receive", "item_id": "SKU-NOWHERE", "quantity": "1"}));
        assert_eq!(nowhere, Due::No("unknown_product"));
        assert!(nowhere.allows(Some("unknown_product")) && !nowhere.allows(None) && !nowhere.allows(Some("internal")));
        assert_eq!(Due::of(&json!({"type": "transfer", "item_id": "SKU-00001", "to_branch": "nowhere"})), Due::No("unknown_branch"));
        assert_eq!(Due::of(&json!({"type": "adjust", "item_id": "SKU-00001", "quantity": "-90000"})), Due::No("below_zero"));
        let adjust = Due::of(&json!({"type": "adjust", "item_id": "SKU-00001", "quantity": "-2"}));
        assert!(adjust.allows(None) && adjust.allows(Some("below_zero")) && !adjust.allows(Some("internal")));
        let sale = Due::of(&json!({"type": "sale", "lines": []}));
        assert!(sale.allows(None) && !sale.allows(Some("below_zero")), "an offline sale is always accepted");
    }

    #[test]
    fn a_letter_that_is_missing_twice_there_or_without_a_refusal_is_found() {
        assert!(compare("till", ["a", "b"].into_iter(), ["b", "a"].into_iter()).is_empty());
        let wrong = compare("till", ["a", "b"].into_iter(), ["b", "b", "c"].into_iter());
        assert_eq!(
            wrong,
            [
                "till a: refused 1 times, listed 0 times",
                "till b: refused 1 times, listed 2 times",
                "till c: refused 0 times, listed 1 times",
            ]
        );
    }
}
