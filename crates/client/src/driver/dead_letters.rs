//! Tells the server what was decided here about rejected operations, and hears what was decided there: with every report, and after every decision.

use std::sync::{Arc, Mutex};

use mstore_protocol::{DeadLetterReport, limits::OPERATIONS_PER_UPLOAD_MAX};

use super::{Done, Driver, with_db};
use crate::{db::LocalDb, http::Api};

impl Driver {
    /// One conversation at a time; what is asked for meanwhile is the next.
    pub(super) fn settle_dead_letters(&mut self) {
        if !*self.shared.online.borrow() {
            return;
        }
        if self.settling {
            self.settle_again = true;
            return;
        }
        self.settling = true;
        let (api, db, journal_id) = (Arc::clone(&self.api), Arc::clone(&self.shared.db), self.journal_id.clone());
        self.calls.spawn(async move { Done::Settled(settle(&api, &db, journal_id).await) });
    }

    /// A conversation is over; `heard` when there was one.
    pub(super) fn dead_letters_settled(&mut self, heard: bool) {
        self.settling = false;
        self.recount |= heard;
        if std::mem::take(&mut self.settle_again) {
            self.settle_dead_letters();
        }
    }
}

/// Whether anything was said, so that the dead letters are worth counting again.
async fn settle(api: &Api, db: &Arc<Mutex<LocalDb>>, journal_id: String) -> bool {
    let mut has_spoken = false;
    loop {
        let undecided = match with_db(db, true, |db| db.undecided()).await {
            Ok(undecided) => undecided,
            Err(error) => {
                tracing::warn!(%error, "dead letters could not be read");
                return has_spoken;
            }
        };
        if undecided.decided.is_empty() && undecided.open.is_empty() {
            return has_spoken;
        }
        let has_more = undecided.decided.len() == OPERATIONS_PER_UPLOAD_MAX;
        let report = DeadLetterReport { journal_id: journal_id.clone(), decided: undecided.decided, open: undecided.open };
        let answer = match api.settle_dead_letters(&report).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(?error, "dead letters were not settled with the server; the next report does");
                return has_spoken;
            }
        };
        has_spoken = true;
        if let Err(error) = with_db(db, true, move |db| db.settled(&report.decided, &answer.decisions)).await {
            tracing::warn!(%error, "decisions about dead letters could not be written down");
            return has_spoken;
        }
        if !has_more {
            return has_spoken;
        }
    }
}
