//! Everything that runs beside requests, listed in one place.

use std::{sync::Arc, time::Duration};

use mstore_broker::CanaryState;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    fleet,
    heads::HeadSchedule,
    http::App,
    publisher::{ACKNOWLEDGEMENTS_MAX, Place, Publisher, acknowledge},
    webhook,
};

/// Rows compared in one slice of the sweep at least.
const SWEEP_ROWS_MIN: usize = 200;
/// Everything is compared within the hour, with room for slow slices.
const SWEEP_CALM_S: u64 = 3_000;
/// After a start, and after somebody wrote what no trigger saw, everything is compared within a poll of the devices.
const SWEEP_HURRIED_S: u64 = 240;

/// How often service levels are written down; what a killed server gathered since is lost.
const LEVELS_INTERVAL: Duration = Duration::from_secs(60);

/// The gauges, read every few seconds and at every `/metrics`.
pub(crate) const GAUGES: &[(&str, &str)] = &[
    ("mstore_marks", "Marks not yet sequenced"),
    ("mstore_outbox_entries", "Outbox entries not yet acknowledged"),
    ("mstore_mirror_rows", "Rows that devices should have, over all branches"),
    ("mstore_branches", "Branches"),
    ("mstore_alarms", "Alarms raised since the start of the database"),
    ("mstore_branches_held", "Branches held back by a mass deletion"),
    ("mstore_unexplained_writes", "Times that another program wrote and left no marks, since the start"),
    ("mstore_inbox_undecided", "Operations that wait for the verdict of a merchant's backend"),
    ("mstore_inbox_undelivered", "Of these, operations that no webhook has delivered"),
    ("mstore_broker_up", "1 while the broker takes messages"),
    ("mstore_broker_starts", "Starts of the embedded broker, or connections made to the external one, since the server's start"),
    ("mstore_broker_in_flight", "Messages sent to an external broker and not yet acknowledged"),
    ("mstore_broker_canary", "What an external broker does with what we publish: 0 nobody checks, 1 forwards it, 2 throws it away"),
    ("mstore_broker_accounts_differing", "Accounts at an external broker that are known to differ from the device registry"),
    ("mstore_broker_accounts_changed", "Accounts changed at an external broker since the server's start"),
    ("mstore_mqtt_connections", "Open MQTT connections"),
    ("mstore_mqtt_sessions", "MQTT sessions"),
    ("mstore_mqtt_queued_messages", "Messages waiting in MQTT sessions"),
    ("mstore_mqtt_dropped_messages", "Messages dropped because a session's queue was full, since the broker's start"),
    ("mstore_mqtt_refused", "Logins, subscriptions and publishes refused since the broker's start"),
    ("mstore_mqtt_turned_away", "MQTT connections closed at once because too many were open, since the broker's start"),
    ("mstore_http_requests_turned_away", "Requests answered 503 because too many were worked on, since the server's start"),
    ("mstore_tls_certificate_expires_seconds", "Until the certificate of the TLS listeners ends; below 0 when it has"),
    ("mstore_tls_certificate_broken", "1 while the certificate's files cannot be used and an older one is shown"),
];

/// Starts all of them. They end when `stop` is cancelled; the publisher then publishes what is left.
pub(crate) fn start(app: &Arc<App>, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (acknowledgements, ids) = mpsc::channel(ACKNOWLEDGEMENTS_MAX);
    let timing = &app.config.timing;
    let publisher = Publisher {
        store: app.store.clone(),
        broker: app.broker.clone(),
        tail: app.tail.clone(),
        meters: app.meters.clone(),
        env: app.config.env.clone(),
        clock: app.config.clock.clone(),
        heads: HeadSchedule::new(timing.head_after_change, timing.head_interval),
        acknowledgements,
        place: Place::default(),
    };
    tasks.spawn(watched("publisher", app.clone(), publisher.run(stop.clone())));
    tasks.spawn(watched("acknowledgements", app.clone(), acknowledge(app.store.clone(), ids)));
    tasks.spawn(watched("devices changed elsewhere", app.clone(), until(stop.clone(), app.directory.clone().follow())));
    if let Some(steward) = app.broker.steward() {
        tasks.spawn(watched("broker accounts", app.clone(), until(stop.clone(), steward.clone().run())));
    }
    if let Some(webhook) = &app.webhook {
        tasks.spawn(watched("webhook", app.clone(), webhook::run(app.clone(), webhook.clone(), stop.clone())));
    }
    tasks.spawn(watched("sweep", app.clone(), until(stop.clone(), sweep(app.clone()))));
    tasks.spawn(watched("upkeep", app.clone(), until(stop.clone(), upkeep(app.clone()))));
    tasks.spawn(watched("fleet", app.clone(), until(stop.clone(), fleet::watch(app.clone()))));
    tasks.spawn(watched("levels", app.clone(), levels(app.clone(), stop.clone())));
    if app.renewal.is_some() {
        tasks.spawn(watched("certificate", app.clone(), until(stop.clone(), certificate(app.clone()))));
    }
    tasks.spawn(watched("gauges", app.clone(), until(stop.clone(), gauges(app.clone()))));
    tasks
}

