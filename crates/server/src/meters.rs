//! What is counted and timed: one recorder per server, names with units, labelled by branch and never by device.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use mstore_protocol::BranchKey;

const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const META: Metadata<'static> = Metadata::new("mstore_server", Level::INFO, None);

/// The meters of one server.
pub(crate) struct Meters {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    branches: Mutex<HashMap<BranchKey, BranchMeters>>,
}

/// The meters of one branch.
#[derive(Clone)]
pub(crate) struct BranchMeters {
    /// Frames handed to the broker, retries included.
    pub(crate) attempted: Counter,
    /// Frames that the broker acknowledged.
    pub(crate) acknowledged: Counter,
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
}

impl Meters {
    pub(crate) fn new() -> Self {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS);
        let recorder = builder.expect("the list of buckets is not empty").build_recorder();
        let handle = recorder.handle();
        let meters = Self { recorder, handle, branches: Mutex::default() };
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
            ("mstore_webhook_deliveries_total", "Attempts to deliver operations to backends, by outcome: decided, taken, failed, refused"),
            ("mstore_sweep_rows_total", "Rows that the sweep compared, found to differ from their source, and mended in the mirror"),
        ];
        for (counter, text) in counters {
            self.recorder.describe_counter(name(counter), None, text.into());
        }
        let histograms = [
            ("mstore_commit_to_published_seconds", "From a commit to the broker's acknowledgement of its frame"),
            ("mstore_publish_to_acknowledged_seconds", "From handing a frame to the broker to its acknowledgement"),
            ("mstore_http_request_seconds", "From a request's head to its answer's head"),
        ];
        for (histogram, text) in histograms {
            self.recorder.describe_histogram(name(histogram), Some(Unit::Seconds), text.into());
        }
        for (gauge, text) in crate::tasks::GAUGES {
            self.recorder.describe_gauge(name(gauge), None, (*text).into());
        }
    }
}
