//! Whether every till is fresh: what devices report, taken together. Looked over every half minute, so that a till that fell silent counts, too.

mod health;
mod levels;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

pub(crate) use health::{Health, Seen};
pub(crate) use levels::{Level, Levels, WINDOWS};
use mstore_protocol::{BranchKey, DeviceId, DeviceReport, Seq, Timestamp};
use mstore_store::{DeviceRecord, DeviceStatus, Store, StoreError};
use serde::Serialize;
use utoipa::ToSchema;

/// A look costs a twentieth of a processor at most: the pause after it is so many times as long.
const PAUSE_PER_LOOK: u32 = 20;
const DEVICES_PER_PAGE: usize = 500;
/// Devices that somebody should look at first.
const WORST_MAX: usize = 100;

/// The devices of a branch, or of all, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Tills {
    /// Enrolled and not revoked.
    pub(crate) devices: u64,
    /// Of these: live, with everything that the branch had at the look before.
    pub(crate) fresh: u64,
    /// Fetching what they miss, or polling because MQTT is down; they say so themselves.
    pub(crate) catching_up: u64,
    /// Stale: silent for over 150 s, refused, or behind without saying so.
    pub(crate) stale: u64,
    /// Operations that wait on devices, as they reported last.
    pub(crate) queue: u64,
    /// Age of the oldest of them, seconds: what was reported, and the time since.
    pub(crate) queue_oldest_s: u64,
    /// Dead letters on devices.
    pub(crate) dead_letters: u64,
}

impl Tills {
    fn add(&mut self, device: &Till) {
        self.devices += 1;
        match device.health {
            Health::Fresh => self.fresh += 1,
            Health::CatchingUp | Health::Polling => self.catching_up += 1,
            Health::NeverReported | Health::Behind | Health::Silent | Health::Blocked => self.stale += 1,
        }
        self.queue += device.queue;
        self.queue_oldest_s = self.queue_oldest_s.max(device.queue_oldest_s);
        self.dead_letters += device.dead_letters;
    }

    fn merge(&mut self, other: &Self) {
        self.devices += other.devices;
        self.fresh += other.fresh;
        self.catching_up += other.catching_up;
        self.stale += other.stale;
        self.queue += other.queue;
        self.queue_oldest_s = self.queue_oldest_s.max(other.queue_oldest_s);
        self.dead_letters += other.dead_letters;
    }
}

/// One device, as the last look found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Till {
    #[schema(value_type = String)]
    pub(crate) device_id: DeviceId,
    #[serde(skip)]
    pub(crate) key: BranchKey,
    pub(crate) name: String,
    pub(crate) health: Health,
    #[schema(value_type = Option<String>)]
    pub(crate) reported_at: Option<Timestamp>,
    pub(crate) queue: u64,
    pub(crate) queue_oldest_s: u64,
    pub(crate) dead_letters: u64,
}

impl Till {
    fn of(record: DeviceRecord, heads: &Heads, now: Timestamp) -> Self {
        let report: Option<DeviceReport> = record.report.and_then(|report| serde_json::from_value(report).ok());
        let reported_at = record.reported_at;
        let health = Health::of(
            report.as_ref().zip(reported_at).map(|(report, at)| Seen { report, at, branch_had: heads.before(&record.key, at) }),
            now,
        );
        let silent_s = reported_at.map_or(0, |at| u64::try_from((now.as_ms() - at.as_ms()) / 1_000).unwrap_or(0));
        let report = report.as_ref();
        let queue = report.map_or(0, |report| report.queue_depth);
        Self {
            device_id: record.device,
            key: record.key,
            name: record.name,
            health,
            reported_at,
            queue,
            queue_oldest_s: if queue > 0 { report.map_or(0, |report| report.oldest_pending_s) + silent_s } else { 0 },
            dead_letters: report.map_or(0, |report| report.dead_letters),
        }
    }

