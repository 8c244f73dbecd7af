//! The task that delivers: claims what is due, a bounded number at a time and of each branch one, and writes down what became of it.

use std::{pin::pin, sync::Arc, time::Duration};

use mstore_store::{Attempt, Due, failpoint};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Heard, Webhook, answer};
use crate::http::App;

/// What was accepted through other servers, or is due again, is found within this.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A claim outlives the attempt by this: if we die, somebody delivers again then.
const CLAIM_MARGIN_MS: i64 = 5_000;
/// What is under way at shutdown may take this long; what takes longer is delivered again.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Delivers until told to stop.
pub(crate) async fn run(app: Arc<App>, webhook: Arc<Webhook>, stop: CancellationToken) {
    let mut flying = JoinSet::new();
    loop {
        let mut woken = pin!(webhook.wake.notified());
        woken.as_mut().enable();
        for due in claim(&app, &webhook, flying.len()).await {
            flying.spawn(deliver(app.clone(), webhook.clone(), due));
        }
        tokio::select! {
            Some(landed) = flying.join_next() => {
                if let Err(error) = landed {
                    tracing::error!(%error, "a delivery panicked; it is made again");
                }
            }
            () = woken => {}
            () = sleep(LOOK_INTERVAL) => {}
            () = stop.cancelled() => break,
        }
    }
    let drain = async { while flying.join_next().await.is_some() {} };
    if timeout(DRAIN_TIMEOUT, drain).await.is_err() {
        tracing::warn!("deliveries were cut off; they are made again");
    }
}

async fn claim(app: &App, webhook: &Webhook, flying: usize) -> Vec<Due> {
    let free = webhook.config.in_flight_max.saturating_sub(flying);
    if free == 0 {
        return Vec::new();
    }
    let now = (app.config.clock)();
    let attempt_ms = i64::try_from(webhook.config.timeout.as_millis()).unwrap_or(i64::MAX);
    let until = now.plus_ms(attempt_ms.saturating_add(CLAIM_MARGIN_MS));
    app.store.claim_deliveries(now, until, free).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the inbox is not readable");
        Vec::new()
    })
}

async fn deliver(app: Arc<App>, webhook: Arc<Webhook>, due: Due) {
    let said = webhook.caller.deliver(&due, (app.config.clock)().as_ms() / 1_000).await;
    failpoint::point("webhook_answered");
    let attempt = answer::attempt(said, due.attempts, (app.config.clock)(), &webhook.config, rand::random());
    let outcome = match &attempt {
        Attempt::Decided(_) => "decided",
        Attempt::Taken => "taken",
        Attempt::Failed { .. } => "failed",
        Attempt::Refused { .. } => "refused",
    };
    app.meters.delivery(outcome);
    if let Attempt::Failed { why, .. } | Attempt::Refused { why, .. } = &attempt {
        tracing::warn!(branch = %due.key, operation = %due.id, attempt = due.attempts + 1, outcome, why, "operation not delivered");
    }
    let is_stuck = matches!(attempt, Attempt::Failed { .. } | Attempt::Refused { is_set_aside: false, .. });
    // Nothing is lost if this fails: the claim runs out, and the backend answers a second delivery as it did the first.
    if let Err(error) = app.store.attempted(&due, attempt).await {
        tracing::warn!(%error, operation = %due.id, "what became of a delivery could not be written down; it is made again");
    }
    webhook.set_stuck(&due.key, is_stuck);
    let heard = if is_stuck { Heard::Stuck(due.key) } else { Heard::Attempted(due.id) };
    // Perhaps nobody waits.
    let _ = webhook.heard.send(heard);
}
