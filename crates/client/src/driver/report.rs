//! The device's report to the server: every minute, and soon after its state changed.

use std::{sync::Arc, time::Duration};

use mstore_protocol::DeviceReport;
use tokio::time::Instant;

use super::{Done, Driver};
use crate::shared::{held, wall};

/// States that come and go within this are not worth a report.
pub(super) const DEBOUNCE: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn report_soon(&mut self) {
        if let Some(at) = &mut self.report_at {
            *at = (*at).min(Instant::now() + DEBOUNCE);
        }
    }

    pub(super) fn report_if_due(&mut self) {
        if self.report_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.report_at = self.options.report_interval.map(|interval| Instant::now() + interval);
        self.settle_dead_letters();
        let report = self.report();
        let api = Arc::clone(&self.api);
        self.calls.spawn(async move {
            Done::Reported(api.report(&report).await.unwrap_or_else(|error| {
                tracing::debug!(?error, "the report did not reach the server");
                false
            }))
        });
    }

    fn report(&self) -> DeviceReport {
        let status = self.session.status();
        let now = wall();
        let digests = self.shared.db.try_lock().map(|db| db.digests().clone()).unwrap_or_default();
        let stats = held(&self.shared.stats).clone();
        let (online_ms, fresh_ms) = held(&self.shared.freshness).milliseconds(now.as_ms());
        let oldest_ms = status.oldest_pending.map_or(0, |at| now.as_ms() - at.as_ms());
        DeviceReport {
            state: status.state,
            cursor: status.cursor,
            digests,
            queue_depth: status.queue_depth as u64,
            oldest_pending_s: u64::try_from(oldest_ms / 1000).unwrap_or(0),
            dead_letters: self.dead_letters,
            upload_refused: status.upload_refused,
            counters: counters(&stats)
                .chain([("online_ms", online_ms), ("fresh_ms", fresh_ms)])
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            latency: stats.latency,
            last_error: stats.last_error,
            started_at: Some(self.shared.started_at),
            device_time: now,
            client_version: self.options.client_version.clone(),
        }
    }
}

fn counters(stats: &crate::Stats) -> impl Iterator<Item = (&'static str, u64)> {
    let engine = &stats.engine;
    [
        ("commits_mqtt", stats.commits_mqtt),
        ("commits_http", stats.commits_http),
        ("changes_mqtt", stats.changes_mqtt),
        ("changes_http", stats.changes_http),
        ("changes_fallback", stats.changes_fallback),
        ("frames", engine.frames),
        ("gaps", engine.gaps),
        ("catch_ups", engine.catch_ups),
        ("snapshots", engine.snapshots),
        ("polls", engine.polls),
        ("not_modified", engine.not_modified),
        ("digest_mismatches", engine.digest_mismatches),
        ("ranges_repaired", engine.ranges_repaired),
        ("renumberings", engine.renumberings),
        ("disconnects", engine.disconnects),
        ("uploads", engine.uploads),
        ("operations_accepted", stats.operations_accepted),
        ("operations_rejected", stats.operations_rejected),
        ("mqtt_bytes", stats.mqtt_bytes),
        ("http_bytes_in", stats.http_bytes_in),
        ("http_bytes_out", stats.http_bytes_out),
        ("malformed", stats.malformed),
    ]
    .into_iter()
}
