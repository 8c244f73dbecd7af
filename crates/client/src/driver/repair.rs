//! Effects that find and mend what is not as the server has it: counting, comparing, fetching ranges, putting them in place.

use std::sync::Arc;

use mstore_engine::{ApplyFault, Fault, Input};
use mstore_protocol::{Collection, Cursor};

use super::{Done, Driver, with_db};
use crate::db::{Applied, DbError, FetchedRange, recount};

impl Driver {
    /// Reads every row beside whatever else goes on, on a connection of its own.
    pub(super) fn recount(&mut self) {
        let path = self.shared.path.clone();
        let device = self.enrolment.device_id.clone();
        self.calls.spawn(async move {
            match tokio::task::spawn_blocking(move || recount(&path)).await {
                Ok(Ok(counted)) => Done::Recounted(counted),
                Ok(Err(error)) => {
                    tracing::warn!(%device, %error, "the local rows could not be counted");
                    Done::Recounted(None)
                }
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down.
                Err(_) => Done::Recounted(None),
            }
        });
    }

    pub(super) fn compare(&mut self, collection: Collection) {
        tracing::warn!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, %collection, "digests differ; looking for the rows");
        let (api, db) = (Arc::clone(&self.api), Arc::clone(&self.shared.db));
        self.calls.spawn(async move {
            let (at, theirs) = match api.sub_digests(&collection).await {
                Ok(answer) => answer,
                Err(error) => return Done::Compared(Err(error.fault())),
            };
            let compared = with_db(&db, true, move |db| db.compare(&collection, at, &theirs)).await;
            Done::Compared(compared.map_err(|error| {
                tracing::warn!(%error, "local digests could not be computed");
                Fault::default()
            }))
        });
    }

    pub(super) fn fetch_rows(&mut self, collection: Collection, ranges: Vec<u8>) {
        let api = Arc::clone(&self.api);
        self.calls.spawn(async move {
            let answer = api.rows(&collection, &ranges).await;
            Done::Rows(answer.map(|(at, rows)| (at, FetchedRange { collection, ranges, rows })).map_err(|error| error.fault()))
        });
    }

    pub(super) async fn replace_ranges(&mut self, collection: Collection, ranges: Vec<u8>) {
        let place = self.fetched.iter().position(|held| held.collection == collection && held.ranges == ranges);
        let fetched = match place {
            Some(place) => self.fetched.swap_remove(place),
            // Nothing differs but a stored sum or hash: only they are written anew.
            None if ranges.is_empty() => FetchedRange { collection, ranges, rows: Vec::new() },
            None => return,
        };
        let (count, rows) = (fetched.ranges.len(), fetched.rows.len());
        tracing::warn!(device = %self.enrolment.device_id, collection = %fetched.collection, ranges = count, rows, "rows repaired");
        let (result, cursor, digests) = self
            .with_db(true, move |db| {
                let result = db.replace_ranges(&fetched);
                (result, db.cursor(), db.digests().clone())
            })
            .await;
        match (result, cursor) {
            (Ok(()), Some(cursor)) => self.inputs.push_back(Input::Applied { cursor, digests }),
            (Ok(()), None) => {}
            (Err(error), cursor) => {
                tracing::warn!(device = %self.enrolment.device_id, %error, "rows could not be repaired");
                self.inputs.push_back(Input::ApplyFailed { cursor, fault: ApplyFault::Storage });
            }
        }
    }

    /// Another numbering, with the ranges that differed.
    pub(super) async fn renumber(&mut self, to: Cursor) {
        let (staged, fetched) = (self.staged.take().unwrap_or_default(), std::mem::take(&mut self.fetched));
        let rows = fetched.iter().map(|held| held.rows.len()).sum::<usize>();
        tracing::warn!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, %to, rows, "another numbering: what differed was fetched");
        let (result, state) = self
            .with_db(true, move |db| {
                let result: Result<Applied, DbError> = db.renumber(&staged, &fetched, to);
                (result, (db.cursor(), db.digests().clone()))
            })
            .await;
        self.shown(to, result, state, false).await;
    }
}
