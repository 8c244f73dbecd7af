//! Operations for the backend of a merchant that decides: put into its inbox in the transaction that accepts them, delivered, decided once.
//!
//! What a verdict does, triggers do: so it is the same whether it comes from us or by SQL, and part of the transaction that gives it.

use async_trait::async_trait;
use mstore_protocol::{
    BackendDecision, BackendVerdict, BranchKey, Code, MerchantId, OperationId, Timestamp, Verdict, VerdictStatus, limits::DETAIL_BYTES_MAX,
};

use super::{Carrier, Seen, Size, Work, alarms, listing, locks};
use crate::{
    Attempt, Due, Inbox, InboxBacklog, InboxOf, Page, StoreError,
    sql::{Row, Sql, args},
};

/// Nothing is delivered to a merchant's backend.
const FAILING: &str = "webhook_failing";
/// A merchant's backend does not take an operation.
const REFUSED: &str = "webhook_refused";
/// It said something else about an operation than the first time.
const DIFFERS: &str = "verdict_differs";
/// Attempts in vain before somebody is told.
const ATTEMPTS_BEFORE_ALARM: u32 = 5;

const COLUMNS: &str =
    "SELECT n, n, id, merchant_id AS merchant, branch_id AS branch, device_id AS device, journal_id, device_seq, type, body AS body_json,
    received_at, attempts, next_attempt_at, is_set_aside AS set_aside_flag, last_error, delivered_at, verdict, code, detail, decided_at
    FROM operation_inbox WHERE n < ?1 AND merchant_id = ?3 AND (CAST(?4 AS TEXT) IS NULL OR branch_id = ?4)";

/// The first of each branch that is not set aside, and what is, if its time has come.
const DUE: &str = "SELECT n, merchant_id, branch_id, id, device_id, journal_id, body, attempts FROM operation_inbox WHERE n IN (
      SELECT min(n) FROM operation_inbox WHERE verdict IS NULL AND delivered_at IS NULL AND is_set_aside = 0 GROUP BY merchant_id, branch_id
      UNION ALL SELECT n FROM operation_inbox WHERE verdict IS NULL AND delivered_at IS NULL AND is_set_aside = 1)
    AND next_attempt_at <= ?1 ORDER BY next_attempt_at, n LIMIT ?2";

/// An operation as the inbox takes it.
pub(super) struct Offered<'a> {
    pub(super) key: &'a BranchKey,
    pub(super) id: &'a str,
    pub(super) device: &'a str,
    pub(super) journal_id: &'a str,
    pub(super) device_seq: u64,
    pub(super) act: &'a str,
    pub(super) body: &'a str,
}

/// Puts an accepted operation into the inbox, if there is one; tells whether it did.
pub(super) fn offer(work: &Work<'_>, of: &Offered<'_>) -> Result<bool, StoreError> {
    if !work.sql.exists("SELECT 1 FROM setting WHERE name = 'operation_inbox' AND value = 'on'", &[])? {
        return Ok(false);
    }
    let sql = "INSERT INTO operation_inbox (merchant_id, branch_id, id, device_id, journal_id, device_seq, type, body, received_at, next_attempt_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)";
    let (merchant, branch) = (of.key.merchant.as_str(), of.key.branch.as_str());
    work.sql
        .execute(sql, args![merchant, branch, of.id, of.device, of.journal_id, of.device_seq, of.act, of.body, work.now.to_string()])?;
    Ok(true)
}

/// An event names an operation: the backend has it.
pub(super) fn accepted_by_event(work: &Work<'_>, merchant: &MerchantId, id: &str) -> Result<(), StoreError> {
    let sql = "UPDATE operation_inbox SET verdict = 'accepted', decided_at = ?1 WHERE merchant_id = ?2 AND id = ?3 AND verdict IS NULL";
    work.sql.execute(sql, args![work.now.to_string(), merchant.as_str(), id]).map(|_| ())
}

/// Forgets what was decided before a time.
pub(crate) fn forget(db: &dyn Sql, before: &str) -> Result<(), StoreError> {
    db.execute("DELETE FROM operation_inbox WHERE decided_at < ?1", args![before]).map(|_| ())
}

