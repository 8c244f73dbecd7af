//! The stock rule: stock = the last count + the deltas that happened after it. Pure; the ledger is somebody else's.
//!
//! "After" is told by the corrected time, and within one journal by `device_seq`, because a till's clock may be set back.

use mstore_protocol::{Code, Quantity, Timestamp, limits::CLOCK_TOLERANCE_MS};

/// When a movement happened, as well as anybody can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// On the server's clock: the device's time corrected by its offset.
    pub at: Timestamp,
    /// The device's journal and its number in it; `None` for movements made at the server.
    pub entry: Option<(Box<str>, u64)>,
}

impl Happened {
    /// A movement made at the server.
    pub fn here(at: Timestamp) -> Self {
        Self { at, entry: None }
    }

    /// A movement made on a device. Nothing happened in the future: a corrected time beyond `now` counts as `now`.
    pub fn on_device(occurred_at: Timestamp, clock_offset_ms: i64, now: Timestamp, journal: &str, device_seq: u64) -> Self {
        Self { at: occurred_at.plus_ms(clock_offset_ms).min(now), entry: Some((journal.into(), device_seq)) }
    }

    fn same_journal(&self, other: &Self) -> Option<(u64, u64)> {
        match (&self.entry, &other.entry) {
            (Some((mine, own)), Some((theirs, other))) if mine == theirs => Some((*own, *other)),
            _different => None,
        }
    }

    /// Whether this happened before `other`; of two at the same moment neither did.
    pub fn is_before(&self, other: &Self) -> bool {
        self.same_journal(other).map_or(self.at < other.at, |(own, other)| own < other)
    }

    /// Whether the clocks cannot tell the order.
    pub fn is_near(&self, other: &Self) -> bool {
        self.same_journal(other).is_none() && (self.at.as_ms() - other.at.as_ms()).abs() <= CLOCK_TOLERANCE_MS
    }
}

/// What a movement does to the stock, and what was noticed about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// Added to the stock.
    pub quantity: Quantity,
    /// `late_delta` or `near_count`.
    pub flag: Option<Code>,
}

/// A delta arrives: one that happened before the last count is already in it.
pub fn delta_effect(delta: Quantity, happened: &Happened, last_count: Option<&Happened>) -> Effect {
    let Some(count) = last_count else { return Effect { quantity: delta, flag: None } };
    let near = happened.is_near(count).then_some(Code::NearCount);
    if happened.is_before(count) {
        return Effect { quantity: Quantity::ZERO, flag: near.or(Some(Code::LateDelta)) };
    }
    Effect { quantity: delta, flag: near }
}

/// A count arrives: it sets the base under the deltas known to have happened after it. An older count than the last says nothing new.
pub fn count_effect<'a>(
    counted: Quantity,
    happened: &Happened,
    last_count: Option<&Happened>,
    deltas: impl IntoIterator<Item = &'a (Quantity, Happened)>,
    stock: Quantity,
) -> Effect {
    if last_count.is_some_and(|last| happened.is_before(last)) {
        return Effect { quantity: Quantity::ZERO, flag: Some(Code::LateDelta) };
    }
    let mut flag = None;
    let mut target = counted;
    for (delta, at) in deltas {
        if at.is_near(happened) {
            flag = Some(Code::NearCount);
        }
        if !at.is_before(happened) {
            target = target + *delta;
        }
    }
    Effect { quantity: target - stock, flag }
}

/// What a merchant wants when stock would fall below zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BelowZero {
    /// Nothing to say.
    Allow,
    /// Say so.
    Warn,
    /// Refuse what can still be refused.
    Block,
}

/// What the policy makes of a movement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing to say.
    Fine,
    /// It goes through, marked `below_zero`.
    Flagged,
    /// It does not.
    Refused,
}

/// Judges a movement against the policy. `has_happened`: the goods are gone, so refusing it would only falsify the books.
pub fn judge(policy: BelowZero, stock: Quantity, effect: Quantity, has_happened: bool) -> Judgement {
    let sinks = effect.is_negative() && (stock + effect).is_negative();
    match policy {
        _any if !sinks => Judgement::Fine,
        BelowZero::Allow => Judgement::Fine,
        BelowZero::Block if !has_happened => Judgement::Refused,
        BelowZero::Warn | BelowZero::Block => Judgement::Flagged,
    }
}

