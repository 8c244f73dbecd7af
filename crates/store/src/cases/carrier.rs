//! Who carries use cases out: a store that has transactions, sequences what they changed and then answers.

use std::future::Future;

use mstore_protocol::{BranchKey, DeviceId, Verdict};

use super::{Case, Seen, Size, Work, alarms, events::Outcome, listing, ops, writes};
use crate::{AcceptUpload, Listing, Page, SourceWrite, StoreError, Written, sql::Sql};

/// A store as the use cases see it.
pub(crate) trait Carrier: Send + Sync {
    /// Runs a case in a transaction, sequences the branches it touched, and makes the answer. The case is run again when its transaction was lost for a reason
    /// that passes.
    fn carry<T: Send + 'static, R: Send + 'static>(
        &self,
        case: impl Into<Case> + Send,
        run: impl FnMut(&mut Work<'_>) -> Result<T, StoreError> + Send + 'static,
        finish: impl FnOnce(T, &Seen) -> R + Send + 'static,
    ) -> impl Future<Output = Result<R, StoreError>> + Send;

    /// Runs a read; everything it sees belongs together.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send;
}

/// Writes to the source tables.
pub(crate) async fn write(store: &impl Carrier, write: SourceWrite) -> Result<Written, StoreError> {
    let event_at = if let SourceWrite::Event { key, .. } = &write { Some(key.clone()) } else { None };
    let case = writes::case(&write);
    let run = move |work: &mut Work<'_>| writes::perform(work, &write);
    let finish = move |outcome, seen: &Seen| match outcome {
        Outcome::Written => Written { seqs: seen.commits.clone(), duplicate: false, durable_at_us: seen.durable_at_us },
        Outcome::Duplicate(seq) => {
            Written { seqs: event_at.zip(seq).into_iter().collect(), duplicate: true, durable_at_us: seen.durable_at_us }
        }
    };
    store.carry(case, run, finish).await
}

/// Judges an upload and carries out what it accepts.
pub(crate) async fn accept(store: &impl Carrier, upload: AcceptUpload) -> Result<Vec<Verdict>, StoreError> {
    let key = upload.key.clone();
    let case = Size::of(upload.operations.len()).at(&key);
    store.carry(case, move |work| ops::accept(work, &upload), move |judged, seen| ops::answer(judged, &key, seen)).await
}

/// One page of a listing.
pub(crate) async fn list(store: &impl Carrier, listing: Listing, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
    let after = after.map(str::to_owned);
    store.read(move |sql| listing::page(sql, &listing, after.as_deref(), limit)).await
}

/// Raises an alarm.
pub(crate) async fn alarm(
    store: &impl Carrier,
    kind: &str,
    key: Option<&BranchKey>,
    device: Option<&DeviceId>,
    detail: &str,
) -> Result<(), StoreError> {
    let (kind, key, device, detail) = (kind.to_owned(), key.cloned(), device.cloned(), detail.to_owned());
    let run = move |work: &mut Work<'_>| alarms::raise(work.sql, work.now, &kind, key.as_ref(), device.as_ref(), &detail).map(|_| ());
    store.carry(Size::Small, run, |(), _| ()).await
}
