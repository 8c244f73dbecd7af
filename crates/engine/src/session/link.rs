//! The MQTT connection: make it, lose it, be refused, come back without a crowd.

use mstore_protocol::Code;

use super::Session;
use crate::{
    Moment,
    backoff::Backoff,
    effect::{Effect, Reason},
};

const RETRY_BASE_MS: u64 = 200;
const RETRY_CAP_MS: u64 = 30_000;
/// A refused login is an authorisation fault: stop, report, try seldom.
const REFUSED_BASE_MS: u64 = 10_000;
const REFUSED_CAP_MS: u64 = 300_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Down { retry_at: Moment },
    Connecting,
    Up,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Link {
    state: LinkState,
    retry: Backoff,
    slow: Backoff,
    /// Set while the broker refuses the device.
    pub(super) refused: Option<Code>,
}

impl Link {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            state: LinkState::Down { retry_at: now },
            retry: Backoff::new(RETRY_BASE_MS, RETRY_CAP_MS),
            slow: Backoff::new(REFUSED_BASE_MS, REFUSED_CAP_MS),
            refused: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.state {
            LinkState::Down { retry_at } => Some(retry_at),
            LinkState::Connecting | LinkState::Up => None,
        }
    }
}

impl Session {
    pub(super) fn run_link(&mut self, now: Moment) {
        if self.link.deadline().is_some_and(|due| due <= now) {
            self.link.state = LinkState::Connecting;
            self.effects.push_back(Effect::Connect { collections: self.config.collections.clone() });
        }
    }

    /// From here on no frame is missed; what came before must be confirmed by the head, or asked for.
    pub(super) fn subscribed(&mut self, now: Moment) {
        self.link.state = LinkState::Up;
        self.link.retry.reset();
        self.link.slow.reset();
        self.link.refused = None;
        let patience = match self.cursor {
            None => 0,
            Some(_) if self.pull.is_first() => self.config.head_patience_ms,
            Some(_) => self.config.head_patience_ms + self.dice.up_to(self.config.return_spread_ms),
        };
        self.pull.subscribed(now);
        let reason = if self.cursor.is_some() { Reason::Returned } else { Reason::First };
        self.want(now + patience, reason, None);
    }

    pub(super) fn connection_refused(&mut self, now: Moment, code: Code) {
        self.link.refused = Some(code);
        let wait = self.link.slow.next_ms(&mut self.dice, None);
        self.go_down(now, wait);
    }

    pub(super) fn disconnected(&mut self, now: Moment) {
        let wait = self.link.retry.next_ms(&mut self.dice, None);
        self.go_down(now, wait);
    }

    fn go_down(&mut self, now: Moment, wait: u64) {
        if self.link.is_up() {
            self.counters.disconnects += 1;
            // The server may be another one when it comes back, which numbers other commits alike; what was missed is asked for anyway.
            self.buffer.clear();
        }
        let first_failure = !self.pull.knows_mqtt_down();
        self.link.state = LinkState::Down { retry_at: now + wait };
        if first_failure {
            self.pull.mqtt_down();
            let spread = if self.cursor.is_none() || self.pull.is_first() { 0 } else { self.dice.up_to(self.config.return_spread_ms) };
            let reason = if self.cursor.is_some() { Reason::Returned } else { Reason::First };
            self.want(now + spread, reason, None);
        }
    }

    pub(super) fn network_changed(&mut self, now: Moment, available: bool) {
        if available {
            self.hurry(now);
        } else {
            self.pull.network_lost();
        }
    }

    /// No reason to wait any longer: the network is back, or somebody asked.
    pub(super) fn hurry(&mut self, now: Moment) {
        if let LinkState::Down { retry_at } = &mut self.link.state {
            *retry_at = now.min(*retry_at);
            self.link.retry.reset();
        }
        self.pull.hurry(now);
        self.upload.hurry();
    }
}
