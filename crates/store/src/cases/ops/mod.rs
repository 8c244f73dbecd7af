//! Operations of devices: each judged on its own, accepted exactly once, recorded in the transaction that holds its effect.

mod decisions;
mod effects;
mod journal;
mod operator;
mod received;

use mstore_engine::stock::Happened;
use mstore_protocol::{
    BranchKey, Code, DeadLetterReport, DeviceId, Operation, OperationDecision, OperationId, Timestamp, Verdict, VerdictStatus,
};

pub(super) use self::operator::{answer as answer_decision, decide, handed_in_at};
use self::received::Received;
use super::{Seen, Work, alarms, inbox, locks, writes};
use crate::{AcceptUpload, Merchant, StoreError, failpoint, sql::args};

/// Offsets beyond this are not believed: a week.
const CLOCK_OFFSET_MS_MAX: u64 = 7 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// The alarm of a device whose clock cannot be believed.
const CLOCK: &str = "clock_offset_refused";

/// A verdict whose seq is known when the commit is.
pub(super) struct Judged {
    verdict: Verdict,
    awaits_commit: bool,
}

impl Judged {
    /// A verdict that waits for nothing.
    fn now(verdict: Verdict) -> Self {
        Self { verdict, awaits_commit: false }
    }
}

/// Fills in the seqs.
pub(super) fn answer(judged: Vec<Judged>, key: &BranchKey, seen: &Seen) -> Vec<Verdict> {
    let seq = seen.commits.get(key).or_else(|| seen.heads.get(key)).copied();
    let fill = |judged: Judged| if judged.awaits_commit { Verdict { seq, ..judged.verdict } } else { judged.verdict };
    judged.into_iter().map(fill).collect()
}

/// Judges and carries out an upload.
pub(super) fn accept(work: &mut Work<'_>, upload: &AcceptUpload) -> Result<Vec<Judged>, StoreError> {
    let merchant = writes::merchant(work, &upload.key.merchant)?;
    let received: Vec<Received> = upload.operations.iter().map(|text| Received::read(text, work.personal)).collect();
    let destinations: Vec<BranchKey> = received.iter().filter_map(|received| received.destination(&upload.key)).collect();
    // The numbers of a journal are the device's, whatever branch it uploads for.
    locks::device(work, &upload.device)?;
    locks::branches(work, destinations.iter().chain([&upload.key]))?;
    writes::check_branch(work, &upload.key)?;
    work.touched.insert(upload.key.clone());
    if !has_credible_clock(upload) {
        let days = upload.clock_offset_ms.unsigned_abs() / DAY_MS;
        let AcceptUpload { device, journal_id, .. } = upload;
        let detail =
            format!("{device} (journal {journal_id}) says that its clock is {days} days off; its operations count from when they arrived");
        alarms::raise_once(work.sql, work.now, CLOCK, &upload.key, &upload.device, &detail)?;
    } else {
        alarms::clear_of_device(work.sql, work.now, CLOCK, &upload.key, &upload.device)?;
    }
    let mut judged = Vec::with_capacity(upload.operations.len());
    let mut numbers = Vec::with_capacity(upload.operations.len());
    for received in &received {
        let one = one(work, &merchant, upload, received)?;
        let is_accepted = one.verdict.status != VerdictStatus::Rejected;
        numbers.extend(received.device_seq.map(|device_seq| journal::Entry { device_seq, is_accepted }));
        judged.push(one);
    }
    journal::note(work, &journal::Journal { key: &upload.key, device: &upload.device, id: &upload.journal_id }, numbers)?;
    Ok(judged)
}

/// A device tells what it decided about its dead letters; gives the decisions that count.
pub(super) fn settle(
    work: &mut Work<'_>,
    key: &BranchKey,
    device: &DeviceId,
    report: &DeadLetterReport,
) -> Result<Vec<OperationDecision>, StoreError> {
    locks::device(work, device)?;
    locks::branches(work, [key])?;
    writes::check_branch(work, key)?;
    decisions::settle(work, key, device, report)
}

fn has_credible_clock(upload: &AcceptUpload) -> bool {
    upload.clock_offset_ms.unsigned_abs() <= CLOCK_OFFSET_MS_MAX
}

