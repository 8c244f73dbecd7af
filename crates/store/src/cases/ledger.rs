//! The stock ledger: works out a movement's effect by the stock rule and records it; a trigger moves the stock.

use mstore_engine::stock::{self, BelowZero, Effect, Happened, Judgement};
use mstore_protocol::{BranchKey, Code, Quantity, StockTarget, Timestamp, limits::QUANTITY_MILLI_MAX};

use super::Work;
use crate::{
    StockPolicy, StoreError,
    sql::{Row, args},
};

/// A journal's numbers order its movements even when its clock was set back; further back than this nobody looks.
const JOURNAL_LOOK_BACK_MS: i64 = 24 * 60 * 60 * 1000;

/// How a movement's quantity is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Delta,
    Count,
    /// A backend said what the stock is: like a count, but nobody counted.
    Event,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Count => "count",
            Self::Event => "event",
        }
    }
}

/// A movement of one item at one branch.
#[derive(Debug, Clone)]
pub(super) struct Movement<'a> {
    id: String,
    target: StockTarget,
    item: &'a str,
    kind: Kind,
    quantity: Quantity,
    happened: Happened,
    operation: Option<String>,
    act: Option<&'static str>,
    reason: &'a str,
}

impl<'a> Movement<'a> {
    /// Made at the server, now.
    pub(super) fn at_server(now: Timestamp, id: &str, target: StockTarget, item: &'a str, reason: &'a str) -> Self {
        let happened = Happened::here(now);
        Self { id: id.into(), target, item, kind: Kind::Delta, quantity: Quantity::ZERO, happened, operation: None, act: None, reason }
    }

    /// Part `n` of what a device did.
    pub(super) fn of_operation(
        operation: &str,
        n: usize,
        act: &'static str,
        happened: &Happened,
        target: StockTarget,
        item: &'a str,
    ) -> Self {
        Self {
            id: format!("{operation}:{n}"),
            happened: happened.clone(),
            operation: Some(operation.into()),
            act: Some(act),
            ..Self::at_server(happened.at, "", target, item, "")
        }
    }

    /// It adds.
    pub(super) fn delta(self, quantity: Quantity) -> Self {
        Self { kind: Kind::Delta, quantity, ..self }
    }

    /// It sets the base.
    pub(super) fn count(self, quantity: Quantity) -> Self {
        Self { kind: Kind::Count, quantity, ..self }
    }

    /// A backend says what the stock is.
    pub(super) fn event(self, quantity: Quantity) -> Self {
        Self { kind: Kind::Event, quantity, ..self }
    }

    /// Why.
    pub(super) fn because(self, reason: &'a str) -> Self {
        Self { reason, ..self }
    }
}

/// What recording a movement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recorded {
    /// Why it is refused; then nothing was recorded.
    pub(super) refused: Option<Code>,
    /// `late_delta`, `near_count` or `below_zero`.
    pub(super) flag: Option<Code>,
}

/// Refuses an item that the branch does not have.
pub(super) fn check_item(work: &Work<'_>, key: &BranchKey, target: StockTarget, item: &str) -> Result<(), StoreError> {
    if has_item(work, key, target, item)? {
        return Ok(());
    }
    Err(match target {
        StockTarget::Product => StoreError::refused(Code::UnknownProduct, format!("no product {item:?}")),
        StockTarget::Inventory => StoreError::refused(Code::UnknownItem, format!("no inventory item {item:?} at {key}")),
    })
}

/// Whether the branch has an item.
pub(super) fn has_item(work: &Work<'_>, key: &BranchKey, target: StockTarget, item: &str) -> Result<bool, StoreError> {
    let (merchant, branch) = (key.merchant.as_str(), key.branch.as_str());
    match target {
        StockTarget::Product => work.sql.exists("SELECT 1 FROM product WHERE merchant_id = ?1 AND id = ?2", args![merchant, item]),
        StockTarget::Inventory => {
            let sql = "SELECT 1 FROM inventory WHERE merchant_id = ?1 AND branch_id = ?2 AND id = ?3";
            work.sql.exists(sql, args![merchant, branch, item])
        }
    }
}