/// How much of an ingredient goes into what was sold: the product in thousandths, halves rounded away from zero.
pub fn consumption(sold: Quantity, per_unit: Quantity) -> Quantity {
    let millionths = i128::from(sold.as_milli()) * i128::from(per_unit.as_milli());
    let rounded = (millionths.abs() + 500) / 1000 * millionths.signum();
    let bound = i128::from(i64::MAX);
    Quantity::from_milli(i64::try_from(rounded.clamp(-bound, bound)).expect("clamped"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn units(units: i64) -> Quantity {
        Quantity::from_units(units)
    }

    fn at(seconds: i64) -> Happened {
        Happened::here(Timestamp::from_ms(seconds * 1000))
    }

    fn device(seconds: i64, journal: &str, seq: u64) -> Happened {
        let far = Timestamp::from_ms(i64::MAX);
        Happened::on_device(Timestamp::from_ms(seconds * 1000), 0, far, journal, seq)
    }

    #[test]
    fn a_late_delta_is_already_in_the_count() {
        let count = at(100);
        let effect = |happened: &Happened| delta_effect(units(-2), happened, Some(&count));
        assert_eq!(effect(&at(110)), Effect { quantity: units(-2), flag: None });
        assert_eq!(effect(&at(50)), Effect { quantity: Quantity::ZERO, flag: Some(Code::LateDelta) });
        assert_eq!(effect(&at(101)), Effect { quantity: units(-2), flag: Some(Code::NearCount) });
        assert_eq!(effect(&at(99)), Effect { quantity: Quantity::ZERO, flag: Some(Code::NearCount) });
        assert_eq!(delta_effect(units(-2), &at(1), None), Effect { quantity: units(-2), flag: None });
    }

    #[test]
    fn within_a_journal_the_number_decides_not_the_clock() {
        let count = device(100, "j", 5);
        assert_eq!(delta_effect(units(-1), &device(10, "j", 6), Some(&count)).quantity, units(-1));
        assert_eq!(delta_effect(units(-1), &device(200, "j", 4), Some(&count)).quantity, Quantity::ZERO);
        assert_eq!(delta_effect(units(-1), &device(10, "other", 6), Some(&count)).quantity, Quantity::ZERO);
    }

    #[test]
    fn a_count_keeps_the_deltas_after_it() {
        let deltas = [(units(-3), at(50)), (units(-2), at(150))];
        assert_eq!(count_effect(units(40), &at(100), None, &deltas, units(95)).quantity, units(40 - 2 - 95));
        let older = count_effect(units(40), &at(100), Some(&at(120)), &deltas, units(95));
        assert_eq!(older, Effect { quantity: Quantity::ZERO, flag: Some(Code::LateDelta) });
    }

    #[test]
    fn a_clock_ahead_of_the_server_cannot_postpone_a_sale() {
        let now = Timestamp::from_ms(1_000);
        assert_eq!(Happened::on_device(Timestamp::from_ms(99_000), 0, now, "j", 1).at, now);
        assert_eq!(Happened::on_device(Timestamp::from_ms(500), i64::MAX, now, "j", 1).at, now);
        assert_eq!(Happened::on_device(Timestamp::from_ms(500), 100, now, "j", 1).at.as_ms(), 600);
    }

    #[test]
    fn the_policy_refuses_only_what_can_still_be_refused() {
        let sink = |policy, has_happened| judge(policy, units(1), units(-2), has_happened);
        assert_eq!(sink(BelowZero::Allow, false), Judgement::Fine);
        assert_eq!(sink(BelowZero::Warn, false), Judgement::Flagged);
        assert_eq!(sink(BelowZero::Block, false), Judgement::Refused);
        assert_eq!(sink(BelowZero::Block, true), Judgement::Flagged);
        assert_eq!(judge(BelowZero::Block, units(2), units(-2), false), Judgement::Fine);
        assert_eq!(judge(BelowZero::Block, units(-5), units(1), false), Judgement::Fine, "coming up from below is welcome");
    }

    #[test]
    fn consumption_is_in_thousandths() {
        let q = |raw: &str| Quantity::parse(raw).unwrap();
        assert_eq!(consumption(q("2"), q("0.018")), q("0.036"));
        assert_eq!(consumption(q("0.5"), q("0.001")), q("0.001"), "half a thousandth rounds away from zero");
        assert_eq!(consumption(q("-0.5"), q("0.001")), q("-0.001"));
        assert_eq!(consumption(q("0.4"), q("0.001")), Quantity::ZERO);
    }

    proptest! {
        #[test]
        fn decimals_do_not_drift(steps in prop::collection::vec(-5_000_000i64..5_000_000, 1..200), sold in -9_999i64..9_999, per_unit in 1i64..9_999) {
            // Each step goes over the wire as text, as it does between a till and the ledger.
            let over_the_wire = |quantity: Quantity| Quantity::parse(&quantity.to_string()).unwrap();
            let sum = steps.iter().fold(Quantity::ZERO, |sum, step| over_the_wire(sum + over_the_wire(Quantity::from_milli(*step))));
            prop_assert_eq!(sum.as_milli(), steps.iter().sum::<i64>());
            let undone = steps.iter().rev().fold(sum, |sum, step| sum - Quantity::from_milli(*step));
            prop_assert_eq!(undone, Quantity::ZERO);
            let (sold, per_unit) = (Quantity::from_milli(sold), Quantity::from_milli(per_unit));
            prop_assert_eq!(consumption(sold, per_unit) + consumption(-sold, per_unit), Quantity::ZERO, "a return gives back what the sale took");
        }

        /// In whatever order the movements of one item arrive, the sum of effects is the rule applied to all of them.
        #[test]
        fn the_order_of_arrival_does_not_matter(moves in proptest::collection::vec((any::<bool>(), 0i64..50), 1..30), order in any::<u64>()) {
            // Distinct times: of two at the same moment the rule says nothing.
            let all: Vec<_> = moves.iter().zip(0i64..).map(|((is_count, amount), i)| (*is_count, units(*amount), at(i * 10))).collect();
            let mut arrival = all.clone();
            let mut state = order | 1;
            arrival.sort_by_cached_key(|_| { state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); state >> 33 });
            let (mut stock, mut last, mut deltas): (Quantity, Option<Happened>, Vec<(Quantity, Happened)>) = Default::default();
            for (is_count, amount, happened) in arrival {
                if is_count {
                    stock = stock + count_effect(amount, &happened, last.as_ref(), &deltas, stock).quantity;
                    if last.as_ref().is_none_or(|last| last.is_before(&happened)) { last = Some(happened); }
                } else {
                    stock = stock + delta_effect(amount, &happened, last.as_ref()).quantity;
                    deltas.push((amount, happened));
                }
            }
            let base = all.iter().rposition(|(is_count, ..)| *is_count);
            let from = base.map_or(0, |i| i + 1);
            let expect = all[from..].iter().fold(base.map_or(Quantity::ZERO, |i| all[i].1), |sum, (_, delta, _)| sum + *delta);
            prop_assert_eq!(stock, expect);
        }
    }
}