fn one(work: &mut Work<'_>, merchant: &Merchant, upload: &AcceptUpload, received: &Received) -> Result<Judged, StoreError> {
    let Some(id) = received.key() else {
        let detail = received.parsed.as_ref().err().map_or_else(|| "an operation needs an id".into(), |error| error.detail.clone());
        let code = received.parsed.as_ref().err().map_or(Code::MalformedOperation, |error| error.code);
        return Ok(Judged::now(received.rejected(code, detail)));
    };
    if let Some(known) = known(work, upload, id, received)? {
        return Ok(known);
    }
    work.sql.execute("SAVEPOINT operation", &[])?;
    match carry_out(work, merchant, upload, received, id) {
        Ok(judged) => {
            failpoint::point("operation_written");
            work.sql.execute("RELEASE operation", &[])?;
            Ok(judged)
        }
        Err(error) if work.sql.is_lost() => Err(error),
        Err(error @ (StoreError::Busy { .. } | StoreError::Closed)) => Err(error),
        Err(StoreError::Refused { code, detail }) => {
            work.sql.execute("ROLLBACK TO operation", &[])?;
            work.sql.execute("RELEASE operation", &[])?;
            Ok(Judged::now(received.rejected(code, detail)))
        }
        Err(error @ StoreError::Failed(_)) => {
            // Ours is the fault, but a queue must not stand still behind it: the device keeps it as a dead letter.
            work.sql.execute("ROLLBACK TO operation", &[])?;
            work.sql.execute("RELEASE operation", &[])?;
            let detail = format!("operation {id}: {error}");
            alarms::raise_once(work.sql, work.now, "operation_failed", &upload.key, &upload.device, &detail)?;
            Ok(Judged::now(received.rejected(Code::Internal, detail)))
        }
    }
}

/// The verdict given before, if the id was seen. Its commit may still be to come: in this very transaction, or of a branch that is held.
fn known(work: &Work<'_>, upload: &AcceptUpload, id: OperationId, received: &Received) -> Result<Option<Judged>, StoreError> {
    let sql = "SELECT body_hash, status, seq, code, detail, seq IS NULL AND awaits_event = 0 AND branch_id = ?3 FROM operation
        WHERE merchant_id = ?1 AND id = ?2";
    let found = work.sql.row(sql, args![upload.key.merchant.as_str(), id.to_string(), upload.key.branch.as_str()], |row| {
        let first = (row.optional_number(2)?, row.optional_string(3)?, row.optional_string(4)?, row.flag(5)?);
        Ok((row.array::<32>(0)?, row.string(1)?, first))
    })?;
    let Some((hash, status, (seq, code, detail, is_unsequenced))) = found else { return Ok(None) };
    if hash != received.hash {
        let sql = "UPDATE operation SET is_reused = 1 WHERE merchant_id = ?1 AND id = ?2 AND is_reused = 0";
        work.sql.execute(sql, args![upload.key.merchant.as_str(), &id.to_string()])?;
        return Ok(Some(Judged::now(received.rejected(Code::IdReused, "this id was sent before with another body"))));
    }
    let code = code.as_deref().and_then(Code::parse);
    let status = if status == "accepted" { VerdictStatus::Duplicate } else { VerdictStatus::Rejected };
    // What was accepted and then rejected by its backend has a commit, the one that took it back; none contains it.
    let seq = seq.filter(|_| status == VerdictStatus::Duplicate);
    let verdict = Verdict { id: received.id.clone(), status, seq, code, detail };
    Ok(Some(Judged { awaits_commit: is_unsequenced && status == VerdictStatus::Duplicate, verdict }))
}

fn carry_out(
    work: &mut Work<'_>,
    merchant: &Merchant,
    upload: &AcceptUpload,
    received: &Received,
    id: OperationId,
) -> Result<Judged, StoreError> {
    warn_of_reuse(work, upload, received)?;
    let outcome = match (decisions::overruled(work, upload, received, id)?, &received.parsed) {
        (Some(rejection), _) => Err(rejection),
        (None, Err(error)) => Err((error.code, error.detail.clone())),
        (None, Ok(operation)) => {
            let (at, offset) = credible(work, upload, operation);
            let happened = Happened::on_device(at, offset, work.now, &upload.journal_id, operation.device_seq);
            whole(work, |work| effects::apply(work, merchant, upload, operation, &happened))?
        }
    };
    let (status, code, detail, awaits_event) = match outcome {
        Ok(effects) => (VerdictStatus::Accepted, effects.code, effects.detail, effects.awaits_event),
        Err((code, detail)) => (VerdictStatus::Rejected, Some(code), Some(detail), false),
    };
    let accepted = status == VerdictStatus::Accepted;
    let verdict = Verdict { id: received.id.clone(), status, seq: None, code, detail };
    let verdict = record(work, upload, received, verdict, awaits_event)?;
    Ok(Judged { verdict, awaits_commit: accepted && !awaits_event })
}

