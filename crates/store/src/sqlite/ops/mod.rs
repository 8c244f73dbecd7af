//! Operations of devices: each judged on its own, accepted exactly once, recorded in the transaction that holds its effect.

mod effects;
mod journal;

use mstore_engine::stock::Happened;
use mstore_protocol::{BranchKey, Code, DeviceId, Operation, OperationError, OperationId, Verdict, VerdictStatus};
use rusqlite::{OptionalExtension as _, params};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    alarms,
    job::{Seen, Work},
    writes,
};
use crate::{AcceptUpload, Merchant, StoreError, failpoint};

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

/// Fills in the seqs.
pub(super) fn answer(judged: Vec<Judged>, key: &BranchKey, seen: &Seen) -> Vec<Verdict> {
    let seq = seen.commits.get(key).or_else(|| seen.heads.get(key)).copied();
    let fill = |judged: Judged| if judged.awaits_commit { Verdict { seq, ..judged.verdict } } else { judged.verdict };
    judged.into_iter().map(fill).collect()
}

/// Judges and carries out an upload.
pub(super) fn accept(work: &mut Work<'_>, upload: &AcceptUpload) -> Result<Vec<Judged>, StoreError> {
    let merchant = writes::merchant(work, &upload.key.merchant)?;
    writes::check_branch(work, &upload.key)?;
    work.touched.insert(upload.key.clone());
    if !has_credible_clock(upload) {
        let days = upload.clock_offset_ms.unsigned_abs() / DAY_MS;
        let AcceptUpload { device, journal_id, .. } = upload;
        let detail =
            format!("{device} (journal {journal_id}) says that its clock is {days} days off; its operations count from when they arrived");
        alarms::raise_once(work.conn, work.now, CLOCK, &upload.key, &upload.device, &detail)?;
    } else {
        alarms::clear_of_device(work.conn, work.now, CLOCK, &upload.key, &upload.device)?;
    }
    let mut judged = Vec::with_capacity(upload.operations.len());
    let mut numbers = Vec::with_capacity(upload.operations.len());
    for text in &upload.operations {
        let received = Received::read(text);
        numbers.extend(received.device_seq);
        judged.push(one(work, &merchant, upload, &received)?);
    }
    journal::note(work, &upload.key, &upload.device, &upload.journal_id, numbers)?;
    Ok(judged)
}

fn has_credible_clock(upload: &AcceptUpload) -> bool {
    upload.clock_offset_ms.unsigned_abs() <= CLOCK_OFFSET_MS_MAX
}

/// What can be told of an operation even when it is refused.
struct Received {
    id: String,
    device_seq: Option<u64>,
    act: String,
    replaces: Option<String>,
    hash: [u8; 32],
    body: String,
    parsed: Result<Operation, OperationError>,
}

#[derive(Deserialize, Default)]
struct Loose {
    #[serde(default)]
    id: serde_json::Value,
    #[serde(default)]
    device_seq: serde_json::Value,
    #[serde(default, rename = "type")]
    act: serde_json::Value,
}

impl Received {
    fn read(text: &str) -> Self {
        match Operation::parse(text) {
            Ok((operation, canonical)) => Self {
                id: operation.id.to_string(),
                device_seq: Some(operation.device_seq),
                act: operation.kind.as_str().into(),
                replaces: operation.replaces.map(|id| id.to_string()),
                hash: Sha256::digest(&canonical).into(),
                body: canonical,
                parsed: Ok(operation),
            },
            Err(error) => {
                let loose: Loose = serde_json::from_str(text).unwrap_or_default();
                let body = mstore_protocol::canonicalise(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned);
                let short = |value: &serde_json::Value| value.as_str().unwrap_or("").chars().take(64).collect::<String>();
                Self {
                    id: short(&loose.id),
                    device_seq: loose.device_seq.as_u64().filter(|seq| *seq > 0 && i64::try_from(*seq).is_ok()),
                    act: short(&loose.act),
                    replaces: None,
                    hash: Sha256::digest(&body).into(),
                    body,
                    parsed: Err(error),
                }
            }
        }
    }

    /// The id as the key of exactly-once; a malformed one cannot be remembered.
    fn key(&self) -> Option<OperationId> {
        OperationId::parse(&self.id)
    }

    fn rejected(&self, code: Code, detail: impl Into<String>) -> Judged {
        let verdict =
            Verdict { id: self.id.clone(), status: VerdictStatus::Rejected, seq: None, code: Some(code), detail: Some(detail.into()) };
        Judged { verdict, awaits_commit: false }
    }
}

fn one(work: &mut Work<'_>, merchant: &Merchant, upload: &AcceptUpload, received: &Received) -> Result<Judged, StoreError> {
    let Some(id) = received.key() else {
        let detail = received.parsed.as_ref().err().map_or_else(|| "an operation needs an id".into(), |error| error.detail.clone());
        return Ok(received.rejected(received.parsed.as_ref().err().map_or(Code::MalformedOperation, |error| error.code), detail));
    };
    if let Some(known) = known(work, upload, id, received)? {
        return Ok(known);
    }
    work.conn.prepare_cached("SAVEPOINT operation")?.execute([])?;
    match carry_out(work, merchant, upload, received) {
        Ok(judged) => {
            failpoint::point("operation_written");
            work.conn.prepare_cached("RELEASE operation")?.execute([])?;
            Ok(judged)
        }
        Err(error) if work.conn.is_autocommit() || !matches!(error, StoreError::Failed(_)) => Err(error),
        Err(error) => {
            // Ours is the fault, but a queue must not stand still behind it: the device keeps it as a dead letter.
            work.conn.execute_batch("ROLLBACK TO operation; RELEASE operation")?;
            let detail = format!("operation {id}: {error}");
            alarms::raise_once(work.conn, work.now, "operation_failed", &upload.key, &upload.device, &detail)?;
            Ok(received.rejected(Code::Internal, detail))
        }
    }
}