/// A task that panics is a bug; the server says so and is not ready any more, so that a supervisor restarts it.
async fn watched(name: &'static str, app: Arc<App>, work: impl Future<Output = ()> + Send + 'static) {
    if let Err(error) = tokio::spawn(work).await {
        tracing::error!(task = name, %error, "background task failed");
        let _ = app.failed_task.set(name);
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Compares source and mirror slice by slice.
async fn sweep(app: Arc<App>) {
    let mut ticks = interval(app.config.timing.sweep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut from = None;
    // Unexplained writes when this pass over everything began, and before the last one that saw everything.
    let (mut begun_at, mut seen) = (None, None);
    loop {
        ticks.tick().await;
        let gauges = app.store.gauges().await.unwrap_or_default();
        if from.is_none() {
            begun_at = Some(gauges.unexplained_writes);
        }
        let within_s = if seen == Some(gauges.unexplained_writes) { SWEEP_CALM_S } else { SWEEP_HURRIED_S };
        let slices = (within_s / app.config.timing.sweep_interval.as_secs().max(1)).max(1);
        let rows_max = usize::try_from(gauges.mirror_rows / slices).unwrap_or(usize::MAX).max(SWEEP_ROWS_MIN);
        match app.store.sweep(from.take(), rows_max).await {
            Ok(report) => {
                app.meters.swept(&report);
                if report.next.is_none() {
                    seen = begun_at;
                }
                if report.differing > 0 || report.mended > 0 {
                    tracing::warn!(
                        compared = report.compared,
                        differing = report.differing,
                        mended = report.mended,
                        "sweep found differences"
                    );
                }
                from = report.next;
            }
            Err(error) => tracing::warn!(%error, "sweep failed, starting over"),
        }
    }
}

async fn upkeep(app: Arc<App>) {
    let mut ticks = interval(app.config.timing.upkeep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked_at = (app.config.clock)();
    loop {
        ticks.tick().await;
        if let Err(error) = app.store.upkeep().await {
            tracing::warn!(%error, "upkeep failed");
        }
        let now = (app.config.clock)();
        match app.directory.expired_between(looked_at, now).await {
            Ok(expired) => {
                looked_at = now;
                for device in expired {
                    let kicked = app.broker.kick(&device).await;
                    tracing::warn!(device = device.as_str(), ?kicked, "device token expired");
                }
            }
            Err(error) => tracing::warn!(%error, "expired devices not looked for"),
        }
    }
}

/// Writes the service levels down every minute, and once more at the end.
async fn levels(app: Arc<App>, stop: CancellationToken) {
    let mut ticks = interval(LEVELS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => is_last = true,
        }
        app.meters.published().iter().for_each(|(merchant, figures)| app.levels.add(merchant, figures));
        if let Err(error) = app.levels.write_down(&*app.store).await {
            tracing::warn!(%error, "service levels not written down");
        }
    }
}

async fn certificate(app: Arc<App>) {
    let mut ticks = interval(app.config.timing.certificate_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(renewal) = &app.renewal {
            renewal.look((app.config.clock)());
        }
    }
}

async fn gauges(app: Arc<App>) {
    let mut ticks = interval(app.config.timing.gauges_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        read_gauges(&app).await;
        app.meters.upkeep();
    }
}

/// Brings the gauges up to date.
pub(crate) async fn read_gauges(app: &App) {
    let (store, broker, meters) = (&*app.store, &app.broker, &app.meters);
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts beyond 2^53 do not occur")]
    let set = |name: &'static str, value: u64| meters.gauge(name).set(value as f64);
    let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    match store.gauges().await {
        Ok(gauges) => {
            set("mstore_marks", gauges.marks);
            set("mstore_outbox_entries", gauges.outbox);
            set("mstore_mirror_rows", gauges.mirror_rows);
            set("mstore_branches", gauges.branches);
            set("mstore_alarms", gauges.alarms);
            set("mstore_branches_held", gauges.held);
            set("mstore_unexplained_writes", gauges.unexplained_writes);
        }
        Err(error) => tracing::warn!(%error, "gauges not read"),
    }
    match store.inbox_backlog().await {
        Ok(backlog) => {
            set("mstore_inbox_undecided", backlog.undecided);
            set("mstore_inbox_undelivered", backlog.undelivered);
        }
        Err(error) => tracing::warn!(%error, "the inbox is not readable"),
    }
    let stats = broker.stats().await;
    set("mstore_broker_up", u64::from(stats.is_ok()));
    set("mstore_broker_starts", *broker.starts().borrow());
    let (canary, in_flight) = broker.external_gauges().unwrap_or_default();
    set("mstore_broker_in_flight", count(in_flight));
    set(
        "mstore_broker_canary",
        match canary {
            CanaryState::Unchecked => 0,
            CanaryState::Forwards => 1,
            CanaryState::Discards => 2,
        },
    );
    let drift = broker.steward().map(|steward| steward.drift()).unwrap_or_default();
    set("mstore_broker_accounts_differing", count(drift.differing));
    set("mstore_broker_accounts_changed", drift.changed);
    let stats = stats.unwrap_or_default();
    set("mstore_mqtt_connections", count(stats.connected));
    set("mstore_mqtt_sessions", count(stats.sessions));
    set("mstore_mqtt_queued_messages", count(stats.queued));
    set("mstore_mqtt_dropped_messages", stats.dropped);
    set("mstore_mqtt_refused", stats.refused);
    set("mstore_mqtt_turned_away", stats.turned_away);
    set("mstore_http_requests_turned_away", app.requests.refused());
    if let Some(outlook) = app.renewal.as_ref().map(|renewal| renewal.outlook((app.config.clock)())) {
        #[expect(clippy::cast_precision_loss, reason = "seconds of some centuries")]
        meters.gauge("mstore_tls_certificate_expires_seconds").set(outlook.expires_in_s as f64);
        set("mstore_tls_certificate_broken", u64::from(outlook.is_broken));
    }
}