#[async_trait]
impl<S: Carrier> Inbox for S {
    async fn set_inbox(&self, is_on: bool) -> Result<(), StoreError> {
        let run = move |work: &mut Work<'_>| {
            let sql =
                "INSERT INTO setting (name, value) VALUES ('operation_inbox', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            work.sql.execute(sql, args![if is_on { "on" } else { "off" }]).map(|_| ())
        };
        self.carry(Size::Small, run, |(), _| ()).await
    }

    async fn claim_deliveries(&self, now: Timestamp, until: Timestamp, limit: usize) -> Result<Vec<Due>, StoreError> {
        // Most of the time nothing is due: looking takes no transaction that writes.
        let found = self.read(move |db| db.rows(DUE, args![now.to_string(), limit], due)).await?;
        if found.is_empty() {
            return Ok(found);
        }
        self.carry(Size::Small, move |work| claim(work, &found, now, until), |due, _| due).await
    }

    async fn attempted(&self, due: &Due, attempt: Attempt) -> Result<(), StoreError> {
        let due = due.clone();
        self.carry(Size::Small, move |work| attempted(work, &due, &attempt), |(), _| ()).await
    }

    async fn give_verdict(&self, merchant: &MerchantId, id: OperationId, verdict: BackendVerdict) -> Result<Verdict, StoreError> {
        let (merchant, verdict) = (merchant.clone(), verdict.kept());
        let of = merchant.clone();
        let key = self.read(move |db| offered_at(db, &of, id)).await?;
        let case = Size::Small.at(&key);
        let run = move |work: &mut Work<'_>| give(work, &merchant, id, &key, &verdict).map(|verdict| (key.clone(), verdict));
        let finish = |(key, verdict): (BranchKey, Verdict), seen: &Seen| match verdict.status {
            VerdictStatus::Accepted | VerdictStatus::Duplicate => Verdict { seq: verdict.seq.or(seen.heads.get(&key).copied()), ..verdict },
            VerdictStatus::Rejected => verdict,
        };
        self.carry(case, run, finish).await
    }

    async fn verdicts(&self, merchant: &MerchantId, ids: Vec<OperationId>) -> Result<Vec<Verdict>, StoreError> {
        let merchant = merchant.clone();
        let read = move |db: &dyn Sql| ids.iter().filter_map(|id| standing(db, &merchant, *id).transpose()).collect();
        self.read(read).await
    }

    async fn inbox(&self, of: InboxOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let after = after.map(str::to_owned);
        let sql = format!("{COLUMNS} {} ORDER BY n DESC LIMIT ?2", if of.decided_too { "" } else { "AND verdict IS NULL" });
        let scope = [Some(of.merchant.to_string()), of.branch.map(|branch| branch.to_string())];
        self.read(move |db| listing::objects(db, &sql, &scope, after.as_deref(), limit)).await
    }

    async fn inbox_backlog(&self) -> Result<InboxBacklog, StoreError> {
        let sql = "SELECT (SELECT count(*) FROM operation_inbox WHERE verdict IS NULL),
            (SELECT count(*) FROM operation_inbox WHERE verdict IS NULL AND delivered_at IS NULL)";
        let read = move |db: &dyn Sql| db.row(sql, &[], |row| Ok(InboxBacklog { undecided: row.number(0)?, undelivered: row.number(1)? }));
        Ok(self.read(read).await?.unwrap_or_default())
    }
}

fn claim(work: &Work<'_>, found: &[Due], now: Timestamp, until: Timestamp) -> Result<Vec<Due>, StoreError> {
    let mut claimed = Vec::with_capacity(found.len());
    // Two servers may have found the same; the second one changes nothing.
    let sql = "UPDATE operation_inbox SET next_attempt_at = ?1 WHERE n = ?2 AND next_attempt_at <= ?3 AND verdict IS NULL AND delivered_at IS NULL";
    for due in found {
        if work.sql.execute(sql, args![until.to_string(), due.n, now.to_string()])? > 0 {
            claimed.push(due.clone());
        }
    }
    Ok(claimed)
}