    /// Worst first: health, then what waits on it.
    fn rank(&self) -> (Health, u64, u64) {
        (self.health, self.queue_oldest_s, self.dead_letters)
    }
}

/// Where the branches were at the last look: what a device that reported after it must have.
#[derive(Debug, Default)]
struct Heads {
    at: Option<Timestamp>,
    seqs: HashMap<BranchKey, (mstore_protocol::Epoch, Seq)>,
}

impl Heads {
    /// A report takes its way, and frames theirs.
    const GRACE_MS: i64 = 10_000;

    fn before(&self, key: &BranchKey, reported_at: Timestamp) -> Option<(mstore_protocol::Epoch, Seq)> {
        let is_later = self.at.is_some_and(|at| reported_at.as_ms() > at.as_ms() + Self::GRACE_MS);
        if is_later { self.seqs.get(key).copied() } else { None }
    }
}

/// What a look found.
#[derive(Debug, Default)]
pub(crate) struct Overview {
    /// When; none before the first.
    pub(crate) at: Option<Timestamp>,
    /// Every branch that has devices.
    pub(crate) branches: BTreeMap<BranchKey, Tills>,
    /// The devices that somebody should look at first.
    pub(crate) worst: Vec<Till>,
}

impl Overview {
    /// All devices of a merchant, or of everybody.
    pub(crate) fn total(&self, merchant: Option<&str>) -> Tills {
        let mut total = Tills::default();
        let of = self.branches.iter().filter(|(key, _)| merchant.is_none_or(|merchant| merchant == key.merchant.as_str()));
        of.for_each(|(_, tills)| total.merge(tills));
        total
    }
}

/// The last look, for whoever asks.
#[derive(Default)]
pub(crate) struct Fleet {
    overview: Mutex<Arc<Overview>>,
}

impl Fleet {
    pub(crate) fn overview(&self) -> Arc<Overview> {
        self.overview.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, overview: Overview) {
        *self.overview.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(overview);
    }
}

/// Looks over all devices, again and again.
pub(crate) async fn watch(app: Arc<crate::http::App>) {
    let mut heads = Heads::default();
    loop {
        let began = Instant::now();
        let now = (app.config.clock)();
        match look(&*app.store, &heads, now).await {
            Ok(overview) => {
                app.meters.tills(&overview.branches, |key| app.store.owns(key));
                app.fleet.show(overview);
            }
            Err(error) => tracing::warn!(%error, "the fleet could not be looked over"),
        }
        if let Ok(known) = app.store.heads().await {
            heads = Heads { at: Some(now), seqs: known.into_iter().map(|(key, head)| (key, (head.epoch, head.seq))).collect() };
        }
        tokio::time::sleep(app.config.timing.fleet_interval.max(began.elapsed() * PAUSE_PER_LOOK)).await;
    }
}

async fn look(store: &dyn Store, heads: &Heads, now: Timestamp) -> Result<Overview, StoreError> {
    let mut overview = Overview { at: Some(now), ..Overview::default() };
    let mut after: Option<DeviceId> = None;
    loop {
        let records = store.devices(None, after.as_ref().map(DeviceId::as_str), DEVICES_PER_PAGE).await?;
        let is_last = records.len() < DEVICES_PER_PAGE;
        after = records.last().map(|record| record.device.clone());
        for record in records.into_iter().filter(|record| record.status == DeviceStatus::Active) {
            let till = Till::of(record, heads, now);
            overview.branches.entry(till.key.clone()).or_default().add(&till);
            if till.health != Health::Fresh || till.queue_oldest_s > 0 || till.dead_letters > 0 {
                overview.worst.push(till);
            }
        }
        overview.worst.sort_by(|a, b| b.rank().cmp(&a.rank()).then_with(|| a.device_id.cmp(&b.device_id)));
        overview.worst.truncate(WORST_MAX);
        if is_last {
            return Ok(overview);
        }
    }
}