/// Effects stay whole or not at all: what is rejected at its second movement has not made its first.
fn whole<T, R>(
    work: &mut Work<'_>,
    apply: impl FnOnce(&mut Work<'_>) -> Result<Result<T, R>, StoreError>,
) -> Result<Result<T, R>, StoreError> {
    work.sql.execute("SAVEPOINT effects", &[])?;
    let outcome = apply(work)?;
    if outcome.is_err() {
        work.sql.execute("ROLLBACK TO effects", &[])?;
    }
    work.sql.execute("RELEASE effects", &[])?;
    Ok(outcome)
}

/// When an operation happened, and the offset to correct it by. What a clock wrote down that cannot be corrected orders nothing: it would make effects vanish
/// behind a count.
fn credible(work: &Work<'_>, upload: &AcceptUpload, operation: &Operation) -> (Timestamp, i64) {
    if has_credible_clock(upload) { (operation.occurred_at, upload.clock_offset_ms) } else { (work.now, 0) }
}

/// Takes an operation down with its verdict, which it gives back as it stands: whether a backend is to decide yet is part of it.
fn record(
    work: &Work<'_>,
    upload: &AcceptUpload,
    received: &Received,
    verdict: Verdict,
    awaits_event: bool,
) -> Result<Verdict, StoreError> {
    let is_offered = awaits_event && offer(work, upload, received)?;
    let verdict = if is_offered { Verdict { code: Some(Code::AwaitsBackend), ..verdict } } else { verdict };
    let sql = "INSERT INTO operation (merchant_id, branch_id, id, device_id, journal_id, device_seq, type, status, code, detail, replaces,
        awaits_event, occurred_at, recorded_at, body_hash, body, clock_offset_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
    let status = if verdict.status == VerdictStatus::Accepted { "accepted" } else { "rejected" };
    let occurred_at = received.parsed.as_ref().ok().map(|operation| operation.occurred_at.to_string());
    // It may repeat what was sent; not every database keeps such a text.
    let detail = verdict.detail.as_ref().map(|detail| detail.replace('\0', "\u{fffd}"));
    work.sql.execute(
        sql,
        args![
            upload.key.merchant.as_str(),
            upload.key.branch.as_str(),
            received.id,
            upload.device.as_str(),
            upload.journal_id,
            received.device_seq.unwrap_or(0),
            received.act,
            status,
            verdict.code.map(Code::as_str),
            detail,
            received.replaces.map(|id| id.to_string()),
            awaits_event,
            occurred_at,
            work.now.to_string(),
            received.hash,
            received.body,
            upload.clock_offset_ms
        ],
    )?;
    Ok(verdict)
}

fn offer(work: &Work<'_>, upload: &AcceptUpload, received: &Received) -> Result<bool, StoreError> {
    let offered = inbox::Offered {
        key: &upload.key,
        id: &received.id,
        device: upload.device.as_str(),
        journal_id: &upload.journal_id,
        device_seq: received.device_seq.unwrap_or(0),
        act: &received.act,
        body: &received.body,
    };
    inbox::offer(work, &offered)
}

/// A number that another operation has already: the device was restored from a backup. It is accepted, and somebody is told.
fn warn_of_reuse(work: &Work<'_>, upload: &AcceptUpload, received: &Received) -> Result<(), StoreError> {
    let Some(device_seq) = received.device_seq else { return Ok(()) };
    let sql = "SELECT id FROM operation WHERE device_id = ?1 AND journal_id = ?2 AND device_seq = ?3 AND id <> ?4 LIMIT 1";
    let who = args![upload.device.as_str(), upload.journal_id, device_seq, received.id];
    if let Some(other) = work.sql.row(sql, who, |row| row.string(0))? {
        let device: &DeviceId = &upload.device;
        let detail = format!(
            "number {device_seq} of {device} is used by {other} and by {}: its database was restored; check its receipts",
            received.id
        );
        alarms::raise_once(work.sql, work.now, "device_seq_reused", &upload.key, device, &detail)?;
    }
    Ok(())
}
