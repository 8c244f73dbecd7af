//! What breaks, how it comes back, and how all trouble ends.

use std::collections::BTreeSet;

use mstore_engine::Input;
use mstore_protocol::OperationId;
use rand::Rng as _;

use super::{Event, Heal, World, network::Call};
use crate::{
    plan::{DEVICES, Death, Fault, RESTORE_MS, TillFault},
    promise::Kept,
};

/// Somebody with a claim code comes after this, and again until the device is let in, milliseconds.
const CLAIM_MS: u64 = 2_000;
/// A server that nothing kills otherwise dies of its next chance or never; then it comes back after this, milliseconds.
const START_MS: u64 = 200;

impl World {
    pub(super) fn fault(&mut self, fault: &Fault) -> Kept {
        match *fault {
            Fault::RestartBroker { ms } => self.stop_broker(ms),
            Fault::KillServer { death: Death::Now, ms } => self.kill_server(ms),
            Fault::KillServer { death, ms } => {
                self.doom = Some((death, ms));
                Ok(())
            }
            Fault::FillServerDisk { ms } => {
                self.server.is_full = true;
                self.after(ms, Event::Heal(Heal::ServerDisk));
                Ok(())
            }
            Fault::JumpServerClock { by_ms } => {
                self.server.skew_ms += by_ms;
                Ok(())
            }
            Fault::BackUpServer => {
                self.server.back_up();
                Ok(())
            }
            Fault::RestoreServer { ms } => self.restore_server(ms),
        }
    }

    pub(super) fn till_fault(&mut self, device: usize, fault: &TillFault) -> Kept {
        match *fault {
            TillFault::CutMqtt { ms } => {
                self.wires[device].mqtt_cut = true;
                self.after(ms, Event::Heal(Heal::Mqtt(device)));
                return self.disconnect(device);
            }
            TillFault::CutHttp { ms } => {
                self.wires[device].http_cut = true;
                self.after(ms, Event::Heal(Heal::Http(device)));
            }
            TillFault::FullQueue { ms } => self.broker.full_until[device] = self.now + ms,
            TillFault::Kill { effects, ms } => {
                self.devices[device].fuse = Some(effects);
                self.wires[device].away_ms = ms;
            }
            TillFault::FillDisk { ms } => {
                self.devices[device].disk_full = true;
                self.after(ms, Event::Heal(Heal::Disk(device)));
            }
            TillFault::JumpClock { by_ms } => self.devices[device].skew_ms += by_ms,
            TillFault::RotateToken if self.devices[device].is_on => return self.call(device, Call::Rotate),
            TillFault::Revoke => {
                self.server.db.registry[device].revoke();
                self.claim_soon(device);
                return self.disconnect(device);
            }
            TillFault::Move => {
                let registered = &mut self.server.db.registry[device];
                registered.move_to(1 - registered.branch);
                self.claim_soon(device);
                return self.disconnect(device);
            }
            TillFault::CutPower { ms } => self.cut_power(device, ms),
            TillFault::BackUp => self.devices[device].back_up(),
            TillFault::Restore { ms } => {
                self.wires[device].away_ms = ms;
                self.kill_device(device);
                if self.devices[device].restore() {
                    self.truth.disk_lost(device, &self.devices[device], &self.server.db);
                    self.claim_soon(device);
                }
            }
            TillFault::Rot { n } if self.devices[device].db.cursor.is_some() => {
                self.wires[device].away_ms = 100;
                self.kill_device(device);
                self.devices[device].rot(n);
            }
            TillFault::RotateToken | TillFault::Rot { .. } => {}
        }
        Ok(())
    }

    fn cut_power(&mut self, device: usize, ms: u64) {
        self.wires[device].away_ms = ms;
        self.kill_device(device);
        if self.dice.random_bool(0.7) {
            self.devices[device].lose_unsynced();
        }
    }

    fn claim_soon(&mut self, device: usize) {
        self.after(CLAIM_MS, Event::Heal(Heal::Enrol(device)));
    }