fn due(row: &Row<'_>) -> Result<Due, StoreError> {
    let id = OperationId::parse(row.text(3)?).ok_or_else(|| crate::sql::damaged("an operation", "its id"))?;
    let (device, journal_id, body) = (row.device(4)?, row.string(5)?, row.string(6)?);
    Ok(Due {
        n: row.number(0)?,
        key: row.key(1)?,
        id,
        device,
        journal_id,
        body,
        attempts: u32::try_from(row.number(7)?).unwrap_or(u32::MAX),
    })
}

fn attempted(work: &mut Work<'_>, due: &Due, attempt: &Attempt) -> Result<(), StoreError> {
    let now = work.now.to_string();
    match attempt {
        Attempt::Decided(verdict) => {
            delivered(work, due, &now)?;
            let verdict = verdict.clone().kept();
            if !decide(work, &due.key.merchant, due.id, &verdict)? && stands(work, &due.key.merchant, due.id)? != Some(verdict) {
                let detail = format!("{}: the answer to a delivery is another verdict than the first, which stands", due.id);
                alarms::raise_once(work.sql, work.now, DIFFERS, &due.key, &due.device, &detail)?;
            }
            work.touched.insert(due.key.clone());
            recovered(work, due)
        }
        Attempt::Taken => {
            delivered(work, due, &now)?;
            recovered(work, due)
        }
        Attempt::Failed { why, again_at } => {
            in_vain(work, due, why, *again_at, false)?;
            if due.attempts + 1 >= ATTEMPTS_BEFORE_ALARM && !is_alarmed(work, &due.key.merchant)? {
                let detail =
                    format!("operations are not delivered to the backend of {}: {why}; they are kept and tried again", due.key.merchant);
                alarms::raise(work.sql, work.now, FAILING, Some(&due.key), None, &detail)?;
            }
            Ok(())
        }
        Attempt::Refused { why, again_at, is_set_aside } => {
            in_vain(work, due, why, *again_at, *is_set_aside)?;
            if *is_set_aside {
                let detail = format!("the backend does not take {}: {why}; those behind it go on, it is tried again later", due.id);
                alarms::raise_unless_open(work.sql, work.now, REFUSED, &due.key, &detail)?;
            }
            Ok(())
        }
    }
}

fn delivered(work: &Work<'_>, due: &Due, now: &str) -> Result<(), StoreError> {
    let sql = "UPDATE operation_inbox SET attempts = attempts + 1, is_set_aside = 0, last_error = NULL, delivered_at = coalesce(delivered_at, ?1) WHERE n = ?2";
    work.sql.execute(sql, args![now, due.n]).map(|_| ())
}

fn in_vain(work: &Work<'_>, due: &Due, why: &str, again_at: Timestamp, is_set_aside: bool) -> Result<(), StoreError> {
    let why = &why[..why.floor_char_boundary(DETAIL_BYTES_MAX)];
    let sql = "UPDATE operation_inbox SET attempts = attempts + 1, next_attempt_at = ?1, last_error = ?2,
        is_set_aside = CASE WHEN is_set_aside = 1 THEN 1 ELSE CAST(?3 AS BIGINT) END WHERE n = ?4 AND verdict IS NULL";
    work.sql.execute(sql, args![again_at.to_string(), why, is_set_aside, due.n]).map(|_| ())
}

fn is_alarmed(work: &Work<'_>, merchant: &MerchantId) -> Result<bool, StoreError> {
    work.sql.exists("SELECT 1 FROM alarm WHERE cleared_at IS NULL AND kind = ?1 AND merchant_id = ?2", args![FAILING, merchant.as_str()])
}

