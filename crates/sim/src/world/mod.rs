//! One run: devices, a server, a broker and a network, in which everything happens that the plan and the dice say.

mod faults;
mod network;
mod people;
mod publisher;
mod verdict;

use std::collections::{BTreeMap, VecDeque};

use mstore_engine::{Effect, Input};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use self::network::{Call, End, Wire};
pub use self::verdict::Outcome;
use crate::{
    broker::Broker,
    bug::Bug,
    device::Device,
    plan::{Act, DEVICES, Death, Plan},
    promise::{Kept, Promise, broken},
    server::{Entry, Server},
    trace::{self, Trace},
    truth::{self, Truth},
};

/// The poll bounds staleness: two of them and a little must do.
const QUIET_MS: u64 = 700_000;
/// Events of a run.
const EVENTS_MAX: u64 = 80_000;
/// A device whose disk took no verdicts tries again after this, milliseconds.
const SETTLE_RETRY_MS: u64 = 2_000;
/// Inputs that may follow from one, and effects of one input.
const CHAIN_MAX: usize = 400;

/// What ends by itself.
#[derive(Debug, Clone, Copy)]
enum Heal {
    Mqtt(usize),
    Http(usize),
    Disk(usize),
    ServerDisk,
    Broker,
    Server,
    Enrol(usize),
}

#[derive(Debug)]
enum Event {
    Planned(usize),
    Heal(Heal),
    /// The trouble is over.
    Calm,
    /// The server looks for marks of other programs.
    Sequence,
    /// The second transaction of a bug.
    WriteOutbox {
        life: u32,
    },
    Heads,
    BrokerTakes {
        server_life: u32,
        broker_life: u32,
        entry: Entry,
    },
    BrokerAcknowledged {
        life: u32,
        entry: u64,
    },
    Wake {
        device: usize,
    },
    MqttUp {
        device: usize,
        life: u32,
        link: u32,
    },
    MqttDown {
        device: usize,
        life: u32,
        link: u32,
    },
    Deliver {
        device: usize,
        life: u32,
        link: u32,
        message: network::Delivery,
    },
    CallArrives {
        device: usize,
        life: u32,
        call: Call,
    },
    CallEnds {
        device: usize,
        life: u32,
        end: Box<End>,
    },
    Start {
        device: usize,
    },
    /// A device tries again to write verdicts down.
    Settle {
        device: usize,
        life: u32,
    },
}

/// The world.
pub(crate) struct World {
    plan: Plan,
    dice: StdRng,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
    steps: u64,
    is_calm: bool,
    server: Server,
    broker: Broker,
    devices: Vec<Device>,
    wires: Vec<Wire>,
    publisher: publisher::Publisher,
    truth: Truth,
    /// How the server dies next, and for how long.
    doom: Option<(Death, u64)>,
    trace: Trace,
}

impl World {
    pub(crate) fn new(plan: &Plan, bug: Option<Bug>, traced: bool) -> Self {
        let mut dice = StdRng::seed_from_u64(plan.seed ^ 0x5eed_0fd1_ce00);
        let server = Server::new(&mut dice, DEVICES, plan.policy, bug);
        let branch = |n: usize| server.db.registry[n].branch;
        let devices = (0..DEVICES).map(|n| Device::new(n, branch(n), dice.random(), bug)).collect();
        let wires = (0..DEVICES).map(|n| Wire::new(plan.seed, n)).collect();
        Self {
            plan: plan.clone(),
            dice,
            now: 0,
            events: BTreeMap::new(),
            made: 0,
            steps: 0,
            is_calm: false,
            truth: Truth::new(&server.db),
            server,
            broker: Broker::new(),
            devices,
            wires,
            publisher: publisher::Publisher::default(),
            doom: None,
            trace: Trace::new(traced),
        }
    }

    /// The last events.
    pub(crate) fn into_trace(self) -> Vec<String> {
        self.trace.into_lines()
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace.note(self.now, text);
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.made += 1;
        self.events.insert((self.now + ms, self.made), event);
    }

