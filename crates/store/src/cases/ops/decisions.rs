//! The one decision about a rejected operation. Whoever comes first decides, the device or an operator; everybody else is refused and told.
//!
//! That keeps two retries of one operation apart: an operation takes the place of another by writing the decision about it, and there is room for one.

use mstore_protocol::{BranchKey, Code, DecidedBy, Decision, MerchantId, OperationDecision, OperationId, Timestamp};

use super::{super::Work, received::Received};
use crate::{
    AcceptUpload, StoreError,
    sql::{Sql, args},
};

/// What was decided about an operation.
pub(super) fn about(db: &dyn Sql, merchant: &MerchantId, id: OperationId) -> Result<Option<OperationDecision>, StoreError> {
    let sql = "SELECT decision, replaced_by, decided_by, reason, decided_at FROM operation_decision WHERE merchant_id = ?1 AND id = ?2";
    db.row(sql, args![merchant.as_str(), id.to_string()], |row| {
        Ok(OperationDecision {
            id,
            decision: if row.text(0)? == "replaced" { Decision::Replaced } else { Decision::Discarded },
            replaced_by: row.optional_text(1)?.and_then(OperationId::parse),
            decided_by: if row.text(2)? == "operator" { DecidedBy::Operator } else { DecidedBy::Device },
            reason: row.string(3)?,
            decided_at: row.time(4)?,
        })
    })
}

/// Takes a decision down; the caller has seen that there is none.
pub(super) fn write(work: &Work<'_>, merchant: &MerchantId, of: &OperationDecision) -> Result<(), StoreError> {
    let sql = "INSERT INTO operation_decision (merchant_id, id, decision, replaced_by, decided_by, reason, decided_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    work.sql.execute(
        sql,
        args![
            merchant.as_str(),
            of.id.to_string(),
            of.decision.as_str(),
            of.replaced_by.map(|id| id.to_string()),
            of.decided_by.as_str(),
            of.reason,
            of.decided_at.to_string()
        ],
    )?;
    Ok(())
}

/// What was decided, for people.
pub(super) fn told(of: &OperationDecision) -> String {
    let who = match of.decided_by {
        DecidedBy::Device => "at the till",
        DecidedBy::Operator => "by an operator",
    };
    match of.replaced_by {
        Some(by) => format!("{} was replaced by {by} {who}, {}", of.id, of.decided_at),
        None => format!("{} was discarded {who}, {}", of.id, of.decided_at),
    }
}

/// What the server knows of an operation that somebody wants to decide about.
pub(super) struct Known {
    pub(super) device: String,
    pub(super) is_accepted: bool,
    /// Accepted, but then its id came again with another body, which was rejected.
    pub(super) is_reused: bool,
    pub(super) code: Option<Code>,
}

/// The operation as far as a decision needs it.
pub(super) fn known(db: &dyn Sql, merchant: &MerchantId, id: OperationId) -> Result<Option<Known>, StoreError> {
    let sql = "SELECT device_id, status, is_reused, code FROM operation WHERE merchant_id = ?1 AND id = ?2";
    db.row(sql, args![merchant.as_str(), id.to_string()], |row| {
        Ok(Known {
            device: row.string(0)?,
            is_accepted: row.text(1)? == "accepted",
            is_reused: row.flag(2)?,
            code: row.optional_text(3)?.and_then(Code::parse),
        })
    })
}

impl Known {
    /// Nothing of it is open: it was accepted, or rejected because the decision had fallen.
    pub(super) fn is_closed(&self) -> bool {
        (self.is_accepted && !self.is_reused) || self.code == Some(Code::AlreadyDecided)
    }
}

/// Why an operation that arrives may have no effect any more. If it takes the place of another, that is the decision about the other.
pub(super) fn overruled(
    work: &Work<'_>,
    upload: &AcceptUpload,
    received: &Received,
    id: OperationId,
) -> Result<Option<(Code, String)>, StoreError> {
    let merchant = &upload.key.merchant;
    if let Some(decision) = about(work.sql, merchant, id)? {
        return Ok(Some((Code::AlreadyDecided, told(&decision))));
    }
    let Some(old) = received.replaces else { return Ok(None) };
    if old == id {
        return Ok(Some((Code::MalformedOperation, "an operation cannot take its own place".into())));
    }
    match about(work.sql, merchant, old)? {
        // The device told of its decision before the operation came.
        Some(decision) if decision.replaced_by == Some(id) => return Ok(None),
        Some(decision) => return Ok(Some((Code::AlreadyDecided, told(&decision)))),
        None => {}
    }
    if let Some(known) = known(work.sql, merchant, old)? {
        if known.device != upload.device.as_str() {
            return Ok(Some((Code::MalformedOperation, format!("{old} is an operation of another device"))));
        }
        if known.is_closed() {
            let why = if known.is_accepted { "was accepted" } else { "had been decided about before" };
            return Ok(Some((Code::AlreadyDecided, format!("{old}, whose place it takes, {why}"))));
        }
    }
    write(work, merchant, &replaced_at_till(work.now, old, id))?;
    Ok(None)
}

fn replaced_at_till(now: Timestamp, id: OperationId, by: OperationId) -> OperationDecision {
    OperationDecision {
        id,
        decision: Decision::Replaced,
        replaced_by: Some(by),
        decided_by: DecidedBy::Device,
        reason: String::new(),
        decided_at: now,
    }
}

/// A device tells what it decided and asks about what is open; gives the decisions that count.
pub(super) fn settle(
    work: &Work<'_>,
    key: &BranchKey,
    device: &mstore_protocol::DeviceId,
    report: &mstore_protocol::DeadLetterReport,
) -> Result<Vec<OperationDecision>, StoreError> {
    let merchant = &key.merchant;
    let mut standing = Vec::new();
    let mut present = Vec::new();
    for local in &report.decided {
        let known = known(work.sql, merchant, local.id)?;
        if known.as_ref().is_some_and(|known| known.device != device.as_str()) {
            continue;
        }
        if local.device_seq > 0 && i64::try_from(local.device_seq).is_ok() {
            present.push(super::journal::Entry { device_seq: local.device_seq, is_accepted: false });
        }
        let decision = match about(work.sql, merchant, local.id)? {
            Some(decision) => decision,
            None if known.is_some_and(|known| known.is_closed()) => continue,
            None => {
                let decision = local.replaced_by.map_or_else(
                    || OperationDecision {
                        decision: Decision::Discarded,
                        replaced_by: None,
                        ..replaced_at_till(work.now, local.id, local.id)
                    },
                    |by| replaced_at_till(work.now, local.id, by),
                );
                write(work, merchant, &decision)?;
                decision
            }
        };
        standing.push(decision);
    }
    super::journal::note(work, &super::journal::Journal { key, device, id: &report.journal_id }, present)?;
    for id in &report.open {
        let is_own = known(work.sql, merchant, *id)?.is_none_or(|known| known.device == device.as_str());
        if let Some(decision) = about(work.sql, merchant, *id)?.filter(|_| is_own) {
            standing.push(decision);
        }
    }
    Ok(standing)
}
