//! A model of the broker: sessions without memory, one retained head per branch, and no promise beyond its own life.

use mstore_protocol::Head;

use crate::{plan::DEVICES, shop::BRANCHES};

/// A subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) branch: usize,
    /// Which connection of the device.
    pub(crate) link: u32,
}

/// The broker.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) is_up: bool,
    /// How often it was started.
    pub(crate) life: u32,
    pub(crate) sessions: [Option<Session>; DEVICES],
    retained: [Option<Head>; BRANCHES],
    /// It drops what is for this device until then.
    pub(crate) full_until: [u64; DEVICES],
}

impl Broker {
    pub(crate) fn new() -> Self {
        Self { is_up: true, life: 0, sessions: [None; DEVICES], retained: [None, None], full_until: [0; DEVICES] }
    }

    /// It stops: sessions and retained heads are gone.
    pub(crate) fn stop(&mut self) {
        self.is_up = false;
        self.life += 1;
        self.sessions = [None; DEVICES];
        self.retained = [None, None];
    }

    pub(crate) fn retain(&mut self, branch: usize, head: Head) {
        self.retained[branch] = Some(head);
    }

    pub(crate) fn retained(&self, branch: usize) -> Option<Head> {
        self.retained[branch].clone()
    }

    /// Devices that get what is published for a branch now.
    pub(crate) fn subscribers(&self, branch: usize, now: u64) -> Vec<usize> {
        let gets =
            |device: &usize| self.sessions[*device].is_some_and(|session| session.branch == branch) && self.full_until[*device] <= now;
        (0..DEVICES).filter(gets).collect()
    }
}
