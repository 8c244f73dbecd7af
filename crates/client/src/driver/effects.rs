//! One effect after the other, as the engine asked for them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mstore_engine::{ApplyFault, Ask, Effect, Input, UploadOutcome};
use mstore_protocol::{Collection, Cursor, Digest, OperationId, Verdict, VerdictStatus, limits::CLOCK_TOLERANCE_MS};
use tokio::time::Instant;

use super::{CHANGES_PER_PAGE, Done, Driver, LOG_PAGES_MAX};
use crate::{
    db::{Applied, ApplyError, DbError},
    shared::{held, wall},
    stats::{AppliedCommit, Via, record},
};

/// A disk that took no verdicts is tried again after this.
const SETTLE_RETRY: Duration = Duration::from_secs(2);
/// More changes than this are shown on a thread that may wait.
const CHANGES_SHORT_MAX: usize = 300;

impl Driver {
    pub(super) async fn perform(&mut self, effect: Effect) {
        if !matches!(effect, Effect::Apply(_)) {
            // What was handed out before must be on disk before anything builds on it.
            let shown = self.flush().await;
            if !shown && matches!(effect, Effect::Show { .. } | Effect::Adopt(_) | Effect::Renumber { .. } | Effect::ReplaceRanges { .. }) {
                // Decided on a state that did not come about; the engine hears of it next and asks again.
                return;
            }
        }
        match effect {
            Effect::Apply(commit) => self.ready.push(commit),
            Effect::Connect { collections } => self.open_link(&collections),
            Effect::Subscribe(collection) => {
                if let Some(link) = &self.link {
                    link.subscribe(&collection);
                }
            }
            Effect::Disconnect => self.link = None,
            Effect::CatchUp(ask) => self.catch_up(ask),
            Effect::FetchHead => {
                let api = Arc::clone(&self.api);
                self.calls.spawn(async move { Done::Head(api.head().await.map_err(|error| error.fault())) });
            }
            Effect::Show { to, snapshot, is_fallback } => self.show(to, snapshot, is_fallback).await,
            Effect::DropStaged => self.drop_staged().await,
            Effect::Adopt(cursor) => self.adopt(cursor).await,
            Effect::FetchSubDigests(collection) => self.compare(collection),
            Effect::Renumber { to } => self.renumber(to).await,
            Effect::Recount => self.recount(),
            Effect::FetchRows { collection, ranges } => self.fetch_rows(collection, ranges),
            Effect::ReplaceRanges { collection, ranges } => self.replace_ranges(collection, ranges).await,
            Effect::Upload(ids) => self.upload(ids).await,
            Effect::Settle(verdicts) => self.settle_verdicts(verdicts).await,
            Effect::Requeue => self.requeue().await,
        }
    }

    /// Shows the commits that are ready, in one local transaction; false if that failed.
    pub(super) async fn flush(&mut self) -> bool {
        if self.ready.is_empty() {
            return true;
        }
        let commits = std::mem::take(&mut self.ready);
        self.in_a_row = commits.len() > 1;
        let changes = commits.iter().map(mstore_engine::ReadyCommit::changes).sum::<usize>();
        let long = changes > CHANGES_SHORT_MAX;
        let (result, commits, state) = self
            .with_db(long, move |db| {
                let result = db.apply(&commits);
                (result, commits, (db.cursor(), db.digests().clone()))
            })
            .await;
        self.dirty = true;
        self.log_pages += 1 + changes.div_ceil(CHANGES_PER_PAGE);
        if self.log_pages > LOG_PAGES_MAX {
            self.checkpoint_aside();
        }
        let shown = result.is_ok();
        match result {
            Ok(applied) => {
                self.requeue_again(applied.requeued).await;
                let cursor = commits.last().expect("it was not empty").cursor;
                for commit in &commits {
                    self.count_frames(commit);
                }
                self.inputs.push_back(Input::Applied { cursor, digests: state.1 });
            }
            Err(error) => {
                tracing::warn!(device = %self.enrolment.device_id, %error, "a commit could not be shown");
                let fault = match error {
                    ApplyError::BaseMissing { .. } | ApplyError::Frame(_) | ApplyError::OutOfOrder { .. } => ApplyFault::BaseMissing,
                    ApplyError::Sqlite(_) => ApplyFault::Storage,
                };
                self.inputs.push_front(Input::ApplyFailed { cursor: state.0, fault });
            }
        }
        shown
    }