/// Records a movement. `has_happened`: the goods are gone, so the policy may flag it but not refuse it.
pub(super) fn record(
    work: &Work<'_>,
    key: &BranchKey,
    policy: StockPolicy,
    movement: &Movement<'_>,
    has_happened: bool,
) -> Result<Recorded, StoreError> {
    let stock = stock_now(work, key, movement)?;
    let effect = effect(work, key, movement, stock)?;
    // What happened is recorded all the same: the row is quarantined until somebody corrects it.
    if !has_happened && is_out_of_range(stock, effect.quantity) {
        return Ok(Recorded { refused: Some(Code::QuantityOutOfRange), flag: None });
    }
    let policy = match policy {
        StockPolicy::Allow => BelowZero::Allow,
        StockPolicy::Warn => BelowZero::Warn,
        StockPolicy::Block => BelowZero::Block,
    };
    // Who counted or decided the stock is not told that it cannot be so.
    let judgement = if movement.kind == Kind::Delta { stock::judge(policy, stock, effect.quantity, has_happened) } else { Judgement::Fine };
    let flag = match judgement {
        Judgement::Refused => return Ok(Recorded { refused: Some(Code::BelowZero), flag: None }),
        Judgement::Flagged => effect.flag.or(Some(Code::BelowZero)),
        Judgement::Fine => effect.flag,
    };
    insert(work, key, movement, effect.quantity, flag)?;
    if judgement == Judgement::Flagged {
        note_oversell(work, key, movement, stock + effect.quantity)?;
    }
    Ok(Recorded { refused: None, flag })
}

/// A movement must not take the stock further beyond what a row may say.
fn is_out_of_range(stock: Quantity, effect: Quantity) -> bool {
    let (before, after) = (stock.as_milli(), stock.as_milli().saturating_add(effect.as_milli()));
    after.unsigned_abs() > QUANTITY_MILLI_MAX.unsigned_abs().max(before.unsigned_abs())
}

/// For the manager's list; the flag in the ledger may have to say something else.
fn note_oversell(work: &Work<'_>, key: &BranchKey, movement: &Movement<'_>, stock: Quantity) -> Result<(), StoreError> {
    let sql = "INSERT INTO oversell (merchant_id, branch_id, move_id, collection, item_id, type, operation_id, quantity_milli, stock_milli, recorded_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    work.sql.send(
        sql,
        args![
            key.merchant.as_str(),
            key.branch.as_str(),
            movement.id,
            movement.target.as_str(),
            movement.item,
            movement.act,
            movement.operation,
            movement.quantity.as_milli(),
            stock.as_milli(),
            work.now.to_string()
        ],
    )?;
    Ok(())
}

fn stock_now(work: &Work<'_>, key: &BranchKey, movement: &Movement<'_>) -> Result<Quantity, StoreError> {
    let sql = match movement.target {
        StockTarget::Product => "SELECT stock_milli FROM branch_product WHERE merchant_id = ?1 AND branch_id = ?2 AND product_id = ?3",
        StockTarget::Inventory => "SELECT quantity_milli FROM inventory WHERE merchant_id = ?1 AND branch_id = ?2 AND id = ?3",
    };
    let found = work.sql.row(sql, args![key.merchant.as_str(), key.branch.as_str(), movement.item], |row| row.milli(0))?;
    Ok(found.unwrap_or(Quantity::ZERO))
}

fn effect(work: &Work<'_>, key: &BranchKey, movement: &Movement<'_>, stock: Quantity) -> Result<Effect, StoreError> {
    if movement.kind == Kind::Event {
        return Ok(Effect { quantity: movement.quantity - stock, flag: None });
    }
    let last_count = last_count(work, key, movement)?;
    if movement.kind == Kind::Delta {
        return Ok(stock::delta_effect(movement.quantity, &movement.happened, last_count.as_ref()));
    }
    let last_count = match (last_count, last_closing(work, key, movement)?) {
        (Some(count), Some(closing)) if count.is_before(&closing) => Some(closing),
        (count, closing) => count.or(closing),
    };
    let deltas = deltas_near_or_after(work, key, movement)?;
    Ok(stock::count_effect(movement.quantity, &movement.happened, last_count.as_ref(), &deltas, stock))
}