/// The verdict given before, if the id was seen. Its commit may still be to come: in this very transaction, or of a branch that is held.
fn known(work: &Work<'_>, upload: &AcceptUpload, id: OperationId, received: &Received) -> Result<Option<Judged>, StoreError> {
    let sql = "SELECT body_hash, status, seq, code, detail, seq IS NULL AND awaits_event = 0 AND branch_id = ?3 FROM operation
        WHERE merchant_id = ?1 AND id = ?2";
    let mut statement = work.conn.prepare_cached(sql)?;
    let found = statement
        .query_row([upload.key.merchant.as_str(), &id.to_string(), upload.key.branch.as_str()], |row| {
            let first = (row.get::<_, Option<u64>>(2)?, row.get::<_, Option<String>>(3)?, row.get::<_, Option<String>>(4)?, row.get(5)?);
            Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?, first))
        })
        .optional()?;
    let Some((hash, status, (seq, code, detail, is_unsequenced))) = found else { return Ok(None) };
    if hash != received.hash {
        return Ok(Some(received.rejected(Code::IdReused, "this id was sent before with another body")));
    }
    let code = code.as_deref().and_then(Code::parse);
    let status = if status == "accepted" { VerdictStatus::Duplicate } else { VerdictStatus::Rejected };
    let verdict = Verdict { id: received.id.clone(), status, seq, code, detail };
    Ok(Some(Judged { awaits_commit: is_unsequenced && status == VerdictStatus::Duplicate, verdict }))
}

fn carry_out(work: &mut Work<'_>, merchant: &Merchant, upload: &AcceptUpload, received: &Received) -> Result<Judged, StoreError> {
    warn_of_reuse(work, upload, received)?;
    let outcome = match &received.parsed {
        Err(error) => Err((error.code, error.detail.clone())),
        Ok(operation) => {
            // What a clock wrote down that cannot be corrected orders nothing: it would make effects vanish behind a count.
            let (at, offset) = if has_credible_clock(upload) { (operation.occurred_at, upload.clock_offset_ms) } else { (work.now, 0) };
            let happened = Happened::on_device(at, offset, work.now, &upload.journal_id, operation.device_seq);
            effects::apply(work, merchant, upload, operation, &happened)?
        }
    };
    let (status, code, detail, awaits_event) = match outcome {
        Ok(effects) => (VerdictStatus::Accepted, effects.code, effects.detail, effects.awaits_event),
        Err((code, detail)) => (VerdictStatus::Rejected, Some(code), Some(detail), false),
    };
    let accepted = status == VerdictStatus::Accepted;
    let verdict = Verdict { id: received.id.clone(), status, seq: None, code, detail };
    record(work, upload, received, &verdict, awaits_event)?;
    Ok(Judged { verdict, awaits_commit: accepted && !awaits_event })
}

fn record(work: &Work<'_>, upload: &AcceptUpload, received: &Received, verdict: &Verdict, awaits_event: bool) -> Result<(), StoreError> {
    let sql = "INSERT INTO operation (merchant_id, branch_id, id, device_id, journal_id, device_seq, type, status, code, detail, replaces,
        awaits_event, occurred_at, recorded_at, body_hash, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    let status = if verdict.status == VerdictStatus::Accepted { "accepted" } else { "rejected" };
    let occurred_at = received.parsed.as_ref().ok().map(|operation| operation.occurred_at.to_string());
    work.conn.prepare_cached(sql)?.execute(params![
        upload.key.merchant.as_str(),
        upload.key.branch.as_str(),
        received.id,
        upload.device.as_str(),
        upload.journal_id,
        received.device_seq.unwrap_or(0),
        received.act,
        status,
        verdict.code.map(Code::as_str),
        verdict.detail,
        received.replaces,
        awaits_event,
        occurred_at,
        work.now.to_string(),
        &received.hash[..],
        received.body
    ])?;
    Ok(())
}

/// A number that another operation has already: the device was restored from a backup. It is accepted, and somebody is told.
fn warn_of_reuse(work: &Work<'_>, upload: &AcceptUpload, received: &Received) -> Result<(), StoreError> {
    let Some(device_seq) = received.device_seq else { return Ok(()) };
    let sql = "SELECT id FROM operation WHERE device_id = ?1 AND journal_id = ?2 AND device_seq = ?3 AND id <> ?4 LIMIT 1";
    let mut statement = work.conn.prepare_cached(sql)?;
    let who = params![upload.device.as_str(), upload.journal_id, device_seq, received.id];
    let other: Option<String> = statement.query_row(who, |row| row.get(0)).optional()?;
    if let Some(other) = other {
        let device: &DeviceId = &upload.device;
        let detail = format!(
            "number {device_seq} of {device} is used by {other} and by {}: its database was restored; check its receipts",
            received.id
        );
        alarms::raise_once(work.conn, work.now, "device_seq_reused", &upload.key, device, &detail)?;
    }
    Ok(())
}