    pub(super) fn heal(&mut self, heal: Heal) -> Kept {
        match heal {
            Heal::Mqtt(device) => self.wires[device].mqtt_cut = false,
            Heal::Http(device) => self.wires[device].http_cut = false,
            Heal::Disk(device) => self.devices[device].disk_full = false,
            Heal::ServerDisk => {
                self.server.is_full = false;
                return self.look_for_marks();
            }
            Heal::Broker => {
                if !self.broker.is_up {
                    self.broker.is_up = true;
                    self.publisher.begin_again();
                    self.pump();
                }
            }
            Heal::Server => {
                if !self.server.is_up {
                    self.server.is_up = true;
                    self.publisher.begin_again();
                    self.note(|| "the server starts".into());
                    self.look_for_marks()?;
                    self.pump();
                }
            }
            Heal::Enrol(device) => return self.enrol(device),
        }
        Ok(())
    }

    /// Somebody makes a claim code for a device that is not let in, and types it in. A moved device sends first what it did at its old branch.
    fn enrol(&mut self, device: usize) -> Kept {
        let login = self.devices[device].db.login;
        let is_in = self.server.db.registry[device].clone().reads(login).is_ok();
        if is_in {
            return Ok(());
        }
        if !self.server.is_up || self.server.is_full || !self.devices[device].is_on || self.devices[device].disk_full {
            self.claim_soon(device);
            return Ok(());
        }
        let login = self.server.db.registry[device].enrol();
        self.disconnect(device)?;
        if self.devices[device].is_on {
            self.devices[device].stop();
            self.devices[device].enrol(login);
            self.note(|| format!("device {device} is enrolled: {login:?}"));
            self.after(1, Event::Start { device });
        }
        self.claim_soon(device);
        Ok(())
    }

    fn stop_broker(&mut self, ms: u64) -> Kept {
        if !self.broker.is_up {
            return Ok(());
        }
        let connected: Vec<usize> = (0..DEVICES).filter(|device| self.broker.sessions[*device].is_some()).collect();
        self.broker.stop();
        self.after(ms, Event::Heal(Heal::Broker));
        for device in connected {
            if self.devices[device].is_on {
                self.feed(device, Input::Disconnected)?;
            }
        }
        Ok(())
    }

    /// The broker lives in the server's process and dies with it.
    pub(super) fn kill_server(&mut self, ms: u64) -> Kept {
        self.doom = None;
        if !self.server.is_up {
            return Ok(());
        }
        self.note(|| "the server dies".into());
        self.server.kill();
        self.after(ms.max(START_MS), Event::Heal(Heal::Server));
        self.stop_broker(ms.max(START_MS))
    }

    fn restore_server(&mut self, ms: u64) -> Kept {
        self.kill_server(ms.max(RESTORE_MS))?;
        let before: BTreeSet<OperationId> = self.server.db.operations.keys().copied().collect();
        if self.server.restore() {
            self.note(|| "the server is put back to its backup".into());
            self.truth.restored(&before, &self.server.db);
        }
        Ok(())
    }

    pub(super) fn kill_device(&mut self, device: usize) {
        if !self.devices[device].is_on {
            return;
        }
        self.note(|| format!("device {device} dies"));
        self.devices[device].stop();
        self.broker.sessions[device] = None;
        let ms = self.wires[device].away_ms;
        self.after(ms, Event::Start { device });
    }

    pub(super) fn start_device(&mut self, device: usize) -> Kept {
        if self.devices[device].is_on {
            return Ok(());
        }
        let seed = self.wires[device].dice.random();
        self.wires[device].wake_at = None;
        self.devices[device].start(self.now, seed);
        self.note(|| format!("device {device} starts"));
        self.check(device)?;
        self.feed(device, Input::Woken)
    }

    /// The trouble is over: everything is whole, and one more thing is written that everybody must see.
    pub(super) fn calm(&mut self) -> Kept {
        if !self.is_calm {
            self.note(|| "calm".into());
            self.is_calm = true;
            self.doom = None;
            self.server.is_full = false;
            self.broker.full_until = [0; DEVICES];
            for device in 0..DEVICES {
                self.wires[device].mqtt_cut = false;
                self.wires[device].http_cut = false;
                self.devices[device].disk_full = false;
                self.devices[device].fuse = None;
                self.claim_soon(device);
            }
            self.heal(Heal::Server)?;
            self.heal(Heal::Broker)?;
            self.look_for_marks()?;
        }
        let made = self.server.write(&mut self.dice, self.now, &super::verdict::last_words());
        self.committed(made)?;
        if self.is_below_its_past() {
            // A lost operation is noticed when the numbering passes the commit that it was promised for.
            self.after(100, Event::Calm);
        }
        Ok(())
    }
}