    /// Lives until all is quiet after the last trouble.
    pub(crate) fn live(&mut self) -> Kept<Outcome> {
        for (n, at) in self.plan.steps.iter().map(|step| step.at_ms).enumerate().collect::<Vec<_>>() {
            self.after(at, Event::Planned(n));
        }
        self.after(self.plan.active_ms, Event::Calm);
        self.after(1_000, Event::Heads);
        self.after(0, Event::Sequence);
        for device in 0..DEVICES {
            self.feed(device, Input::Woken)?;
        }
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            self.steps += 1;
            if self.steps > EVENTS_MAX {
                return broken(Promise::BoundedWork, format!("{EVENTS_MAX} events and no rest"));
            }
            self.handle(event)?;
            if self.is_calm && self.is_quiet() {
                return self.verdict();
            }
            if self.now > self.plan.active_ms + QUIET_MS {
                return broken(Promise::Convergence, format!("not quiet {QUIET_MS} ms after the last trouble: {}", self.differences()));
            }
        }
        broken(Promise::Convergence, "nothing more happens")
    }

    fn handle(&mut self, event: Event) -> Kept {
        match event {
            Event::Planned(n) => {
                let act = self.plan.steps[n].act.clone();
                if !self.is_calm { self.act(act) } else { Ok(()) }
            }
            Event::Heal(heal) => self.heal(heal),
            Event::Calm => self.calm(),
            Event::Sequence => self.look_for_marks(),
            Event::WriteOutbox { life } => {
                if self.server.life == life {
                    self.server.write_outbox();
                    self.pump();
                }
                Ok(())
            }
            Event::Heads => self.heads(),
            Event::BrokerTakes { server_life, broker_life, entry } => self.broker_takes(server_life, broker_life, &entry),
            Event::BrokerAcknowledged { life, entry } => self.acknowledged(life, entry),
            Event::Wake { device } => self.wake(device),
            Event::MqttUp { device, life, link } if self.is_current(device, life, link) => self.mqtt_up(device),
            Event::MqttDown { device, life, link } if self.is_current(device, life, link) => self.feed(device, Input::Disconnected),
            Event::Deliver { device, life, link, message } if self.is_current(device, life, link) => self.delivered(device, message),
            Event::CallArrives { device, life, call } if self.is_alive(device, life) => self.call_arrives(device, call),
            Event::CallEnds { device, life, end } if self.is_alive(device, life) => self.call_ends(device, *end),
            Event::Start { device } => self.start_device(device),
            Event::Settle { device, life } if self.is_alive(device, life) => {
                let requeued = self.devices[device].settle();
                self.settle_later(device);
                self.check(device)?;
                requeued.map_or(Ok(()), |input| self.feed(device, input))
            }
            Event::MqttUp { .. }
            | Event::MqttDown { .. }
            | Event::Deliver { .. }
            | Event::CallArrives { .. }
            | Event::CallEnds { .. }
            | Event::Settle { .. } => Ok(()),
        }
    }

    fn is_alive(&self, device: usize, life: u32) -> bool {
        self.devices[device].life == life && self.devices[device].is_on
    }

    fn is_current(&self, device: usize, life: u32, link: u32) -> bool {
        self.is_alive(device, life) && self.wires[device].link == link
    }

    fn wake(&mut self, device: usize) -> Kept {
        self.wires[device].wake_at = None;
        let held = &self.devices[device];
        if !held.is_on {
            return Ok(());
        }
        if held.session.next_deadline().is_some_and(|due| due <= self.now) {
            return self.feed(device, Input::Woken);
        }
        self.set_alarm(device);
        Ok(())
    }

    /// One wake-up at a time, for the next deadline.
    fn set_alarm(&mut self, device: usize) {
        let Some(due) = self.devices[device].session.next_deadline() else { return };
        let due = due.max(self.now);
        if self.wires[device].wake_at.is_none_or(|at| due < at) {
            self.wires[device].wake_at = Some(due);
            self.after(due - self.now, Event::Wake { device });
        }
    }

    /// Gives an input to a session and carries out what comes of it, unless the device dies in between.
    fn feed(&mut self, device: usize, input: Input) -> Kept {
        let mut inputs = VecDeque::from([input]);
        let mut fed = 0;
        loop {
            while let Some(input) = inputs.pop_front() {
                fed += 1;
                if fed > CHAIN_MAX {
                    return broken(Promise::BoundedWork, format!("device {device} took {CHAIN_MAX} inputs in a row"));
                }
                self.note(|| format!("device {device} ← {}", trace::told(&input)));
                self.devices[device].session.handle(self.now, input);
                if !self.carry_out(device, &mut inputs)? {
                    return Ok(());
                }
            }
            if !self.flush(device, &mut inputs)?.1 {
                return Ok(());
            }
            if inputs.is_empty() {
                break;
            }
        }
        self.set_alarm(device);
        Ok(())
    }

    /// Takes the effects of an input out; false when the device died.
    fn carry_out(&mut self, device: usize, inputs: &mut VecDeque<Input>) -> Kept<bool> {
        let mut done = 0;
        while let Some(effect) = self.devices[device].session.poll() {
            done += 1;
            if done > CHAIN_MAX * 3 {
                return broken(Promise::BoundedWork, format!("device {device} was given {done} effects for one input"));
            }
            if self.burns(device) {
                return Ok(false);
            }
            self.note(|| format!("device {device} → {}", trace::wanted(&effect)));
            if !matches!(effect, Effect::Apply(_)) {
                let (shown, lives) = self.flush(device, inputs)?;
                if !lives {
                    return Ok(false);
                }
                let builds_on_it =
                    matches!(effect, Effect::Show { .. } | Effect::Adopt(_) | Effect::Renumber { .. } | Effect::ReplaceRanges { .. });
                if !shown && builds_on_it {
                    continue;
                }
            }
            self.perform(device, effect, inputs)?;
        }
        Ok(true)
    }

    /// The fuse gets shorter by one effect; true when the device dies of it.
    fn burns(&mut self, device: usize) -> bool {
        match self.devices[device].fuse {
            Some(0) => {
                self.kill_device(device);
                true
            }
            Some(left) => {
                self.devices[device].fuse = Some(left - 1);
                false
            }
            None => false,
        }
    }

    /// Shows what is ready: whether it is shown, and whether the device still lives.
    fn flush(&mut self, device: usize, inputs: &mut VecDeque<Input>) -> Kept<(bool, bool)> {
        let shown = self.devices[device].flush(inputs)?;
        if !shown && self.devices[device].fuse == Some(0) {
            self.kill_device(device);
            return Ok((false, false));
        }
        self.check(device)?;
        Ok((shown, true))
    }

    fn check(&mut self, device: usize) -> Kept {
        self.truth.check_device(device, &mut self.devices[device])
    }

    fn perform(&mut self, device: usize, effect: Effect, inputs: &mut VecDeque<Input>) -> Kept {
        let call = match effect {
            Effect::Connect { .. } => {
                self.connect(device);
                return Ok(());
            }
            Effect::Subscribe(_) | Effect::Disconnect => return Ok(()),
            Effect::CatchUp(ask) => Call::Changes(ask),
            Effect::FetchHead => Call::Head,
            Effect::FetchSubDigests(collection) => Call::SubDigests(collection),
            Effect::FetchRows { collection, ranges } => Call::Rows(collection, ranges),
            Effect::Upload(ids) => Call::Upload(ids),
            Effect::Apply(_)
            | Effect::Show { .. }
            | Effect::DropStaged
            | Effect::Adopt(_)
            | Effect::Renumber { .. }
            | Effect::Recount
            | Effect::ReplaceRanges { .. }
            | Effect::Settle(_)
            | Effect::Requeue => {
                self.devices[device].perform(effect, inputs)?;
                self.settle_later(device);
                return self.check(device);
            }
        };
        self.call(device, call)
    }

    fn settle_later(&mut self, device: usize) {
        if self.devices[device].has_unsettled() {
            let life = self.devices[device].life;
            self.after(SETTLE_RETRY_MS, Event::Settle { device, life });
        }
    }

    /// The server's transaction is durable: remember what became true, check it, publish it.
    fn committed(&mut self, made: Vec<crate::server::Made>) -> Kept {
        for commit in &made {
            self.note(|| format!("the server has {} in branch {}", trace::brief(commit.cursor), commit.branch));
            self.truth.made(commit);
            self.publisher.changed(commit.branch, self.now);
        }
        truth::check_server(&self.server.db)?;
        if made.is_empty() {
            return Ok(());
        }
        let life = self.server.life;
        self.after(1, Event::WriteOutbox { life });
        if let Some((Death::AfterCommit, ms)) = self.doom {
            self.kill_server(ms)?;
        } else {
            self.pump();
        }
        Ok(())
    }

    fn look_for_marks(&mut self) -> Kept {
        if !self.server.is_up || !self.server.db.has_marks() {
            return Ok(());
        }
        let made = self.server.sequence(&mut self.dice, self.now);
        self.committed(made)?;
        if self.server.db.has_marks() {
            self.after(20, Event::Sequence);
        }
        Ok(())
    }

    fn act(&mut self, act: Act) -> Kept {
        self.note(|| act.to_string());
        match act {
            Act::Deed(deed) => self.people(deed),
            Act::Fault(fault) => self.fault(&fault),
            Act::Till(device, fault) => self.till_fault(device, &fault),
        }
    }
}
