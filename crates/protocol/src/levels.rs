//! What a fleet achieved in a span of time: sums that add up over devices, servers and spans, and the shares that operators look at.

use serde::{Deserialize, Serialize};

use crate::{DeviceReport, LatencyHistogram};

/// Upper bounds of the buckets of a commit → applied latency, milliseconds.
pub const LATENCY_BOUNDS_MS: [u64; 16] = [1, 2, 3, 4, 5, 8, 12, 20, 35, 60, 100, 250, 500, 1_000, 5_000, 60_000];
/// More than this of anything in one report is nonsense: a day in milliseconds.
const COUNT_MAX: u64 = 86_400_000;

/// Sums of one span of time. Figures of two spans, of two merchants, from two servers add up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceFigures {
    /// Rows that frames changed on devices.
    pub changes_mqtt: u64,
    /// Rows that came by HTTP although MQTT should have brought them.
    pub changes_fallback: u64,
    /// Milliseconds in which devices had a network, summed over devices.
    pub online_ms: u64,
    /// Of these: less than 1 s behind the head.
    pub fresh_ms: u64,
    /// Frames handed to the broker, retries included.
    pub frames_attempted: u64,
    /// Frames that the broker acknowledged.
    pub frames_acknowledged: u64,
    /// Commit → applied, of what came over MQTT.
    pub latency: LatencyHistogram,
}

impl ServiceFigures {
    /// What a report adds to the one before it. Counters count from the start of the app: a report of a later start counts whole. A device that reports
    /// nonsense does not outweigh all others: figures are bounded, and latencies counted by our own bounds.
    pub fn between(before: Option<&DeviceReport>, report: &DeviceReport) -> Self {
        let grown = |name: &str| report.counted_since(before, name).min(COUNT_MAX);
        let mut latency = LatencyHistogram::standard();
        latency.add(&report.same_start(before).map_or_else(|| report.latency.clone(), |before| report.latency.since(&before.latency)));
        latency.counts.iter_mut().for_each(|count| *count = (*count).min(COUNT_MAX));
        Self {
            changes_mqtt: grown("changes_mqtt"),
            changes_fallback: grown("changes_fallback"),
            online_ms: grown("online_ms"),
            fresh_ms: grown("fresh_ms"),
            latency,
            ..Self::default()
        }
    }

    /// Adds the figures of others.
    pub fn add(&mut self, other: &Self) {
        self.changes_mqtt = self.changes_mqtt.saturating_add(other.changes_mqtt);
        self.changes_fallback = self.changes_fallback.saturating_add(other.changes_fallback);
        self.online_ms = self.online_ms.saturating_add(other.online_ms);
        self.fresh_ms = self.fresh_ms.saturating_add(other.fresh_ms);
        self.frames_attempted = self.frames_attempted.saturating_add(other.frames_attempted);
        self.frames_acknowledged = self.frames_acknowledged.saturating_add(other.frames_acknowledged);
        self.latency.add(&other.latency);
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self { latency: self.latency.clone(), ..Self::default() } && self.latency.count() == 0
    }

    /// Share of the frames handed to the broker that it acknowledged; none when there were none.
    pub fn publish_success(&self) -> Option<f64> {
        // A frame may be acknowledged in the span after the one in which it was handed over.
        share(self.frames_acknowledged.min(self.frames_attempted), self.frames_attempted)
    }

    /// Share of the changes that came by HTTP although MQTT should have brought them; none when there were none.
    pub fn fallback_rate(&self) -> Option<f64> {
        share(self.changes_fallback, self.changes_mqtt + self.changes_fallback)
    }

    /// Share of the time with a network in which devices were fresh; none when there was none.
    pub fn freshness(&self) -> Option<f64> {
        share(self.fresh_ms.min(self.online_ms), self.online_ms)
    }
}

impl DeviceReport {
    /// How much a counter grew since the report before. Counters begin with the app: in the first report of a start they count whole.
    pub fn counted_since(&self, before: Option<&Self>, counter: &str) -> u64 {
        let count = |report: &Self| report.counters.get(counter).copied().unwrap_or(0);
        count(self).saturating_sub(self.same_start(before).map_or(0, count))
    }

    /// The report before, if it counts from the same start of the app. Clients that do not say when they started show another one by a counter that fell.
    fn same_start<'a>(&self, before: Option<&'a Self>) -> Option<&'a Self> {
        before.filter(|before| {
            before.started_at == self.started_at
                && before.counters.iter().all(|(name, count)| self.counters.get(name).is_none_or(|now| now >= count))
        })
    }
}

impl LatencyHistogram {
    /// Empty, with the bounds that devices use.
    pub fn standard() -> Self {
        Self { bounds_ms: LATENCY_BOUNDS_MS.to_vec(), counts: vec![0; LATENCY_BOUNDS_MS.len() + 1] }
    }