fn happened(row: &Row<'_>, i: usize) -> Result<Happened, StoreError> {
    let entry = row.optional_text(i + 1)?.map(Box::from).zip(row.optional_number(i + 2)?);
    Ok(Happened { at: row.time(i)?, entry })
}

fn last_count(work: &Work<'_>, key: &BranchKey, movement: &Movement<'_>) -> Result<Option<Happened>, StoreError> {
    let sql = "SELECT * FROM (SELECT occurred_at, journal_id, device_seq FROM stock_move
          WHERE merchant_id = ?1 AND branch_id = ?2 AND collection = ?3 AND item_id = ?4 AND kind = 'count' ORDER BY occurred_at DESC LIMIT 1) AS counted
        UNION ALL SELECT * FROM (SELECT occurred_at, journal_id, device_seq FROM stock_move
          WHERE merchant_id = ?1 AND branch_id = ?2 AND collection = ?3 AND item_id = ?4 AND kind = 'event' ORDER BY occurred_at DESC LIMIT 1) AS told";
    let item = args![key.merchant.as_str(), key.branch.as_str(), movement.target.as_str(), movement.item];
    let found = work.sql.rows(sql, item, |row| happened(row, 0))?;
    Ok(found.into_iter().reduce(|newest, found| if newest.is_before(&found) { found } else { newest }))
}

/// What happened after a count that is older than this is no longer known one by one, so the count says nothing new.
fn last_closing(work: &Work<'_>, key: &BranchKey, movement: &Movement<'_>) -> Result<Option<Happened>, StoreError> {
    let sql = "SELECT occurred_at FROM stock_move WHERE merchant_id = ?1 AND branch_id = ?2 AND collection = ?3 AND item_id = ?4
        AND kind = 'direct' AND type = 'closing' ORDER BY occurred_at DESC LIMIT 1";
    let item = args![key.merchant.as_str(), key.branch.as_str(), movement.target.as_str(), movement.item];
    work.sql.row(sql, item, |row| Ok(Happened::here(row.time(0)?)))
}

fn deltas_near_or_after(work: &Work<'_>, key: &BranchKey, movement: &Movement<'_>) -> Result<Vec<(Quantity, Happened)>, StoreError> {
    let sql = "SELECT quantity_milli, occurred_at, journal_id, device_seq FROM stock_move WHERE merchant_id = ?1 AND branch_id = ?2
        AND collection = ?3 AND item_id = ?4 AND kind IN ('delta', 'direct') AND occurred_at >= ?5";
    let since = movement.happened.at.plus_ms(-JOURNAL_LOOK_BACK_MS).to_string();
    let item = args![key.merchant.as_str(), key.branch.as_str(), movement.target.as_str(), movement.item, since];
    work.sql.rows(sql, item, |row| Ok((row.milli(0)?, happened(row, 1)?)))
}

fn insert(work: &Work<'_>, key: &BranchKey, movement: &Movement<'_>, effect: Quantity, flag: Option<Code>) -> Result<(), StoreError> {
    let sql = "INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, flag, type,
        operation_id, journal_id, device_seq, reason, occurred_at, recorded_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    let (journal, device_seq) = movement.happened.entry.as_ref().map(|(journal, seq)| (&**journal, *seq)).unzip();
    work.sql.send(
        sql,
        args![
            key.merchant.as_str(),
            key.branch.as_str(),
            movement.id,
            movement.target.as_str(),
            movement.item,
            movement.kind.as_str(),
            movement.quantity.as_milli(),
            effect.as_milli(),
            flag.map(Code::as_str),
            movement.act,
            movement.operation,
            journal,
            device_seq,
            movement.reason,
            movement.happened.at.to_string(),
            work.now.to_string()
        ],
    )?;
    Ok(())
}
