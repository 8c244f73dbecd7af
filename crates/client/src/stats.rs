//! Figures about a client since it was opened, and how they are counted.

use mstore_engine::Counters;
use mstore_protocol::{Cursor, LastError, LatencyHistogram, Seq, Timestamp};

/// How a commit came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// As frames.
    Mqtt,
    /// In an answer of `/changes`.
    Http,
}

/// Something that became visible on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedCommit {
    /// The last commit it contains.
    pub seq: Seq,
    /// The server's time of the commit; not known for what came by HTTP.
    pub at: Option<Timestamp>,
    /// This device's time when it was on disk and visible.
    pub applied_at: Timestamp,
    /// The same on the monotonic clock, for measuring finer than milliseconds.
    pub applied_instant: std::time::Instant,
    /// Rows put, patched or deleted.
    pub changes: u64,
    /// How it came.
    pub via: Via,
    /// Came by HTTP although the device had a network all the time: MQTT should have brought it.
    pub is_fallback: bool,
    /// The cursor then.
    pub cursor: Cursor,
}

/// Figures since the client was opened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Commits that came as frames.
    pub commits_mqtt: u64,
    /// Answers of `/changes` that showed something.
    pub commits_http: u64,
    /// Rows changed by frames.
    pub changes_mqtt: u64,
    /// Rows changed by answers of `/changes`.
    pub changes_http: u64,
    /// Of these: while the device had a network and MQTT should have brought them.
    pub changes_fallback: u64,
    /// Counted by the engine: frames, gaps, catch-ups, snapshots, polls, …
    pub engine: Counters,
    /// Payload and topic bytes received over MQTT.
    pub mqtt_bytes: u64,
    /// Bytes received over HTTP: bodies as they are on the wire (compressed), and headers.
    pub http_bytes_in: u64,
    /// Bytes sent over HTTP.
    pub http_bytes_out: u64,
    /// Frames and heads that could not be understood.
    pub malformed: u64,
    /// Operations that the server has judged: accepted, rejected, known before.
    pub operations_accepted: u64,
    /// Rejected for good.
    pub operations_rejected: u64,
    /// Accepted before: an answer had been lost.
    pub operations_duplicate: u64,
    /// Seconds in which the device had a network.
    pub online_s: f64,
    /// Of these: less than 1 s behind the head, as far as what came later told.
    pub fresh_s: f64,
    /// Commit → applied, of what came over MQTT.
    pub latency: LatencyHistogram,
    /// The last request that the server refused.
    pub last_error: Option<LastError>,
}

impl Stats {
    /// Share of the changes which came by HTTP although MQTT should have brought them.
    pub fn fallback_rate(&self) -> f64 {
        let all = self.changes_mqtt + self.changes_fallback;
        if all == 0 { 0.0 } else { self.changes_fallback as f64 / all as f64 }
    }

    /// Share of the time with a network in which the device was fresh; 1 when there was none.
    pub fn freshness(&self) -> f64 {
        if self.online_s > 0.0 { self.fresh_s / self.online_s } else { 1.0 }
    }
}

/// Puts one latency into the histogram.
pub(crate) fn record(histogram: &mut LatencyHistogram, ms: u64) {
    if histogram.counts.is_empty() {
        *histogram = LatencyHistogram::standard();
    }
    let bounds = &histogram.bounds_ms;
    let bucket = bounds.iter().position(|bound| ms <= *bound).unwrap_or(bounds.len());
    histogram.counts[bucket] += 1;
}

/// Behind by less than this counts as fresh, milliseconds.
const FRESH_WITHIN_MS: i64 = 1_000;

/// Adds up the time with a network and the time behind the head. Intervals are joined, so nothing counts twice.
#[derive(Debug)]
pub(crate) struct Freshness {
    online_since_ms: Option<i64>,
    online_ms: i64,
    stale_ms: i64,
    counted_to_ms: i64,
}

impl Freshness {
    pub(crate) fn new() -> Self {
        Self { online_since_ms: None, online_ms: 0, stale_ms: 0, counted_to_ms: i64::MIN }
    }

    pub(crate) fn online(&mut self, now_ms: i64, online: bool) {
        match (self.online_since_ms, online) {
            (None, true) => self.online_since_ms = Some(now_ms),
            (Some(since), false) => {
                self.online_ms += now_ms - since;
                self.online_since_ms = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// Something that was true at the server since `since_ms` became visible now.
    pub(crate) fn shown(&mut self, since_ms: i64, now_ms: i64) {
        let Some(online_since) = self.online_since_ms else { return };
        let from = (since_ms + FRESH_WITHIN_MS).max(online_since).max(self.counted_to_ms);
        if now_ms > from {
            self.stale_ms += now_ms - from;
            self.counted_to_ms = now_ms;
        }
    }

    /// Milliseconds (online, fresh).
    pub(crate) fn milliseconds(&self, now_ms: i64) -> (u64, u64) {
        let online = self.online_ms + self.online_since_ms.map_or(0, |since| now_ms - since);
        // A clock that was set back makes no time.
        let counted = |ms: i64| u64::try_from(ms).unwrap_or(0);
        (counted(online), counted(online - self.stale_ms))
    }

    /// (seconds online, seconds fresh).
    pub(crate) fn seconds(&self, now_ms: i64) -> (f64, f64) {
        let (online, fresh) = self.milliseconds(now_ms);
        (online as f64 / 1000.0, fresh as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_time_is_counted_once_and_only_with_a_network() {
        let mut freshness = Freshness::new();
        freshness.online(0, true);
        freshness.shown(5_000, 5_010); // at once
        freshness.shown(10_000, 13_000); // 2 s too late
        freshness.shown(11_000, 13_500); // joins: 0.5 s more
        freshness.online(20_000, false);
        freshness.shown(21_000, 30_000); // no network: nobody's fault
        freshness.online(40_000, true);
        freshness.shown(21_000, 42_000); // back for 2 s before it showed this
        assert_eq!(freshness.seconds(50_000), (30.0, 25.5));
    }

    #[test]
    fn latencies_fall_into_their_buckets() {
        let mut histogram = LatencyHistogram::default();
        for ms in [0, 1, 2, 13, 100_000] {
            record(&mut histogram, ms);
        }
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[7], histogram.counts[16]), (2, 1, 1, 1));
    }
}
