//! Service levels: what devices and the publisher achieved, gathered here, written down every minute, and held against what was promised.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use mstore_protocol::{MerchantId, ServiceFigures, Timestamp};
use mstore_store::{Store, StoreError};
use serde::Serialize;
use utoipa::ToSchema;

const MINUTE_S: u32 = 60;
const HOUR_S: u32 = 3_600;

/// Figures that are not written down yet.
#[derive(Default)]
pub(crate) struct Levels {
    gathered: Mutex<BTreeMap<MerchantId, ServiceFigures>>,
}

impl Levels {
    pub(crate) fn add(&self, merchant: &MerchantId, figures: &ServiceFigures) {
        if !figures.is_empty() {
            self.lock().entry(merchant.clone()).or_default().add(figures);
        }
    }

    /// Writes down what was gathered; what cannot be written is kept for the next time.
    pub(crate) async fn write_down(&self, store: &dyn Store) -> Result<(), StoreError> {
        let gathered = std::mem::take(&mut *self.lock());
        if gathered.is_empty() {
            return Ok(());
        }
        let written = store.add_levels(gathered.clone()).await;
        if written.is_err() {
            gathered.iter().for_each(|(merchant, figures)| self.add(merchant, figures));
        }
        written
    }

    /// The figures of a window that ends now, of a merchant or of all, with what is not written down yet.
    pub(crate) async fn read(
        &self,
        store: &dyn Store,
        merchant: Option<&MerchantId>,
        window: &Window,
        now: Timestamp,
    ) -> Result<ServiceFigures, StoreError> {
        // Before the store is read: what is written down meanwhile is missed for once rather than counted twice.
        let gathered = self.lock().clone();
        let since = Timestamp::from_ms(now.as_ms() - window.length_ms());
        let mut sum = ServiceFigures::default();
        for span in store.levels(merchant, window.span_s, since).await? {
            sum.add(&span.figures);
        }
        let of = gathered.iter().filter(|(id, _)| merchant.is_none_or(|merchant| merchant == *id));
        of.for_each(|(_, figures)| sum.add(figures));
        Ok(sum)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<MerchantId, ServiceFigures>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A span of time that ends now.
pub(crate) struct Window {
    pub(crate) name: &'static str,
    /// The spans that it is made of, seconds.
    span_s: u32,
    spans: i64,
}

/// What is shown.
pub(crate) const WINDOWS: [Window; 4] = [
    Window { name: "5m", span_s: MINUTE_S, spans: 5 },
    Window { name: "1h", span_s: MINUTE_S, spans: 60 },
    Window { name: "24h", span_s: HOUR_S, spans: 24 },
    Window { name: "30d", span_s: HOUR_S, spans: 720 },
];

impl Window {
    fn length_ms(&self) -> i64 {
        i64::from(self.span_s) * self.spans * 1_000
    }
}

/// One promise, and whether it was kept.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Level {
    /// `publish_success`, `latency_p99_ms`, `fallback_rate` or `freshness`.
    pub(crate) name: &'static str,
    /// What was achieved; null when nothing was counted.
    pub(crate) value: Option<f64>,
    /// What must be achieved.
    pub(crate) target: f64,
    /// What we mean to achieve.
    pub(crate) goal: f64,
    /// Whether lower is better.
    pub(crate) lower_is_better: bool,
    /// Whether the target was met; null when nothing was counted.
    pub(crate) met: Option<bool>,
}

impl Level {
    fn at_least(name: &'static str, value: Option<f64>, [target, goal]: [f64; 2]) -> Self {
        Self { name, value, target, goal, lower_is_better: false, met: value.map(|value| value >= target) }
    }

    fn at_most(name: &'static str, value: Option<f64>, [target, goal]: [f64; 2]) -> Self {
        Self { name, value, target, goal, lower_is_better: true, met: value.map(|value| value <= target) }
    }

    /// All of them.
    pub(crate) fn of(figures: &ServiceFigures) -> [Self; 4] {
        [
            Self::at_least("publish_success", figures.publish_success(), [0.99, 0.9999]),
            Self::at_most("latency_p99_ms", p99_ms(figures), [100.0, 25.0]),
            Self::at_most("fallback_rate", figures.fallback_rate(), [0.01, 0.001]),
            Self::at_least("freshness", figures.freshness(), [0.999, 0.9999]),
        ]
    }
}

/// Beyond the last bound of the histogram (a minute) it reads as that bound.
#[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^52")]
fn p99_ms(figures: &ServiceFigures) -> Option<f64> {
    let last = figures.latency.bounds_ms.last().copied().unwrap_or(0);
    figures.latency.quantile_ms(0.99).map(|ms| ms.min(last) as f64)
}

#[cfg(test)]
mod tests {
    use mstore_protocol::LatencyHistogram;

    use super::*;

    #[test]
    fn what_was_not_counted_is_neither_met_nor_missed() {
        assert!(Level::of(&ServiceFigures::default()).iter().all(|level| level.value.is_none() && level.met.is_none()));
    }

    #[test]
    fn levels_are_held_against_their_targets() {
        let figures = ServiceFigures {
            changes_mqtt: 98,
            changes_fallback: 2,
            online_ms: 1_000,
            fresh_ms: 999,
            frames_attempted: 100,
            frames_acknowledged: 100,
            latency: LatencyHistogram { bounds_ms: vec![25, 250], counts: vec![98, 2, 0] },
        };
        let met: Vec<_> = Level::of(&figures).iter().map(|level| (level.name, level.met)).collect();
        let wanted = [("publish_success", true), ("latency_p99_ms", false), ("fallback_rate", false), ("freshness", true)];
        assert_eq!(met, wanted.map(|(name, met)| (name, Some(met))));
    }
}
