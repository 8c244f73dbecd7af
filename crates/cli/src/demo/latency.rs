//! Commit → applied latencies of a till, gathered while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;
use mstore_client::{AppliedCommit, Client, Via};

/// Latencies in microseconds, up to a minute.
pub(crate) struct LatencyLog {
    histogram: Mutex<Histogram<u64>>,
}

impl LatencyLog {
    const US_MAX: u64 = 60_000_000;

    /// An empty histogram of the right range.
    pub(crate) fn histogram() -> Histogram<u64> {
        Histogram::new_with_bounds(1, Self::US_MAX, 3).expect("constant bounds")
    }

    /// Follows a client's commits until it closes; those that came by MQTT while it had a network count.
    pub(crate) fn follow(client: &Client) -> Arc<Self> {
        let log = Arc::new(Self { histogram: Mutex::new(Self::histogram()) });
        let (mut applied, target) = (client.applied(), log.clone());
        tokio::spawn(async move {
            loop {
                match applied.recv().await {
                    Ok(commit) => target.record(&commit),
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        log
    }

    fn record(&self, commit: &AppliedCommit) {
        if let (Via::Mqtt, Some(at)) = (commit.via, commit.at) {
            // Both clocks are this machine's, both in milliseconds.
            let us = u64::try_from((commit.applied_at.as_ms() - at.as_ms()) * 1000).unwrap_or(0);
            self.histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(us.max(1));
        }
    }

    /// Adds what was gathered to a histogram of many tills.
    pub(crate) fn add_to(&self, sum: &mut Histogram<u64>) {
        let own = self.histogram.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(&*own).expect("the same bounds");
    }
}
