//! The stock ledger: movements, and what each does to the stock by the engine's rule.

use std::collections::BTreeMap;

use mstore_engine::stock::{self, BelowZero, Effect, Happened, Judgement};
use mstore_protocol::{Code, OperationId, Quantity, StockTarget};

use crate::{bug::Bug, shop};

/// One figure: whose, of what.
pub(crate) type Figure = (usize, StockTarget, String);

/// One movement.
#[derive(Debug, Clone)]
pub(crate) struct Movement {
    pub(crate) is_count: bool,
    pub(crate) quantity: Quantity,
    pub(crate) effect: Quantity,
    pub(crate) happened: Happened,
    pub(crate) operation: Option<OperationId>,
    pub(crate) flag: Option<Code>,
}

impl Movement {
    pub(super) fn delta(quantity: Quantity, happened: Happened) -> Self {
        Self { is_count: false, quantity, effect: Quantity::ZERO, happened, operation: None, flag: None }
    }

    pub(super) fn count(quantity: Quantity, happened: Happened) -> Self {
        Self { is_count: true, ..Self::delta(quantity, happened) }
    }

    pub(super) fn of(self, operation: OperationId) -> Self {
        Self { operation: Some(operation), ..self }
    }
}

/// All movements of all figures.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    stock: BTreeMap<Figure, Quantity>,
    pub(crate) moves: BTreeMap<Figure, Vec<Movement>>,
}

impl Ledger {
    pub(crate) fn stock(&self, branch: usize, target: StockTarget, item: &str) -> Quantity {
        let figure = (branch, target, item.to_owned());
        self.stock.get(&figure).copied().unwrap_or_else(|| Quantity::from_milli(shop::opening_milli(target, item)))
    }

    /// Records a movement; the code it is flagged with, or the refusal of the policy. What has happened already comes with a policy that refuses nothing.
    pub(super) fn record(
        &mut self,
        branch: usize,
        target: StockTarget,
        item: &str,
        movement: Movement,
        policy: BelowZero,
        bug: Option<Bug>,
    ) -> Result<Option<Code>, Code> {
        let stock = self.stock(branch, target, item);
        let moves = self.moves.entry((branch, target, item.to_owned())).or_default();
        let effect = effect(moves, &movement, stock, bug);
        let judgement = if movement.is_count { Judgement::Fine } else { stock::judge(policy, stock, effect.quantity, false) };
        let flag = match judgement {
            Judgement::Refused => return Err(Code::BelowZero),
            Judgement::Flagged => effect.flag.or(Some(Code::BelowZero)),
            Judgement::Fine => effect.flag,
        };
        moves.push(Movement { effect: effect.quantity, flag, ..movement });
        let mut after = stock + effect.quantity;
        if bug == Some(Bug::ClampAtZero) && after.is_negative() {
            after = Quantity::ZERO;
        }
        self.stock.insert((branch, target, item.to_owned()), after);
        Ok(flag)
    }

    /// What an operation did to each figure, where no count or policy had a say.
    pub(crate) fn plain_effects(&self, operation: OperationId) -> Option<Vec<(Figure, Quantity)>> {
        let mut effects = Vec::new();
        for (figure, moves) in &self.moves {
            for movement in moves.iter().filter(|movement| movement.operation == Some(operation)) {
                if movement.is_count || matches!(movement.flag, Some(Code::LateDelta | Code::NearCount)) {
                    return None;
                }
                effects.push((figure.clone(), movement.effect));
            }
        }
        Some(effects)
    }
}

fn effect(moves: &[Movement], movement: &Movement, stock: Quantity, bug: Option<Bug>) -> Effect {
    let counts = moves.iter().filter(|old| old.is_count);
    let last_count = counts.map(|old| &old.happened).reduce(|newest, other| if newest.at <= other.at { other } else { newest });
    if !movement.is_count {
        if bug == Some(Bug::IgnoreCountFence) {
            return Effect { quantity: movement.quantity, flag: None };
        }
        return stock::delta_effect(movement.quantity, &movement.happened, last_count);
    }
    let deltas: Vec<_> = moves.iter().filter(|old| !old.is_count).map(|old| (old.quantity, old.happened.clone())).collect();
    stock::count_effect(movement.quantity, &movement.happened, last_count, &deltas, stock)
}
