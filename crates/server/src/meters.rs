//! What is counted and timed: one recorder per server, names with units, labelled by branch and never by device.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use mstore_protocol::{BranchKey, LatencyHistogram, MerchantId, ServiceFigures};

use crate::fleet::Tills;

const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const META: Metadata<'static> = Metadata::new("mstore_server", Level::INFO, None);

/// Latencies taken up from one bucket of one report: each is kept until the next upkeep.
const REPORTED_MAX: usize = 10_000;

/// What a look over the fleet shows of each branch.
const FLEET_GAUGES: &[(&str, &str)] = &[
    ("mstore_devices", "Devices of the branch that are enrolled and not revoked"),
    ("mstore_devices_catching_up", "Of these: fetching what they miss, or polling because MQTT is down"),
    ("mstore_devices_stale", "Of these: silent for over 150 s, refused, or behind without saying so"),
    ("mstore_device_queue_operations", "Operations that wait on the branch's devices, as they reported last"),
    ("mstore_device_queue_oldest_seconds", "Age of the oldest of them"),
    ("mstore_device_dead_letters", "Rejected operations on the branch's devices that somebody must look at"),
];

/// The meters of one server.
pub(crate) struct Meters {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    branches: Mutex<HashMap<BranchKey, BranchMeters>>,
    published: Mutex<BTreeMap<MerchantId, Arc<Tally>>>,
}

/// Frames of a merchant since they were last asked for.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    attempted: AtomicU64,
    acknowledged: AtomicU64,
}

/// The meters of one branch.
#[derive(Clone)]
pub(crate) struct BranchMeters {
    /// Frames handed to the broker, retries included.
    attempted: Counter,
    /// Frames that the broker acknowledged.
    acknowledged: Counter,
    tally: Arc<Tally>,
    /// Times that an acknowledgement was waited for in vain: what was in flight then is attempted again.
    pub(crate) lost: Counter,
    /// Commits that sent no frames.
    pub(crate) head_only: Counter,
    /// Handed over to acknowledged.
    pub(crate) round_trip: Histogram,
    /// Commit to acknowledged.
    pub(crate) publish: Histogram,
    /// Bytes of frames and heads.
    pub(crate) bytes: Counter,
    /// Operations accepted for the first time.
    pub(crate) accepted: Counter,
    /// Operations known already.
    pub(crate) duplicates: Counter,
    /// Operations refused.
    pub(crate) rejected: Counter,
    /// `/changes` answers with rows.
    pub(crate) answers: Counter,
    /// `/changes` answers 304.
    pub(crate) unchanged: Counter,
    /// `/changes` answers 410.
    pub(crate) snapshots_required: Counter,
    /// Digests that devices found to differ.
    pub(crate) mismatches: Counter,
    /// Frames that devices missed.
    pub(crate) gaps: Counter,
    /// Snapshots that devices fetched.
    pub(crate) snapshots: Counter,
    /// Commit to applied.
    applied: Histogram,
}

impl BranchMeters {
    /// A frame is handed to the broker.
    pub(crate) fn attempt(&self) {
        self.attempted.increment(1);
        self.tally.attempted.fetch_add(1, Ordering::Relaxed);
    }

    /// What a device reports of the latencies that it saw.
    pub(crate) fn applied(&self, latency: &LatencyHistogram) {
        let last_ms = latency.bounds_ms.last().copied().unwrap_or(0);
        for (i, count) in latency.counts.iter().enumerate() {
            let bound_ms = latency.bounds_ms.get(i).copied().unwrap_or(last_ms.saturating_mul(2));
            let count = usize::try_from(*count).unwrap_or(usize::MAX).min(REPORTED_MAX);
            self.applied.record_many(Duration::from_millis(bound_ms).as_secs_f64(), count);
        }
    }

    /// The broker acknowledged a frame.
    pub(crate) fn acknowledge(&self) {
        self.acknowledged.increment(1);
        self.tally.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

impl Meters {
    pub(crate) fn new() -> Self {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS);
        let recorder = builder.expect("the list of buckets is not empty").build_recorder();
        let handle = recorder.handle();
        let meters = Self { recorder, handle, branches: Mutex::default(), published: Mutex::default() };
        meters.describe();
        meters
    }

    /// The text of `/metrics`.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds what histograms gathered; without it their memory grows until the next `/metrics`.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Counts what a slice of the sweep found.
    pub(crate) fn swept(&self, report: &mstore_store::SweepReport) {
        for (found, count) in [("compared", report.compared), ("differing", report.differing), ("mended", report.mended)] {
            let key = Key::from_parts("mstore_sweep_rows_total", vec![Label::new("found", found)]);
            self.recorder.register_counter(&key, &META).increment(count);
        }
    }

    /// Counts an attempt to deliver an operation to a backend.
    pub(crate) fn delivery(&self, outcome: &'static str) {
        let key = Key::from_parts("mstore_webhook_deliveries_total", vec![Label::new("outcome", outcome)]);
        self.recorder.register_counter(&key, &META).increment(1);
    }

    pub(crate) fn gauge(&self, name: &'static str) -> Gauge {
        self.recorder.register_gauge(&Key::from_static_name(name), &META)
    }

    /// Counts and times one answered request.
    pub(crate) fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let labels =
            vec![Label::new("route", route.to_owned()), Label::new("method", method.to_owned()), Label::new("status", status.to_string())];
        let key = Key::from_parts("mstore_http_request_seconds", labels);
        self.recorder.register_histogram(&key, &META).record(took.as_secs_f64());
    }

