//! `/healthz`, `/readyz`, `/metrics`: for supervisors and dashboards, without credentials and without anybody's data.

use std::time::Duration;

use axum::{
    Json, extract,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use mstore_protocol::{Code, Problem};
use mstore_store::Store;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{State, problem::Refusal};

/// Marks waiting for the sequencer beyond which it is behind.
const MARKS_MAX: u64 = 100_000;

/// A write that proves the next one possible; at most one a second, whoever asks how often.
#[derive(Default)]
pub(crate) struct Proof(tokio::sync::Mutex<Option<Instant>>);

impl Proof {
    async fn renew(&self, store: &dyn Store) -> Result<(), Refusal> {
        const LASTS: Duration = Duration::from_secs(1);
        let mut proved = self.0.lock().await;
        if proved.is_none_or(|at| at.elapsed() > LASTS) {
            *proved = None;
            store.prove_writable().await?;
            *proved = Some(Instant::now());
        }
        Ok(())
    }
}

/// It runs.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = Health)))]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// It can do its work.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    status: &'static str,
    /// Marks not yet sequenced.
    marks: u64,
    /// Outbox entries not yet acknowledged.
    outbox: u64,
    /// Open MQTT connections.
    connected: usize,
}

/// Whether it can do its work: the store can be written, the broker is up, the sequencer is not behind.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses((status = 200, body = Readiness), (status = 503, body = Problem, content_type = "application/problem+json")),
)]
pub(crate) async fn readyz(extract::State(app): State) -> Result<Json<Readiness>, Refusal> {
    if app.stopping.is_cancelled() {
        return Err(Refusal::new(Code::Unavailable, "the server is shutting down"));
    }
    if let Some(task) = app.failed_task.get() {
        return Err(Refusal::new(Code::Unavailable, format!("the {task} task failed; restart the server and report the log")));
    }
    let gauges = app.store.gauges().await?;
    if gauges.marks > MARKS_MAX {
        return Err(Refusal::new(Code::Unavailable, format!("the sequencer is behind: {} marks", gauges.marks)));
    }
    app.proof.renew(&*app.store).await?;
    let stats = app.broker.stats().await.map_err(|why| Refusal::new(Code::Unavailable, why))?;
    Ok(Json(Readiness { status: "ready", marks: gauges.marks, outbox: gauges.outbox, connected: stats.connected }))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "Prometheus text format 0.0.4", content_type = "text/plain", body = String)),
)]
pub(crate) async fn metrics(extract::State(app): State) -> Response {
    crate::tasks::read_gauges(&app).await;
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.meters.render()).into_response()
}