    fn count_frames(&self, commit: &mstore_engine::ReadyCommit) {
        let now = wall();
        let changes = commit.changes() as u64;
        tracing::debug!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, seq = commit.cursor.seq, changes, "Product stock updated");
        held(&self.shared.freshness).shown(commit.at.as_ms(), now.as_ms());
        {
            let mut stats = held(&self.shared.stats);
            stats.commits_mqtt += 1;
            stats.changes_mqtt += changes;
            record(&mut stats.latency, u64::try_from(now.as_ms() - commit.at.as_ms()).unwrap_or(0));
        }
        // Nobody may be listening.
        let _ = self.shared.applied.send(AppliedCommit {
            seq: commit.cursor.seq,
            at: Some(commit.at),
            applied_at: now,
            applied_instant: std::time::Instant::now(),
            changes,
            via: Via::Mqtt,
            is_fallback: false,
            cursor: commit.cursor,
        });
    }

    fn catch_up(&mut self, ask: Ask) {
        let mut staged = self.staged.take().filter(|_| ask.keep_staged).unwrap_or_default();
        if ask.keep_staged {
            staged.go_on();
        } else {
            self.staged_is_snapshot = ask.after.is_none();
        }
        tracing::debug!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, reason = ask.reason.as_str(), after = ?ask.after, "catching up");
        // Asking for compression costs more than most polls bring.
        let plain = self.last_unchanged && ask.reason == mstore_engine::Reason::Poll;
        let (api, db, snapshot) = (Arc::clone(&self.api), Arc::clone(&self.shared.db), self.staged_is_snapshot);
        self.calls.spawn(async move {
            let outcome = api.changes(&ask, &mut staged, snapshot, plain, &db).await;
            Done::CaughtUp(outcome, staged)
        });
    }

    async fn show(&mut self, to: Cursor, snapshot: bool, is_fallback: bool) {
        let staged = self.staged.take().unwrap_or_default();
        let long = snapshot || staged.spilled || staged.len() > CHANGES_SHORT_MAX;
        let (result, state) = self
            .with_db(long, move |db| {
                let result: Result<Applied, DbError> = db.show(&staged, to, snapshot);
                (result, (db.cursor(), db.digests().clone()))
            })
            .await;
        self.shown(to, result, state, is_fallback).await;
    }

    /// What an answer of `/changes` came to in the local database, where this is the position then.
    pub(super) async fn shown(
        &mut self,
        to: Cursor,
        result: Result<Applied, DbError>,
        (cursor, digests): (Option<Cursor>, BTreeMap<Collection, Digest>),
        is_fallback: bool,
    ) {
        self.dirty = true;
        match result {
            Ok(Applied { changes, requeued }) => {
                self.requeue_again(requeued).await;
                self.count_answer(to, changes, is_fallback);
                self.inputs.push_back(Input::Applied { cursor: to, digests });
            }
            Err(error) => {
                tracing::warn!(device = %self.enrolment.device_id, %to, %error, "an answer could not be shown");
                self.inputs.push_back(Input::ApplyFailed { cursor, fault: ApplyFault::Storage });
            }
        }
    }

    pub(super) fn count_answer(&self, to: Cursor, changes: u64, is_fallback: bool) {
        let now = wall();
        tracing::debug!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, seq = to.seq, changes, "Product stock updated");
        if changes > 0 {
            let behind_since = self.shared.as_of().map_or(i64::MIN / 2, mstore_protocol::Timestamp::as_ms);
            held(&self.shared.freshness).shown(behind_since, now.as_ms());
        }
        {
            let mut stats = held(&self.shared.stats);
            stats.commits_http += 1;
            stats.changes_http += changes;
            stats.changes_fallback += if is_fallback { changes } else { 0 };
        }
        let commit = AppliedCommit {
            seq: to.seq,
            at: None,
            applied_at: now,
            applied_instant: std::time::Instant::now(),
            changes,
            via: Via::Http,
            is_fallback,
            cursor: to,
        };
        // Nobody may be listening.
        let _ = self.shared.applied.send(commit);
    }

    async fn drop_staged(&mut self) {
        self.fetched.clear();
        let on_disk = self.staged.take().is_none_or(|staged| staged.spilled);
        if !on_disk {
            return;
        }
        if let Err(error) = self.with_db(false, crate::db::LocalDb::drop_staged).await {
            tracing::warn!(device = %self.enrolment.device_id, %error, "staged rows could not be dropped; the next answer does");
        }
    }

    async fn adopt(&mut self, cursor: Cursor) {
        let (result, state) = self.with_db(false, move |db| (db.adopt(cursor), (db.cursor(), db.digests().clone()))).await;
        self.inputs.push_back(match result {
            Ok(()) => Input::Applied { cursor, digests: state.1 },
            Err(error) => {
                tracing::warn!(device = %self.enrolment.device_id, %error, "another numbering could not be taken over");
                Input::ApplyFailed { cursor: state.0, fault: ApplyFault::Storage }
            }
        });
    }

    async fn upload(&mut self, ids: Vec<OperationId>) {
        let count = ids.len();
        let bodies = self.with_db(false, move |db| db.bodies(&ids)).await;
        let bodies = match bodies {
            Ok(bodies) => bodies,
            Err(error) => {
                tracing::warn!(device = %self.enrolment.device_id, %error, "operations could not be read");
                self.inputs.push_back(Input::Uploaded(UploadOutcome::Failed(mstore_engine::Fault::default())));
                return;
            }
        };
        let offset_ms = self.clock.offset_ms(wall().as_ms(), self.shared.moment());
        self.keep_clock_offset(offset_ms).await;
        let journal_id = serde_json::to_string(&self.journal_id).expect("text is always JSON");
        let body = format!(r#"{{"journal_id":{journal_id},"clock_offset_ms":{offset_ms},"operations":[{}]}}"#, bodies.join(","));
        tracing::debug!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, count, "uploading operations");
        let api = Arc::clone(&self.api);
        self.calls.spawn(async move { Done::Uploaded(api.upload(body).await) });
    }

    /// An export has no server to compare clocks with.
    async fn keep_clock_offset(&mut self, offset_ms: i64) {
        if (offset_ms - self.clock_kept_ms).abs() <= CLOCK_TOLERANCE_MS {
            return;
        }
        self.clock_kept_ms = offset_ms;
        if let Err(error) = self.with_db(false, move |db| db.keep_clock_offset(offset_ms)).await {
            tracing::warn!(device = %self.enrolment.device_id, %error, "the server's time could not be kept for an export");
        }
    }

    async fn settle_verdicts(&mut self, verdicts: Vec<Verdict>) {
        {
            let mut stats = held(&self.shared.stats);
            for verdict in &verdicts {
                match verdict.status {
                    VerdictStatus::Accepted => stats.operations_accepted += 1,
                    VerdictStatus::Duplicate => stats.operations_duplicate += 1,
                    VerdictStatus::Rejected => stats.operations_rejected += 1,
                }
            }
        }
        self.unsettled.extend(verdicts);
        self.write_verdicts().await;
    }

    /// Writes down the verdicts that are not on disk yet. What the disk does not take now it is given again a little later: the queue of the
    /// engine and that of the journal are the same again then.
    pub(super) async fn write_verdicts(&mut self) {
        let verdicts = std::mem::take(&mut self.unsettled);
        let (result, verdicts, dead_letters) = self
            .with_db(false, move |db| {
                let result = db.settle(&verdicts);
                (result, verdicts, db.dead_letter_count())
            })
            .await;
        self.dead_letters = dead_letters.unwrap_or(self.dead_letters);
        self.settle_at = None;
        if verdicts.iter().any(|verdict| verdict.status == VerdictStatus::Rejected) {
            // Somebody may have decided about them before: at the server, or here before it was restored.
            self.settle_dead_letters();
        }
        match result {
            Ok(requeued) => self.requeue_again(requeued).await,
            // A crash before that costs nothing: they are queued on disk still, asked again after the next start, and answered as duplicates.
            Err(error) => {
                tracing::error!(device = %self.enrolment.device_id, %error, "verdicts could not be written down; trying again");
                self.unsettled = verdicts;
                self.settle_at = Some(Instant::now() + SETTLE_RETRY);
            }
        }
    }

    /// Operations whose commit went by without naming them wait again.
    pub(super) async fn requeue_again(&mut self, requeued: bool) {
        if !requeued {
            return;
        }
        tracing::warn!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, "accepted operations were not in their commit; handing them in again");
        match self.with_db(false, |db| db.queue()).await {
            Ok(queue) => self.inputs.push_back(Input::Requeued(queue)),
            Err(error) => tracing::error!(device = %self.enrolment.device_id, %error, "the queue could not be read"),
        }
    }

    async fn requeue(&mut self) {
        match self.with_db(false, |db| db.requeue(wall())).await {
            Ok(queue) => self.inputs.push_back(Input::Requeued(queue)),
            Err(error) => tracing::error!(device = %self.enrolment.device_id, %error, "accepted operations could not be queued again"),
        }
    }
}