    pub(crate) fn branch(&self, key: &BranchKey) -> BranchMeters {
        let mut branches = self.branches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meters) = branches.get(key) {
            return meters.clone();
        }
        let meters = self.new_branch(key);
        branches.insert(key.clone(), meters.clone());
        meters
    }

    /// What was published for each merchant since this was last asked.
    pub(crate) fn published(&self) -> BTreeMap<MerchantId, ServiceFigures> {
        let tallies = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = |tally: &Tally| ServiceFigures {
            frames_attempted: tally.attempted.swap(0, Ordering::Relaxed),
            frames_acknowledged: tally.acknowledged.swap(0, Ordering::Relaxed),
            ..ServiceFigures::default()
        };
        tallies.iter().map(|(merchant, tally)| (merchant.clone(), figures(tally))).collect()
    }

    /// Shows what a look over the fleet found of the branches that are this server's; the others are another server's to show.
    pub(crate) fn tills(&self, branches: &BTreeMap<BranchKey, Tills>, is_ours: impl Fn(&BranchKey) -> bool) {
        let none = Tills::default();
        for (branch, tills) in branches {
            let tills = if is_ours(branch) { tills } else { &none };
            let figures = [
                ("mstore_devices", tills.devices),
                ("mstore_devices_catching_up", tills.catching_up),
                ("mstore_devices_stale", tills.stale),
                ("mstore_device_queue_operations", tills.queue),
                ("mstore_device_queue_oldest_seconds", tills.queue_oldest_s),
                ("mstore_device_dead_letters", tills.dead_letters),
            ];
            for (name, value) in figures {
                let key = Key::from_parts(name, vec![Label::new("branch", branch.to_string())]);
                #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts beyond 2^53 do not occur")]
                self.recorder.register_gauge(&key, &META).set(value as f64);
            }
        }
    }

    fn new_branch(&self, branch: &BranchKey) -> BranchMeters {
        let key = |name: &'static str, more: Option<(&'static str, &'static str)>| {
            let mut labels = vec![Label::new("branch", branch.to_string())];
            labels.extend(more.map(|(label, value)| Label::from_static_parts(label, value)));
            Key::from_parts(name, labels)
        };
        let counter = |name, more| self.recorder.register_counter(&key(name, more), &META);
        let verdict = |status| counter("mstore_operations_total", Some(("verdict", status)));
        let changes = |status| counter("mstore_changes_answers_total", Some(("status", status)));
        BranchMeters {
            attempted: counter("mstore_publish_attempted_total", None),
            acknowledged: counter("mstore_publish_acknowledged_total", None),
            tally: self.published.lock().unwrap_or_else(PoisonError::into_inner).entry(branch.merchant.clone()).or_default().clone(),
            lost: counter("mstore_publish_lost_total", None),
            head_only: counter("mstore_publish_head_only_total", None),
            round_trip: self.recorder.register_histogram(&key("mstore_publish_to_acknowledged_seconds", None), &META),
            publish: self.recorder.register_histogram(&key("mstore_commit_to_published_seconds", None), &META),
            bytes: counter("mstore_publish_payload_bytes_total", None),
            accepted: verdict("accepted"),
            duplicates: verdict("duplicate"),
            rejected: verdict("rejected"),
            answers: changes("200"),
            unchanged: changes("304"),
            snapshots_required: changes("410"),
            mismatches: counter("mstore_digest_mismatch_total", None),
            gaps: counter("mstore_device_gaps_total", None),
            snapshots: counter("mstore_device_snapshots_total", None),
            applied: self.recorder.register_histogram(&key("mstore_commit_to_applied_seconds", None), &META),
        }
    }

    fn describe(&self) {
        let name = KeyName::from_const_str;
        let counters = [
            ("mstore_publish_attempted_total", "Frames handed to the broker, retries included"),
            ("mstore_publish_acknowledged_total", "Frames that the broker acknowledged"),
            (
                "mstore_publish_lost_total",
                "Connections to the broker that ended before it acknowledged; what was in flight is attempted again",
            ),
            ("mstore_publish_head_only_total", "Commits published as a head without frames: bulk changes and collapsed backlogs"),
            ("mstore_publish_payload_bytes_total", "Payload bytes of frames and heads"),
            ("mstore_operations_total", "Operations of devices by verdict"),
            ("mstore_changes_answers_total", "Answers of /changes by status"),
            ("mstore_digest_mismatch_total", "Digests that devices found to differ from the server's, as they report them"),
            ("mstore_device_gaps_total", "Times that devices missed frames and fetched them, as they report it"),
            ("mstore_device_snapshots_total", "Times that devices fetched everything, as they report it"),
            ("mstore_webhook_deliveries_total", "Attempts to deliver operations to backends, by outcome: decided, taken, failed, refused"),
            ("mstore_sweep_rows_total", "Rows that the sweep compared, found to differ from their source, and mended in the mirror"),
        ];
        for (counter, text) in counters {
            self.recorder.describe_counter(name(counter), None, text.into());
        }
        let histograms = [
            ("mstore_commit_to_published_seconds", "From a commit to the broker's acknowledgement of its frame"),
            (
                "mstore_commit_to_applied_seconds",
                "From a commit to its being shown on a device, of what came over MQTT, as devices report it",
            ),
            ("mstore_publish_to_acknowledged_seconds", "From handing a frame to the broker to its acknowledgement"),
            ("mstore_http_request_seconds", "From a request's head to its answer's head"),
        ];
        for (histogram, text) in histograms {
            self.recorder.describe_histogram(name(histogram), Some(Unit::Seconds), text.into());
        }
        for (gauge, text) in crate::tasks::GAUGES.iter().chain(FLEET_GAUGES) {
            self.recorder.describe_gauge(name(gauge), None, (*text).into());
        }
    }
}
