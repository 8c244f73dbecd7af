//! `GET /v1/admin/tail`: what is published, while it is published.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use mstore_protocol::{BranchKey, Collection, Problem, Scope, Topic};
use serde::Deserialize;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Interval, MissedTickBehavior, interval},
};
use utoipa::IntoParams;

use super::super::{App, State, caller::Admin, extract::Ask, problem::Refusal};
use crate::tail::Published;

/// A revoked token ends its watching within this.
const CHECKED_EVERY: Duration = Duration::from_secs(1);

/// What to watch; everything without.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Watch {
    merchant: Option<String>,
    branch: Option<String>,
    /// Frames of this collection only, and no heads.
    collection: Option<String>,
}

impl Watch {
    fn wants(&self, key: &BranchKey, collection: Option<&Collection>) -> bool {
        self.merchant.as_deref().is_none_or(|merchant| merchant == key.merchant.as_str())
            && self.branch.as_deref().is_none_or(|branch| branch == key.branch.as_str())
            && self.collection.as_deref().is_none_or(|wanted| collection.is_some_and(|collection| collection.as_str() == wanted))
    }
}

/// Watch what is published, as lines of JSON, until the connection ends.
///
/// First the heads as they are, then each message: `{"topic":…,"frame":{…}}` or `{"topic":…,"head":{…}}`. `{"skipped":n}` when the reader was
/// too slow.
#[utoipa::path(
    get,
    path = "/v1/admin/tail",
    tag = "admin",
    operation_id = "tail",
    params(Watch),
    responses(
        (status = 200, content_type = "application/x-ndjson", body = String),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(("admin" = [])),
)]
pub(crate) async fn tail(extract::State(app): State, admin: Admin, Ask(mut watch): Ask<Watch>) -> Result<Response, Refusal> {
    if let Some(collection) = &watch.collection {
        let collection = Collection::parse(collection).map_err(|error| Refusal::malformed(format!("collection: {error}")))?;
        App::check_collection(&collection)?;
    }
    if let Some(merchant) = &watch.merchant {
        admin.check_merchant(merchant)?;
    }
    watch.merchant = admin.only().map(ToString::to_string).or(watch.merchant);
    let published = app.tail.watch();
    let mut ready = VecDeque::new();
    for (key, head) in app.store.heads().await? {
        if watch.wants(&key, None) {
            let topic = Topic::head(&Scope::new(app.config.env.clone(), key)).to_string();
            ready.push_back(line(&topic, "head", head.to_json().as_bytes()));
        }
    }
    let mut checks = interval(CHECKED_EVERY);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lines = Lines { watch, ready, published, admin, checks, app };
    let body = Body::from_stream(futures_util::stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((Ok::<_, Infallible>(line), lines))
    }));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

struct Lines {
    watch: Watch,
    ready: VecDeque<Bytes>,
    published: broadcast::Receiver<Published>,
    admin: Admin,
    checks: Interval,
    app: Arc<App>,
}

impl Lines {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(line) = self.ready.pop_front() {
            return Some(line);
        }
        loop {
            let received = tokio::select! {
                received = self.published.recv() => received,
                _ = self.checks.tick() => {
                    if self.admin.is_still_good(&self.app).await {
                        continue;
                    }
                    return None;
                }
                () = self.app.stopping.cancelled() => return None,
            };
            match received {
                Ok(message) if self.watch.wants(&message.key, message.collection.as_ref()) => {
                    let kind = if message.collection.is_some() { "frame" } else { "head" };
                    return Some(line(&message.topic, kind, &message.payload));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(skipped)) => return Some(format!("{{\"skipped\":{skipped}}}\n").into()),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Topics and payloads need no escapes: segments are plain, payloads are JSON.
fn line(topic: &str, kind: &str, payload: &[u8]) -> Bytes {
    let mut line = format!("{{\"topic\":\"{topic}\",\"{kind}\":").into_bytes();
    line.extend_from_slice(payload);
    line.extend_from_slice(b"}\n");
    line.into()
}