/// Something got through: the alarms end when nothing else that would raise them is left.
fn recovered(work: &Work<'_>, due: &Due) -> Result<(), StoreError> {
    let (merchant, branch, now) = (due.key.merchant.as_str(), due.key.branch.as_str(), work.now.to_string());
    let sql = "UPDATE alarm SET cleared_at = ?1 WHERE cleared_at IS NULL AND kind = ?2 AND merchant_id = ?3 AND NOT EXISTS
        (SELECT 1 FROM operation_inbox WHERE merchant_id = ?3 AND verdict IS NULL AND delivered_at IS NULL AND is_set_aside = 0 AND attempts >= ?4)";
    work.sql.execute(sql, args![now, FAILING, merchant, u64::from(ATTEMPTS_BEFORE_ALARM)])?;
    let sql = "UPDATE alarm SET cleared_at = ?1 WHERE cleared_at IS NULL AND kind = ?2 AND merchant_id = ?3 AND branch_id = ?4 AND NOT EXISTS
        (SELECT 1 FROM operation_inbox WHERE merchant_id = ?3 AND branch_id = ?4 AND verdict IS NULL AND delivered_at IS NULL AND is_set_aside = 1)";
    work.sql.execute(sql, args![now, REFUSED, merchant, branch]).map(|_| ())
}

/// Writes a verdict down; false if there is one already.
fn decide(work: &Work<'_>, merchant: &MerchantId, id: OperationId, verdict: &BackendVerdict) -> Result<bool, StoreError> {
    let sql = "UPDATE operation_inbox SET verdict = ?1, code = ?2, detail = ?3, decided_at = ?4
        WHERE merchant_id = ?5 AND id = ?6 AND verdict IS NULL";
    let BackendVerdict { verdict, code, detail } = verdict;
    let now = work.now.to_string();
    Ok(work.sql.execute(sql, args![verdict.as_str(), code, detail, now, merchant.as_str(), id.to_string()])? > 0)
}

/// The verdict that counts.
fn stands(work: &Work<'_>, merchant: &MerchantId, id: OperationId) -> Result<Option<BackendVerdict>, StoreError> {
    let sql = "SELECT verdict, code, detail FROM operation_inbox WHERE merchant_id = ?1 AND id = ?2 AND verdict IS NOT NULL";
    work.sql.row(sql, args![merchant.as_str(), id.to_string()], |row| {
        let verdict = if row.text(0)? == "accepted" { BackendDecision::Accepted } else { BackendDecision::Rejected };
        Ok(BackendVerdict { verdict, code: row.optional_string(1)?, detail: row.optional_string(2)? })
    })
}

/// The branch of an operation in the inbox, which never changes.
fn offered_at(db: &dyn Sql, merchant: &MerchantId, id: OperationId) -> Result<BranchKey, StoreError> {
    let sql = "SELECT merchant_id, branch_id FROM operation_inbox WHERE merchant_id = ?1 AND id = ?2";
    let key = db.row(sql, args![merchant.as_str(), id.to_string()], |row| row.key(0))?;
    key.ok_or_else(|| StoreError::refused(Code::NotFound, format!("no operation {id} in the inbox of {merchant}")))
}

fn give(
    work: &mut Work<'_>,
    merchant: &MerchantId,
    id: OperationId,
    key: &BranchKey,
    verdict: &BackendVerdict,
) -> Result<Verdict, StoreError> {
    locks::branches(work, [key])?;
    if !decide(work, merchant, id, verdict)? {
        let first = stands(work, merchant, id)?;
        if first.as_ref() != Some(verdict) {
            let first = first.map_or("another one", |first| first.verdict.as_str());
            return Err(StoreError::refused(Code::AlreadyDecided, format!("the verdict about {id} was {first}; the first one counts")));
        }
    }
    work.touched.insert(key.clone());
    standing(work.sql, merchant, id)?.ok_or_else(|| StoreError::refused(Code::NotFound, format!("no operation {id}")))
}

/// What a till that asks is told about an operation.
fn standing(db: &dyn Sql, merchant: &MerchantId, id: OperationId) -> Result<Option<Verdict>, StoreError> {
    let sql = "SELECT status, seq, code, detail FROM operation WHERE merchant_id = ?1 AND id = ?2";
    db.row(sql, args![merchant.as_str(), id.to_string()], |row| {
        let status = if row.text(0)? == "accepted" { VerdictStatus::Accepted } else { VerdictStatus::Rejected };
        let seq = row.optional_number(1)?.filter(|_| status == VerdictStatus::Accepted);
        Ok(Verdict { id: id.to_string(), status, seq, code: row.optional_text(2)?.and_then(Code::parse), detail: row.optional_string(3)? })
    })
}