    /// How many latencies it holds.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Adds another one. Counts of other bounds go to the next higher bound here; nothing looks faster than it was.
    pub fn add(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.clone_from(other);
            return;
        }
        self.counts.resize(self.bounds_ms.len() + 1, 0);
        for (i, count) in other.counts.iter().enumerate() {
            let bound = other.bounds_ms.get(i).copied().unwrap_or(u64::MAX);
            let at = self.bounds_ms.iter().position(|here| bound <= *here).unwrap_or(self.bounds_ms.len());
            self.counts[at] = self.counts[at].saturating_add(*count);
        }
    }

    /// What came after an earlier state of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        if self.bounds_ms != earlier.bounds_ms {
            return self.clone();
        }
        let before = |i: usize| earlier.counts.get(i).copied().unwrap_or(0);
        let counts = self.counts.iter().enumerate().map(|(i, count)| count.saturating_sub(before(i))).collect();
        Self { bounds_ms: self.bounds_ms.clone(), counts }
    }

    /// The bound, milliseconds, that a share (0 to 1) of the latencies does not exceed; none when there are none, `u64::MAX` beyond the last bound.
    pub fn quantile_ms(&self, wanted: f64) -> Option<u64> {
        let all = self.count();
        let mut below: u64 = 0;
        for (i, count) in self.counts.iter().enumerate() {
            below = below.saturating_add(*count);
            if share(below, all)? >= wanted {
                return Some(self.bounds_ms.get(i).copied().unwrap_or(u64::MAX));
            }
        }
        None
    }

    /// Share of the latencies within so many milliseconds, which should be a bound; none when there are none.
    pub fn within(&self, ms: u64) -> Option<f64> {
        let within = self.bounds_ms.iter().zip(&self.counts).filter(|(bound, _)| **bound <= ms);
        share(within.fold(0, |sum: u64, (_, count)| sum.saturating_add(*count)), self.count())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{DeviceState, Timestamp};

    fn report(started: i64, fresh_ms: u64, counts: [u64; 3]) -> DeviceReport {
        DeviceReport {
            state: DeviceState::Live,
            cursor: None,
            digests: BTreeMap::new(),
            queue_depth: 0,
            oldest_pending_s: 0,
            dead_letters: 0,
            upload_refused: false,
            counters: [("fresh_ms".to_owned(), fresh_ms), ("online_ms".to_owned(), fresh_ms + 5)].into(),
            latency: LatencyHistogram { bounds_ms: vec![5, 100], counts: counts.to_vec() },
            last_error: None,
            started_at: Some(Timestamp::from_ms(started)),
            device_time: Timestamp::from_ms(0),
            client_version: String::new(),
        }
    }

    #[test]
    fn reports_of_one_start_count_what_grew() {
        let (first, second) = (report(1, 100, [3, 1, 0]), report(1, 160, [5, 1, 1]));
        let grown = ServiceFigures::between(Some(&first), &second);
        assert_eq!((grown.fresh_ms, grown.online_ms, grown.latency.count()), (60, 60, 3));
        assert_eq!((grown.latency.within(5), grown.latency.quantile_ms(1.0)), (Some(2.0 / 3.0), Some(u64::MAX)));
        assert_eq!(ServiceFigures::between(None, &first).fresh_ms, 100);
    }

    #[test]
    fn another_start_counts_whole() {
        let before = report(1, 100, [3, 0, 0]);
        assert_eq!(ServiceFigures::between(Some(&before), &report(2, 160, [5, 0, 0])).fresh_ms, 160, "it says so");
        let silent = |report| DeviceReport { started_at: None, ..report };
        let fallen = ServiceFigures::between(Some(&silent(before)), &silent(report(0, 40, [1, 0, 0])));
        assert_eq!((fallen.fresh_ms, fallen.latency.count()), (40, 1), "a counter fell");
    }

    #[test]
    fn shares_are_of_what_there_was() {
        let mut sum = ServiceFigures::between(None, &report(1, 95, [98, 1, 1]));
        assert_eq!((sum.fallback_rate(), sum.publish_success()), (None, None));
        assert_eq!(sum.freshness(), Some(0.95));
        assert_eq!(
            (sum.latency.quantile_ms(0.5), sum.latency.quantile_ms(0.99), sum.latency.quantile_ms(1.0)),
            (Some(5), Some(100), Some(u64::MAX))
        );
        assert_eq!(sum.latency.within(100), Some(0.99));
        sum.add(&ServiceFigures {
            changes_mqtt: 3,
            changes_fallback: 1,
            frames_attempted: 4,
            frames_acknowledged: 5,
            ..ServiceFigures::default()
        });
        assert_eq!((sum.fallback_rate(), sum.publish_success()), (Some(0.25), Some(1.0)));
        assert!(!sum.is_empty() && ServiceFigures::default().is_empty());
    }

    #[test]
    fn nonsense_is_bounded() {
        let mut sum = ServiceFigures::between(None, &report(1, u64::MAX - 5, [u64::MAX, u64::MAX, 1]));
        assert_eq!((sum.fresh_ms, sum.latency.count()), (COUNT_MAX, 2 * COUNT_MAX + 1));
        sum.add(&ServiceFigures { changes_mqtt: u64::MAX, ..ServiceFigures::default() });
        sum.add(&ServiceFigures { changes_mqtt: 1, ..ServiceFigures::default() });
        assert_eq!(sum.changes_mqtt, u64::MAX);
        assert_eq!(sum.latency.bounds_ms, LATENCY_BOUNDS_MS);
    }

    #[test]
    fn histograms_of_other_bounds_look_no_faster() {
        let mut here = LatencyHistogram { bounds_ms: vec![10, 100], counts: vec![1, 0, 0] };
        here.add(&LatencyHistogram { bounds_ms: vec![5, 50, 500], counts: vec![1, 1, 1, 1] });
        assert_eq!(here.counts, [2, 1, 2]);
    }
}
