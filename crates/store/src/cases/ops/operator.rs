//! What an operator decides about a rejected operation: send it again as it was or corrected, or give it up.

use mstore_engine::stock::Happened;
use mstore_protocol::{
    BranchId, BranchKey, Code, DecidedBy, Decision, MerchantId, OperationDecision, OperationId, Timestamp, Verdict, VerdictStatus,
};
use serde_json::{Map, Value};

use super::{
    super::{Seen, Work, audit, locks, writes},
    Judged, decisions, effects,
    received::Received,
    record,
};
use crate::{
    AcceptUpload, Act, DeadLetterAct, Decide, Decided, StoreError,
    sql::{Sql, args},
};

/// A decision whose verdict gets its seq when the commit is made.
pub(in crate::cases) struct Made {
    decision: OperationDecision,
    key: BranchKey,
    judged: Option<Judged>,
}

/// Fills in the seq.
pub(in crate::cases) fn answer(made: Made, seen: &Seen) -> Decided {
    let Made { decision, key, judged } = made;
    let verdict = super::answer(judged.into_iter().collect(), &key, seen).pop();
    Decided { decision, key, verdict }
}

/// The rejected operation as it is kept.
struct Letter {
    upload: AcceptUpload,
    device_seq: u64,
    occurred_at: Option<String>,
    recorded_at: String,
    body: Option<String>,
}

impl Letter {
    /// The other branch whose stock is moved when it is sent again.
    fn destination(&self, act: &DeadLetterAct) -> Option<BranchKey> {
        let body = match act {
            DeadLetterAct::Edit(_, body) => body,
            DeadLetterAct::Retry(_) => self.body.as_ref()?,
            DeadLetterAct::Discard => return None,
        };
        let body: Value = serde_json::from_str(body).ok()?;
        let branch = BranchId::parse(body["to_branch"].as_str()?).ok()?;
        Some(BranchKey { merchant: self.upload.key.merchant.clone(), branch })
    }
}

/// The branch where an operation was handed in, which never changes.
pub(in crate::cases) fn handed_in_at(db: &dyn Sql, merchant: &MerchantId, id: OperationId) -> Result<Option<BranchKey>, StoreError> {
    let sql = "SELECT merchant_id, branch_id FROM operation WHERE merchant_id = ?1 AND id = ?2";
    db.row(sql, args![merchant.as_str(), id.to_string()], |row| row.key(0))
}

/// Carries a decision out. A retry that would be rejected again is refused, and nothing is decided.
pub(in crate::cases) fn decide(work: &mut Work<'_>, wanted: &Decide) -> Result<Made, StoreError> {
    let letter = read(work, wanted)?;
    let destination = letter.destination(&wanted.act);
    locks::branches(work, destination.iter().chain([&letter.upload.key]))?;
    let known = decisions::known(work.sql, &wanted.merchant, wanted.id)?;
    let Some(known) = known else { return Err(StoreError::refused(Code::NotFound, format!("no operation {}", wanted.id))) };
    if let Some(decision) = decisions::about(work.sql, &wanted.merchant, wanted.id)? {
        return Err(StoreError::refused(Code::AlreadyDecided, decisions::told(&decision)));
    }
    if known.is_accepted {
        return Err(StoreError::refused(Code::Conflict, format!("{} was accepted; there is nothing to decide", wanted.id)));
    }
    let discarded = OperationDecision {
        id: wanted.id,
        decision: Decision::Discarded,
        replaced_by: None,
        decided_by: DecidedBy::Operator,
        reason: wanted.reason.clone(),
        decided_at: work.now,
    };
    let text = match &wanted.act {
        DeadLetterAct::Discard => {
            decisions::write(work, &wanted.merchant, &discarded)?;
            tell_audit(work, wanted, &letter)?;
            return Ok(Made { decision: discarded, key: letter.upload.key, judged: None });
        }
        _sent_again if known.code == Some(Code::AlreadyDecided) => {
            let detail = format!("{} came after the decision about the operation that it replaces; it can only be discarded", wanted.id);
            return Err(StoreError::refused(Code::AlreadyDecided, detail));
        }
        DeadLetterAct::Retry(by) => successor(&letter, wanted.id, *by, None)?,
        DeadLetterAct::Edit(by, body) => successor(&letter, wanted.id, *by, Some(body))?,
    };
    let judged = send_again(work, &letter, &text)?;
    let replaced_by = OperationId::parse(&judged.verdict.id);
    let decision = OperationDecision { decision: Decision::Replaced, replaced_by, ..discarded };
    decisions::write(work, &wanted.merchant, &decision)?;
    tell_audit(work, wanted, &letter)?;
    Ok(Made { decision, key: letter.upload.key, judged: Some(judged) })
}

