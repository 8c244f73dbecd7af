//! Rejected operations as operators see and settle them, and as devices hear of it.

use async_trait::async_trait;
use mstore_protocol::{BranchKey, DeadLetterReport, DeviceId, OperationDecision};
use rusqlite::types::Value as Sql;

use super::{
    Size, SqliteStore,
    listing::{self, After},
    ops,
};
use crate::{DeadLetters, DeadLettersOf, Decide, Decided, Page, StoreError};

/// What came too late for a decision is no dead letter: nothing is left to decide.
const DEAD_LETTERS: &str = "SELECT o.n, json_object('id', o.id, 'merchant', o.merchant_id, 'branch', o.branch_id, 'device', o.device_id,
    'journal_id', o.journal_id, 'device_seq', o.device_seq, 'type', o.type, 'code', o.code, 'detail', o.detail, 'replaces', o.replaces,
    'occurred_at', o.occurred_at, 'recorded_at', o.recorded_at, 'body', iif(json_valid(o.body), json(o.body), CAST(o.body AS TEXT)),
    'decision', d.decision, 'replaced_by', d.replaced_by, 'decided_by', d.decided_by, 'reason', d.reason, 'decided_at', d.decided_at)
    FROM operation o LEFT JOIN operation_decision d ON d.merchant_id = o.merchant_id AND d.id = o.id
    WHERE o.n < ?1 AND o.merchant_id = ?3 AND o.status = 'rejected' AND (?4 IS NULL OR o.branch_id = ?4) AND (?5 IS NULL OR o.device_id = ?5)
    AND (?6 OR (d.id IS NULL AND coalesce(o.code, '') <> 'already_decided')) ORDER BY o.n DESC LIMIT ?2";

#[async_trait]
impl DeadLetters for SqliteStore {
    async fn dead_letters(&self, of: DeadLettersOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let after = after.map(str::to_owned);
        let text = |text: Option<String>| text.map_or(Sql::Null, Sql::Text);
        let scope = vec![
            Sql::Text(of.merchant.to_string()),
            text(of.branch.map(|branch| branch.to_string())),
            text(of.device.map(|device| device.to_string())),
            Sql::Integer(of.decided_too.into()),
        ];
        let read = move |conn: &rusqlite::Connection| listing::read(conn, DEAD_LETTERS, &After::NumberDown, scope, after.as_deref(), limit);
        self.readers.read(read).await
    }

    async fn decide(&self, decide: Decide) -> Result<Decided, StoreError> {
        self.submit(Size::Small, move |work| ops::decide(work, &decide), ops::answer_decision).await
    }

    async fn settle_dead_letters(
        &self,
        key: &BranchKey,
        device: &DeviceId,
        report: DeadLetterReport,
    ) -> Result<Vec<OperationDecision>, StoreError> {
        let (key, device) = (key.clone(), device.clone());
        let size = Size::of(report.decided.len());
        self.submit(size, move |work| ops::settle(work, &key, &device, &report), |decisions, _| decisions).await
    }
}
