//! Keeps a connection to the broker up: connects, sends a canary, lets senders in, and begins again with jitter when it ends.

use std::{sync::Arc, time::Duration};

use rand::Rng as _;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    CanaryState, Shared, canary,
    config::{ExternalConfig, ExternalTiming},
    connection::{Connection, Down},
    url::BrokerNode,
};

/// Runs until `stop`.
pub(super) async fn keep(config: ExternalConfig, shared: Arc<Shared>, stop: CancellationToken) {
    if config.canary.is_none() {
        tracing::warn!("no canary account: a broker that throws away what we publish will not be noticed (set broker_canary_username)");
    }
    let (mut failures, mut turn) = (0, 0_usize);
    while !stop.is_cancelled() {
        let node = config.url.node(turn);
        // Whatever is wrong with one node of a cluster, the next may be well.
        turn = turn.wrapping_add(1);
        let (was_up, down) = life(&config, node, &shared, &stop).await;
        shared.down(&down);
        if stop.is_cancelled() {
            break;
        }
        failures = if was_up { 1 } else { failures + 1 };
        let wait = wait_after(&down, failures, &config.timing, rand::rng().random());
        tracing::warn!(broker = %node, reason = %down, wait_ms = wait.as_millis(), "broker away");
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => {}
        }
    }
    shared.down(&Down::Network("the server stops".into()));
}

/// One connection to a node, from its login to its end; whether it ever took messages, and why it ended.
async fn life(config: &ExternalConfig, node: &BrokerNode, shared: &Shared, stop: &CancellationToken) -> (bool, Down) {
    let opened = tokio::select! {
        opened = Connection::open(config, node, &config.client_id, config.login.as_ref()) => opened,
        () = stop.cancelled() => return (false, stopped()),
    };
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(down) => return (false, down),
    };
    let mut was_up = false;
    let mut canaries = interval(config.timing.canary_interval);
    canaries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let client = connection.client.clone();
        // The first tick comes at once: nobody is let in before the canary is back.
        let sing = async {
            canaries.tick().await;
            sing(config, node, shared, &client).await
        };
        tokio::select! {
            sung = sing => {
                if let Err(down) = sung {
                    return (was_up, down);
                }
                if !was_up {
                    was_up = true;
                    shared.up(client);
                    tracing::info!(broker = %node, "broker connected");
                }
            }
            down = connection.ended() => return (was_up, down),
            () = stop.cancelled() => {
                shared.down(&stopped());
                connection.close(config.timing.connect_within).await;
                return (was_up, stopped());
            }
        }
    }
}

async fn sing(config: &ExternalConfig, node: &BrokerNode, shared: &Shared, backend: &rumqttc::AsyncClient) -> Result<(), Down> {
    let Some(login) = &config.canary else { return Ok(()) };
    let sung = canary::check(config, node, login, backend).await;
    let canary = match &sung {
        Ok(took) => {
            tracing::debug!(took_ms = took.as_millis(), "canary came back");
            CanaryState::Forwards
        }
        Err(Down::Canary(why)) => {
            tracing::error!(broker = %node, why, "canary lost; nothing is published until it comes back");
            CanaryState::Discards
        }
        // It says nothing about what the broker forwards.
        Err(Down::Login(_) | Down::Network(_)) => return sung.map(|_took| ()),
    };
    shared.state.send_modify(|state| state.canary = canary);
    sung.map(|_took| ())
}

fn stopped() -> Down {
    Down::Network("the server stops".into())
}

impl Shared {
    fn up(&self, client: rumqttc::AsyncClient) {
        self.state.send_modify(|state| {
            state.up = true;
            state.reason.clear();
        });
        let mut number = 0;
        self.current.send_modify(|current| {
            number = current.0 + 1;
            *current = (number, Some(client));
        });
        // Last: who is woken by it finds the connection.
        self.connections.send_replace(number);
    }

    fn down(&self, why: &Down) {
        self.current.send_modify(|current| current.1 = None);
        self.state.send_modify(|state| {
            state.up = false;
            state.reason = why.to_string();
        });
    }
}

/// Full jitter: anything between zero and a bound that doubles with every failure. `chance` is drawn evenly from 0 to 1.
fn wait_after(down: &Down, failures: u32, timing: &ExternalTiming, chance: f64) -> Duration {
    match down {
        Down::Network(_) => {
            let bound = timing.retry_min.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(timing.retry_max);
            bound.mul_f64(chance)
        }
        // Spread as well, but never soon.
        Down::Login(_) | Down::Canary(_) => timing.refused_wait.mul_f64(0.5 + chance / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_spread() {
        let timing = ExternalTiming::default();
        let network = Down::Network(String::new());
        let wait = |failures, chance| wait_after(&network, failures, &timing, chance).as_millis();
        assert_eq!([wait(1, 0.0), wait(1, 1.0), wait(2, 1.0), wait(3, 0.5)], [0, 250, 500, 500]);
        assert_eq!([wait(6, 1.0), wait(7, 1.0), wait(u32::MAX, 1.0)], [8_000, 10_000, 10_000]);
    }

    #[test]
    fn a_refusal_is_not_tried_again_soon() {
        let timing = ExternalTiming::default();
        for refused in [Down::Login(String::new()), Down::Canary(String::new())] {
            assert!(wait_after(&refused, 1, &timing, 0.0) >= timing.refused_wait / 2);
        }
    }
}
