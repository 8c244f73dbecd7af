//! The publisher: what is in the outbox goes to the broker in order, and is forgotten when the broker has acknowledged it.

use mstore_engine::sequence;
use mstore_protocol::Frame;

use super::{Event, World, network::Delivery};
use crate::{
    bug::Bug,
    plan::{DEVICES, Death},
    promise::{Kept, Promise, broken},
    server::{Entry, Message},
    shop::BRANCHES,
};

/// After changes at most this often, and without any this seldom, milliseconds.
const HEAD_SOON_MS: u64 = 1_000;
const HEAD_INTERVAL_MS: u64 = 60_000;

/// What the publisher's process holds in memory.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    /// The last entry handed to the broker.
    last: u64,
    /// Acknowledged by the broker, not yet written down.
    acknowledged: Vec<u64>,
    changed: [Option<u64>; BRANCHES],
    head_at: [u64; BRANCHES],
}

impl Publisher {
    pub(super) fn changed(&mut self, branch: usize, now: u64) {
        self.changed[branch].get_or_insert(now);
    }

    /// Everything in the outbox again: its process or the broker is a new one.
    pub(super) fn begin_again(&mut self) {
        self.last = 0;
        self.acknowledged.clear();
        self.changed = [Some(0); BRANCHES];
    }
}

impl World {
    /// Hands over what is ready, pipelined.
    pub(super) fn pump(&mut self) {
        if !self.server.is_up || !self.broker.is_up {
            return;
        }
        let last = self.publisher.last;
        let ready: Vec<Entry> = self.server.db.outbox.iter().filter(|entry| entry.id > last).cloned().collect();
        let (server_life, broker_life) = (self.server.life, self.broker.life);
        for entry in ready {
            self.publisher.last = entry.id;
            if self.server.bug() == Some(Bug::ForgetBeforeAck) {
                self.server.db.forget_entry(entry.id);
            }
            self.after(1, Event::BrokerTakes { server_life, broker_life, entry });
        }
    }

    /// A message reaches the broker, unless one of the two is gone; then the publisher reads it from the outbox again.
    pub(super) fn broker_takes(&mut self, server_life: u32, broker_life: u32, entry: &Entry) -> Kept {
        if self.server.bug() == Some(Bug::ForgetBeforeAck) && (server_life, broker_life) != (self.server.life, self.broker.life) {
            return self.truth.forgotten(entry.id);
        }
        if broker_life != self.broker.life || !self.broker.is_up {
            return Ok(());
        }
        self.truth.taken(entry.id);
        match &entry.message {
            Message::Frame(collection, payload) => {
                let frame = match Frame::parse(payload.as_bytes()) {
                    Ok(frame) => frame,
                    Err(error) => return broken(Promise::Assertion, format!("a frame that nobody can read: {error}")),
                };
                let message = Delivery::Frame(collection.clone(), Box::new(frame));
                self.forward(entry.branch, &message);
            }
            Message::HeadOnly => {
                let head = self.server.head(entry.branch, self.now, Some(sequence::pull_within_ms(DEVICES)));
                self.broker.retain(entry.branch, head.clone());
                self.forward(entry.branch, &Delivery::Head(Box::new(head)));
            }
        }
        if let Some((Death::AfterHandOver, ms)) = self.doom {
            return self.kill_server(ms);
        }
        self.after(1, Event::BrokerAcknowledged { life: server_life, entry: entry.id });
        Ok(())
    }

    pub(super) fn acknowledged(&mut self, life: u32, entry: u64) -> Kept {
        if life != self.server.life {
            return Ok(());
        }
        self.publisher.acknowledged.push(entry);
        self.forget_acknowledged()
    }

    /// Writes acknowledgements down, if there is room; they wait in memory otherwise, and after a crash the messages go out twice.
    fn forget_acknowledged(&mut self) -> Kept {
        if self.server.is_full {
            return Ok(());
        }
        for entry in std::mem::take(&mut self.publisher.acknowledged) {
            self.server.db.forget_entry(entry);
            self.truth.forgotten(entry)?;
        }
        Ok(())
    }

    /// Heads of branches that changed, and all of them once a minute; whatever waits in the outbox is tried again.
    pub(super) fn heads(&mut self) -> Kept {
        self.after(HEAD_SOON_MS, Event::Heads);
        if !self.server.is_up {
            return Ok(());
        }
        self.look_for_marks()?;
        self.forget_acknowledged()?;
        self.pump();
        if !self.server.is_up || !self.broker.is_up {
            return Ok(());
        }
        for branch in 0..BRANCHES {
            let changed = self.publisher.changed[branch].is_some_and(|at| at + HEAD_SOON_MS <= self.now);
            if changed || self.publisher.head_at[branch] + HEAD_INTERVAL_MS <= self.now {
                self.publisher.changed[branch] = None;
                self.publisher.head_at[branch] = self.now;
                let head = self.server.head(branch, self.now, None);
                self.broker.retain(branch, head.clone());
                self.forward(branch, &Delivery::Head(Box::new(head)));
            }
        }
        Ok(())
    }

    fn forward(&mut self, branch: usize, message: &Delivery) {
        for device in self.broker.subscribers(branch, self.now) {
            self.deliver(device, message);
        }
    }
}
