//! Rejected operations as operators see and settle them, and as devices hear of it.

use async_trait::async_trait;
use mstore_protocol::{BranchKey, DeadLetterReport, DeviceId, OperationDecision};

use super::{Carrier, Size, listing, ops};
use crate::{DeadLetters, DeadLettersOf, Decide, Decided, Page, StoreError};

const COLUMNS: &str =
    "SELECT o.n, o.id, o.merchant_id AS merchant, o.branch_id AS branch, o.device_id AS device, o.journal_id, o.device_seq, o.type,
    o.code, o.detail, o.replaces, o.occurred_at, o.recorded_at, o.body AS body_json,
    d.decision, d.replaced_by, d.decided_by, d.reason, d.decided_at
    FROM operation o LEFT JOIN operation_decision d ON d.merchant_id = o.merchant_id AND d.id = o.id
    WHERE o.n < ?1 AND o.merchant_id = ?3 AND o.status = 'rejected'
    AND (CAST(?4 AS TEXT) IS NULL OR o.branch_id = ?4) AND (CAST(?5 AS TEXT) IS NULL OR o.device_id = ?5)";
/// What came too late for a decision is no dead letter: nothing is left to decide.
const OPEN_ONLY: &str = "AND d.id IS NULL AND coalesce(o.code, '') <> 'already_decided'";
const ORDER: &str = "ORDER BY o.n DESC LIMIT ?2";

#[async_trait]
impl<S: Carrier> DeadLetters for S {
    async fn dead_letters(&self, of: DeadLettersOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let after = after.map(str::to_owned);
        let sql = format!("{COLUMNS} {} {ORDER}", if of.decided_too { "" } else { OPEN_ONLY });
        let (branch, device) = (of.branch.map(|branch| branch.to_string()), of.device.map(|device| device.to_string()));
        let scope = [Some(of.merchant.to_string()), branch, device];
        self.read(move |db| listing::objects(db, &sql, &scope, after.as_deref(), limit)).await
    }

    async fn decide(&self, decide: Decide) -> Result<Decided, StoreError> {
        let (merchant, id) = (decide.merchant.clone(), decide.id);
        let at = self.read(move |db| ops::handed_in_at(db, &merchant, id)).await?;
        let case = at.map_or_else(|| Size::Small.into(), |key| Size::Small.at(&key));
        self.carry(case, move |work| ops::decide(work, &decide), ops::answer_decision).await
    }

    async fn settle_dead_letters(
        &self,
        key: &BranchKey,
        device: &DeviceId,
        report: DeadLetterReport,
    ) -> Result<Vec<OperationDecision>, StoreError> {
        let (key, device) = (key.clone(), device.clone());
        let case = Size::of(report.decided.len()).at(&key);
        self.carry(case, move |work| ops::settle(work, &key, &device, &report), |decisions, _| decisions).await
    }
}
