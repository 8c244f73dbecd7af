//! What was handed to the broker and is not acknowledged yet, in order: its oldest entry is where everything begins again after a break.

use std::{collections::VecDeque, future::pending, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use mstore_broker::{PublishError, Receipt};
use mstore_protocol::{BranchKey, Collection, Timestamp};
use tokio::time::Instant;

/// A message on its way.
pub(super) struct Flying {
    /// Its outbox entry; heads of the schedule have none.
    pub(super) entry: Option<u64>,
    pub(super) key: BranchKey,
    /// `None` for a head.
    pub(super) collection: Option<Collection>,
    /// When its commit was made; of a frame.
    pub(super) committed: Option<Timestamp>,
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) handed_over: Instant,
}

impl Flying {
    pub(super) fn round_trip(&self) -> Duration {
        self.handed_over.elapsed()
    }
}

/// A message and what the broker said.
pub(super) type Landed = (Flying, Result<(), PublishError>);

/// Messages on their way, oldest first. Bounded by the broker: it takes no more than it may have in flight.
#[derive(Default)]
pub(super) struct Window(VecDeque<(Flying, Receipt)>);

impl Window {
    pub(super) fn push(&mut self, flying: Flying, receipt: Receipt) {
        self.0.push_back((flying, receipt));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The oldest, when the broker has spoken; waits for ever if nothing is on its way. Nothing is lost when it is dropped before.
    pub(super) async fn landed(&mut self) -> Landed {
        let Some((_, receipt)) = self.0.front_mut() else { return pending().await };
        let said = receipt.await;
        let (flying, _receipt) = self.0.pop_front().expect("it was there a line ago");
        (flying, said)
    }

    /// The oldest, if the broker has spoken already.
    pub(super) fn landed_already(&mut self) -> Option<Landed> {
        self.landed().now_or_never()
    }

    /// Forgets everything; the first outbox entry of it, and how many there were.
    pub(super) fn clear(&mut self) -> (Option<u64>, usize) {
        let entries: Vec<u64> = self.0.drain(..).filter_map(|(flying, _)| flying.entry).collect();
        (entries.first().copied(), entries.len())
    }
}