fn tell_audit(work: &Work<'_>, wanted: &Decide, letter: &Letter) -> Result<(), StoreError> {
    let action = match wanted.act {
        DeadLetterAct::Retry(_) => "dead_letter.retried",
        DeadLetterAct::Edit(..) => "dead_letter.edited",
        DeadLetterAct::Discard => "dead_letter.discarded",
    };
    let act = Act {
        device: Some(letter.upload.device.to_string()),
        subject: Some(wanted.id.to_string()),
        detail: wanted.reason.clone(),
        ..audit::at(action, &letter.upload.key)
    };
    audit::write(work, &act, &wanted.by)
}

fn read(work: &Work<'_>, wanted: &Decide) -> Result<Letter, StoreError> {
    let sql =
        "SELECT branch_id, device_id, journal_id, clock_offset_ms, device_seq, occurred_at, recorded_at, CAST(body AS TEXT) FROM operation
        WHERE merchant_id = ?1 AND id = ?2";
    let found = work.sql.row(sql, args![wanted.merchant.as_str(), wanted.id.to_string()], |row| {
        let key = BranchKey { merchant: wanted.merchant.clone(), branch: row.branch(0)? };
        let (journal_id, clock_offset_ms) = (row.string(2)?, row.integer(3)?);
        let upload = AcceptUpload { key, device: row.device(1)?, journal_id, clock_offset_ms, operations: Vec::new() };
        let (occurred_at, recorded_at) = (row.optional_string(5)?, row.string(6)?);
        Ok(Letter { upload, device_seq: row.number(4)?, occurred_at, recorded_at, body: row.optional_string(7)? })
    })?;
    found.ok_or_else(|| StoreError::refused(Code::NotFound, format!("no operation {}", wanted.id)))
}

/// The operation in its place: a new id, the old number and time, the old body or a corrected one.
fn successor(letter: &Letter, old: OperationId, id: OperationId, corrected: Option<&str>) -> Result<String, StoreError> {
    let body = corrected.or(letter.body.as_deref());
    let body = body.ok_or_else(|| StoreError::refused(Code::Conflict, "its body is not kept any more: edit it, or discard it"))?;
    let mut map: Map<String, Value> =
        serde_json::from_str(body).map_err(|error| StoreError::refused(Code::MalformedOperation, format!("not an operation: {error}")))?;
    let was_at = letter.occurred_at.clone().or_else(|| Some(map.get("occurred_at")?.as_str()?.to_owned()));
    let at = was_at.filter(|at| Timestamp::parse(at).is_ok()).unwrap_or_else(|| letter.recorded_at.clone());
    map.insert("id".into(), id.to_string().into());
    map.insert("device_seq".into(), letter.device_seq.into());
    map.insert("occurred_at".into(), at.into());
    map.insert("replaces".into(), old.to_string().into());
    Ok(Value::Object(map).to_string())
}

/// Judges the new operation as if the device had sent it, with the number that the old one had.
fn send_again(work: &mut Work<'_>, letter: &Letter, text: &str) -> Result<Judged, StoreError> {
    let received = Received::read(text, work.personal);
    let operation = received.parsed.as_ref().map_err(|error| StoreError::refused(error.code, error.detail.clone()))?;
    let id = operation.id;
    if decisions::known(work.sql, &letter.upload.key.merchant, id)?.is_some() {
        return Err(StoreError::refused(Code::IdReused, format!("{id} is the id of another operation")));
    }
    let merchant = writes::merchant(work, &letter.upload.key.merchant)?;
    writes::check_branch(work, &letter.upload.key)?;
    let (at, offset) = super::credible(work, &letter.upload, operation);
    let happened = Happened::on_device(at, offset, work.now, &letter.upload.journal_id, operation.device_seq);
    let effects = effects::apply(work, &merchant, &letter.upload, operation, &happened)?;
    let effects = effects.map_err(|(code, detail)| StoreError::refused(code, detail))?;
    work.touched.insert(letter.upload.key.clone());
    let verdict = Verdict { id: id.to_string(), status: VerdictStatus::Accepted, seq: None, code: effects.code, detail: effects.detail };
    let verdict = record(work, &letter.upload, &received, verdict, effects.awaits_event)?;
    Ok(Judged { verdict, awaits_commit: !effects.awaits_event })
}
