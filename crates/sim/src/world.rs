//! One run: a world of devices, a server, a broker and a network, in which everything that can go wrong does, at times that the seed decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mstore_engine::{Ask, CatchUpOutcome, Effect, Fault, Input, UploadOutcome};
use mstore_protocol::{Collection, DeviceState, Frame, Head, OperationId, Timestamp};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    device::{Broken, Device, SaleState},
    server::{Message, Reply, Server},
};

/// How bad it gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// A frame or head is lost, comes twice, or comes late.
    pub message: f64,
    /// A call fails, or its answer is lost or breaks off.
    pub call: f64,
    /// Something breaks at a step: a partition, a restart of the broker, a crash, a flipped bit, a forgotten deletion.
    pub accident: f64,
    /// The server is put back to a backup now and then.
    pub restores: bool,
}

impl Weather {
    /// Nothing goes wrong.
    pub const CALM: Self = Self { message: 0.0, call: 0.0, accident: 0.0, restores: false };
    /// Everything but the server's disk goes wrong.
    pub const STORM: Self = Self { message: 0.12, call: 0.15, accident: 0.08, restores: false };
    /// The server's disk too.
    pub const DISASTER: Self = Self { restores: true, ..Self::STORM };
}

/// A run that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Commits of the server.
    pub commits: u64,
    /// Operations committed on devices.
    pub operations: usize,
    /// Events handled.
    pub steps: u64,
    /// Virtual milliseconds until all was quiet.
    pub took_ms: u64,
}

/// A promise was broken.
#[derive(Debug)]
pub struct Failure {
    /// The run.
    pub seed: u64,
    /// Which promise.
    pub what: String,
    /// The last things that happened.
    pub trace: Vec<String>,
}

const DEVICES: usize = 3;
const ACTIVE_MS: u64 = 20_000;
/// The poll bounds staleness: two of them and a little must do.
const QUIET_MS: u64 = 700_000;
const STEPS_MAX: u64 = 60_000;
/// Calls that a device may make in a run: a storm of retries is a failure too.
const CALLS_MAX: u64 = 2_500;
const TRACE_MAX: usize = 60;

#[derive(Debug)]
enum Event {
    Wake,
    Step,
    HeadTimer,
    MqttUp { life: u32, link: u32 },
    MqttDown { life: u32, link: u32 },
    Deliver { life: u32, link: u32, message: Message },
    CallArrives { life: u32, call: Call },
    CallEnds { life: u32, end: Box<End> },
    Restart,
}

#[derive(Debug)]
enum Call {
    Changes(Ask),
    Head,
    SubDigests(Collection),
    Rows(Collection, Vec<u8>),
    Upload(Vec<OperationId>),
}

type RangeRows = Vec<(crate::server::Key, Box<str>)>;

#[derive(Debug)]
enum End {
    Changes(Ask, Option<Reply>, usize),
    Head(Option<Head>),
    SubDigests(Option<Vec<u8>>),
    Rows(Option<(mstore_protocol::Cursor, RangeRows)>),
    Upload(Option<Vec<mstore_protocol::Verdict>>),
}

#[derive(Debug, Default)]
struct Wires {
    mqtt_cut: bool,
    http_cut: bool,
    subscribed: bool,
    link: u32,
    crashed: bool,
    calls: u64,
}

struct World {
    dice: StdRng,
    weather: Weather,
    now: u64,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    made: u64,
    steps: u64,
    server: Server,
    retained: Option<Head>,
    broker_up: bool,
    devices: Vec<Device>,
    wires: Vec<Wires>,
    trace: Option<VecDeque<String>>,
}

/// Runs one seed. A failing one is run again for its trace.
pub fn run(seed: u64, weather: Weather) -> Result<Outcome, Failure> {
    World::new(seed, weather, false).live().map_err(|_| {
        let mut world = World::new(seed, weather, true);
        let what = world.live().err().unwrap_or_else(|| "the same seed gave another run".into());
        Failure { seed, what, trace: world.trace.unwrap_or_default().into() }
    })
}

impl World {
    fn new(seed: u64, weather: Weather, traced: bool) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let server = Server::new(&mut dice);
        let devices = (0..DEVICES).map(|_| Device::new(0, dice.random())).collect();
        let wires = (0..DEVICES).map(|_| Wires::default()).collect();
        Self {
            dice,
            weather,
            now: 0,
            events: BTreeMap::new(),
            made: 0,
            steps: 0,
            server,
            retained: None,
            broker_up: true,
            devices,
            wires,
            trace: traced.then(VecDeque::new),
        }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_MAX {
                trace.pop_front();
            }
            trace.push_back(format!("{:>7} {}", self.now, text()));
        }
    }

    fn at(&mut self, after_ms: u64, device: usize, event: Event) {
        self.made += 1;
        self.events.insert((self.now + after_ms, self.made), (device, event));
    }

    fn luck(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.is_active() && self.dice.random_bool(probability)
    }

    fn is_active(&self) -> bool {
        self.now < ACTIVE_MS
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_ms(i64::try_from(self.now).unwrap_or(i64::MAX))
    }

    fn live(&mut self) -> Result<Outcome, Broken> {
        self.at(0, 0, Event::Step);
        self.at(60_000, 0, Event::HeadTimer);
        for device in 0..DEVICES {
            self.feed(device, Input::Woken)?;
        }
        while let Some(((at, _), (device, event))) = self.events.pop_first() {
            self.now = at;
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(format!("{STEPS_MAX} steps and no rest"));
            }
            self.handle(device, event)?;
            if !self.is_active() && self.is_quiet() {
                return self.verdict();
            }
            if self.now > ACTIVE_MS + QUIET_MS {
                return Err(format!("not converged {QUIET_MS} ms after the last trouble: {}", self.differences()));
            }
        }
        Err("nothing more happens".into())
    }

    fn handle(&mut self, device: usize, event: Event) -> Result<(), Broken> {
        match event {
            Event::Wake if self.wires[device].crashed => Ok(()),
            Event::Wake => self.wake(device),
            Event::Step => self.step(),
            Event::HeadTimer => {
                self.publish(Message::Head(self.server.head(None)));
                self.at(60_000, 0, Event::HeadTimer);
                Ok(())
            }
            Event::MqttUp { life, link } if self.is_current(device, life, link) => self.mqtt_up(device),
            Event::MqttDown { life, link } if self.is_current(device, life, link) => {
                self.wires[device].subscribed = false;
                self.feed(device, Input::Disconnected)
            }
            Event::Deliver { life, link, message } if self.is_current(device, life, link) && self.wires[device].subscribed => {
                let input = match message {
                    Message::Frame(collection, payload) => {
                        Input::FrameArrived(collection, Frame::parse(payload.as_bytes()).map_err(|error| error.to_string())?)
                    }
                    Message::Head(head) => Input::HeadArrived(head),
                };
                self.feed(device, input)
            }
            Event::CallArrives { life, call } if self.devices[device].life == life => {
                self.call_arrives(device, call);
                Ok(())
            }
            Event::CallEnds { life, end } if self.devices[device].life == life && !self.wires[device].crashed => {
                self.call_ends(device, *end)
            }
            Event::Restart => {
                let seed = self.dice.random();
                self.devices[device].restart(self.now, seed);
                self.wires[device].crashed = false;
                self.note(|| format!("device {device} starts"));
                self.feed(device, Input::Woken)
            }
            Event::MqttUp { .. } | Event::MqttDown { .. } | Event::Deliver { .. } | Event::CallArrives { .. } | Event::CallEnds { .. } => {
                Ok(())
            }
        }
    }

    fn is_current(&self, device: usize, life: u32, link: u32) -> bool {
        self.devices[device].life == life && self.wires[device].link == link && !self.wires[device].crashed
    }

    fn wake(&mut self, device: usize) -> Result<(), Broken> {
        if self.devices[device].session.next_deadline().is_some_and(|due| due <= self.now) {
            return self.feed(device, Input::Woken);
        }
        Ok(())
    }

    /// Gives an input to a session and carries out what comes of it, unless the device crashes in between.
    fn feed(&mut self, device: usize, input: Input) -> Result<(), Broken> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.note(|| format!("device {device} ← {}", short(&format!("{input:?}"))));
            self.devices[device].session.handle(self.now, input);
            for effect in self.devices[device].take_effects() {
                if self.luck(self.weather.accident / 40.0) {
                    self.crash(device);
                    return Ok(());
                }
                self.note(|| format!("device {device} → {}", short(&format!("{effect:?}"))));
                match self.perform(device, effect)? {
                    Some(failed @ Input::ApplyFailed { .. }) => inputs.push_front(failed),
                    other => inputs.extend(other),
                }
                inputs.extend(self.devices[device].take_unnamed());
            }
        }
        if let Some(due) = self.devices[device].session.next_deadline() {
            self.at(due.saturating_sub(self.now), device, Event::Wake);
        }
        Ok(())
    }

    fn perform(&mut self, device: usize, effect: Effect) -> Result<Option<Input>, Broken> {
        let call = match effect {
            Effect::Connect { .. } => {
                self.connect(device);
                return Ok(None);
            }
            Effect::Subscribe(_) | Effect::Disconnect => return Ok(None),
            Effect::CatchUp(ask) => Call::Changes(ask),
            Effect::FetchHead => Call::Head,
            Effect::FetchSubDigests(collection) => Call::SubDigests(collection),
            Effect::FetchRows { collection, ranges } => Call::Rows(collection, ranges),
            Effect::Upload(ids) => Call::Upload(ids),
            Effect::Apply(_)
            | Effect::Show { .. }
            | Effect::DropStaged
            | Effect::Adopt(_)
            | Effect::ReplaceRanges { .. }
            | Effect::Settle(_)
            | Effect::Requeue => {
                let input = self.devices[device].perform(effect)?;
                self.check_device(device)?;
                return Ok(input);
            }
        };
        self.call(device, call)?;
        Ok(None)
    }

    fn delay(&mut self) -> u64 {
        let late = self.luck(self.weather.message);
        self.dice.random_range(1..if late { 400 } else { 6 })
    }

    fn connect(&mut self, device: usize) {
        self.wires[device].link += 1;
        let (life, link) = (self.devices[device].life, self.wires[device].link);
        let works = self.broker_up && !self.wires[device].mqtt_cut;
        let delay = self.delay();
        self.at(delay, device, if works { Event::MqttUp { life, link } } else { Event::MqttDown { life, link } });
    }

    fn mqtt_up(&mut self, device: usize) -> Result<(), Broken> {
        if !self.broker_up || self.wires[device].mqtt_cut {
            return self.feed(device, Input::Disconnected);
        }
        self.wires[device].subscribed = true;
        if let Some(head) = self.retained.clone() {
            self.deliver(device, Message::Head(head));
        }
        self.feed(device, Input::Subscribed)
    }

    fn publish(&mut self, message: Message) {
        if !self.broker_up {
            return;
        }
        if let Message::Head(head) = &message {
            self.retained = Some(head.clone());
        }
        for device in 0..DEVICES {
            if self.wires[device].subscribed {
                self.deliver(device, message.clone());
            }
        }
    }

    fn deliver(&mut self, device: usize, message: Message) {
        let (life, link) = (self.devices[device].life, self.wires[device].link);
        let copies = if self.luck(self.weather.message) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.luck(self.weather.message) {
                let delay = self.delay();
                self.at(delay, device, Event::Deliver { life, link, message: message.clone() });
            }
        }
    }

    fn call(&mut self, device: usize, call: Call) -> Result<(), Broken> {
        self.wires[device].calls += 1;
        if self.wires[device].calls > CALLS_MAX {
            return Err(format!("device {device} made more than {CALLS_MAX} calls"));
        }
        let life = self.devices[device].life;
        let delay = self.delay();
        if self.wires[device].http_cut || self.luck(self.weather.call) {
            let end = Box::new(lost(call));
            self.at(delay * 10, device, Event::CallEnds { life, end });
        } else {
            self.at(delay, device, Event::CallArrives { life, call });
        }
        Ok(())
    }

    /// The server answers; the answer may be lost or break off on its way back.
    fn call_arrives(&mut self, device: usize, call: Call) {
        let life = self.devices[device].life;
        let is_lost = self.luck(self.weather.call);
        let is_cut = self.luck(self.weather.call);
        let end = match call {
            Call::Changes(ask) => {
                let reply = self.server.changes(&mut self.dice, device, ask.after, ask.resume.as_deref());
                let lines = match &reply {
                    Reply::Lines(answer) if is_cut => self.dice.random_range(0..=answer.lines.len()),
                    Reply::Lines(_) | Reply::Unchanged | Reply::SnapshotRequired => usize::MAX,
                };
                End::Changes(ask, (!is_lost).then_some(reply), lines)
            }
            Call::Head => End::Head((!is_lost).then(|| self.server.head(None))),
            Call::SubDigests(collection) => {
                let theirs = self.devices[device].sub_digests(&collection);
                End::SubDigests((!is_lost).then(|| self.server.sub_digest_ranges(&collection, &theirs)))
            }
            Call::Rows(collection, ranges) => {
                End::Rows((!is_lost).then(|| (self.server.cursor(), self.server.range_rows(&collection, &ranges))))
            }
            Call::Upload(ids) => {
                let sales = self.devices[device].sales(&ids);
                let (verdicts, messages) = self.server.accept(&mut self.dice, self.now, device, &sales, DEVICES);
                messages.into_iter().for_each(|message| self.publish(message));
                End::Upload((!is_lost).then_some(verdicts))
            }
        };
        let delay = self.delay();
        self.at(delay, device, Event::CallEnds { life, end: Box::new(end) });
    }

    fn call_ends(&mut self, device: usize, end: End) -> Result<(), Broken> {
        let input = match end {
            End::Changes(_, None, _) => Input::CaughtUp(CatchUpOutcome::Failed(Fault::default())),
            End::Changes(_, Some(Reply::Unchanged), _) => Input::CaughtUp(CatchUpOutcome::Unchanged),
            End::Changes(_, Some(Reply::SnapshotRequired), _) => Input::CaughtUp(CatchUpOutcome::SnapshotRequired),
            End::Changes(ask, Some(Reply::Lines(answer)), lines) => {
                self.devices[device].stage(&ask, &answer, lines);
                Input::CaughtUp(if lines == usize::MAX {
                    CatchUpOutcome::Complete { to: answer.to, digests: answer.digests }
                } else {
                    CatchUpOutcome::Broken { resume: self.devices[device].position() }
                })
            }
            End::Head(head) => Input::HeadFetched(head.ok_or_else(Fault::default)),
            End::SubDigests(ranges) => Input::Compared(ranges.ok_or_else(Fault::default)),
            End::Rows(None) => Input::RowsFetched(Err(Fault::default())),
            End::Rows(Some((at, rows))) => {
                self.devices[device].fetched(rows);
                Input::RowsFetched(Ok(at))
            }
            End::Upload(verdicts) => Input::Uploaded(verdicts.map_or(UploadOutcome::Failed(Fault::default()), UploadOutcome::Answered)),
        };
        self.feed(device, input)
    }

    /// What people and the weather do; ends with all wires whole.
    fn step(&mut self) -> Result<(), Broken> {
        if !self.is_active() {
            return self.calm();
        }
        if self.dice.random_bool(0.5) {
            let messages = self.server.write(&mut self.dice, self.now, DEVICES);
            messages.into_iter().for_each(|message| self.publish(message));
        }
        let device = self.dice.random_range(0..DEVICES);
        if self.dice.random_bool(0.4) && !self.wires[device].crashed {
            self.sell(device)?;
        }
        if self.dice.random_bool(0.2) {
            self.publish(Message::Head(self.server.head(None)));
        }
        if self.luck(self.weather.accident) {
            self.accident(device)?;
        }
        let pause = self.dice.random_range(1..300);
        self.at(pause, 0, Event::Step);
        Ok(())
    }

    fn sell(&mut self, device: usize) -> Result<(), Broken> {
        let id = OperationId::from_parts(self.clock(), self.dice.random());
        let product = format!("item-{}", self.dice.random_range(0..12));
        let (quantity, impossible) = (self.dice.random_range(1..4), self.dice.random_bool(0.05));
        let (clock, before) = (self.clock(), self.devices[device].stock(&product));
        let input = self.devices[device].sell(id, clock, product.clone(), quantity, impossible);
        let after = self.devices[device].stock(&product);
        if before.map(|before| before - mstore_protocol::Quantity::from_units(quantity)) != after {
            return Err(format!("a sale of {quantity} moved the stock shown from {before:?} to {after:?}"));
        }
        self.feed(device, input)
    }

    fn accident(&mut self, device: usize) -> Result<(), Broken> {
        match self.dice.random_range(0..8) {
            0 => {
                self.wires[device].mqtt_cut ^= true;
                if self.wires[device].mqtt_cut {
                    return self.cut(device);
                }
            }
            1 => self.wires[device].http_cut ^= true,
            2 => {
                self.broker_up ^= true;
                self.note(|| "the broker stops or starts".into());
                if !self.broker_up {
                    self.retained = None;
                    (0..DEVICES).try_for_each(|device| self.cut(device))?;
                }
            }
            3 => self.crash(device),
            4 => {
                let n = self.dice.random_range(0..100);
                if self.devices[device].disk.cursor.is_some() && !self.wires[device].crashed && self.dice.random_bool(0.3) {
                    // A device notices at its next start at the latest: its digests are computed from its rows then.
                    self.crash(device);
                    self.devices[device].rot(n);
                }
            }
            5 => self.server.raise_floor(),
            6 if self.weather.restores => self.server.back_up(),
            7 if self.weather.restores => {
                if self.server.restore() {
                    self.note(|| "the server is put back to its backup".into());
                }
            }
            _ => {
                let input = if self.dice.random_bool(0.5) { Input::SyncRequested } else { Input::ResyncRequested };
                if !self.wires[device].crashed {
                    return self.feed(device, input);
                }
            }
        }
        Ok(())
    }

    fn cut(&mut self, device: usize) -> Result<(), Broken> {
        if std::mem::take(&mut self.wires[device].subscribed) && !self.wires[device].crashed {
            return self.feed(device, Input::Disconnected);
        }
        Ok(())
    }

    fn crash(&mut self, device: usize) {
        if !std::mem::replace(&mut self.wires[device].crashed, true) {
            self.note(|| format!("device {device} crashes"));
            self.wires[device].subscribed = false;
            self.devices[device].life += 1;
            let pause = self.dice.random_range(1..3_000);
            self.at(pause, device, Event::Restart);
        }
    }

    /// The trouble is over: all wires whole, one more write that everybody must see.
    fn calm(&mut self) -> Result<(), Broken> {
        self.note(|| "calm".into());
        self.broker_up = true;
        for wires in &mut self.wires {
            wires.http_cut = false;
            wires.mqtt_cut = false;
        }
        let messages = self.server.write(&mut self.dice, self.now, DEVICES);
        messages.into_iter().for_each(|message| self.publish(message));
        self.publish(Message::Head(self.server.head(None)));
        if self.server.is_below_its_past() {
            // A lost operation is noticed when the numbering passes the commit that it was promised for.
            self.at(100, 0, Event::Step);
        }
        Ok(())
    }

    /// What must hold on a device at every moment.
    fn check_device(&self, device: usize) -> Result<(), Broken> {
        let held = &self.devices[device];
        let Some(cursor) = held.disk.cursor else { return Ok(()) };
        if self.server.restores > 0 || self.weather.accident > 0.0 {
            // Flipped bits and a restored server make states that never were, until they are noticed.
            return self.check_overlay(device);
        }
        let Some(true_then) = self.server.history.get(&cursor.to_string()) else {
            return Err(format!("device {device} shows {cursor}, which never was"));
        };
        let mine = held.digests();
        let same = true_then.iter().all(|(collection, digest)| mine.get(collection).copied().unwrap_or_default() == *digest);
        if same { self.check_overlay(device) } else { Err(format!("device {device} at {cursor} shows a state that the server never had")) }
    }

    /// An own operation is in the overlay exactly as long as the rows shown do not contain it.
    fn check_overlay(&self, device: usize) -> Result<(), Broken> {
        let held = &self.devices[device];
        let Some(cursor) = held.disk.cursor.filter(|_| self.server.restores == 0) else { return Ok(()) };
        for sale in held.disk.journal.iter().filter(|sale| sale.state != SaleState::Rejected) {
            if sale.shown != self.server.contained(sale.id, cursor) {
                return Err(format!("operation {} of device {device} at {cursor}: shown {}, contained otherwise", sale.id, sale.shown));
            }
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        let rows = self.server.rows();
        !self.server.is_below_its_past()
            && self.devices.iter().zip(&self.wires).all(|(device, wires)| {
                let same = device.disk.rows.len() == rows.len()
                    && device.disk.rows.iter().all(|(key, row)| rows.get(key).is_some_and(|text| **text == *row.as_str()));
                let live = device.session.status().state == DeviceState::Live;
                !wires.crashed && same && live && device.queued() == 0 && device.disk.cursor == Some(self.server.cursor())
            })
    }

    fn differences(&self) -> String {
        let rows = self.server.rows();
        let of = |device: &Device| {
            let wrong = rows.iter().filter(|(key, text)| device.disk.rows.get(*key).is_none_or(|row| row.as_str() != &***text)).count();
            let state = device.session.status().state;
            format!(
                "{state:?} at {:?}, {wrong} of {} rows wrong, {} rows here, {} queued",
                device.disk.cursor,
                rows.len(),
                device.disk.rows.len(),
                device.queued()
            )
        };
        let each: Vec<String> = self.devices.iter().map(of).collect();
        format!("server {}; {}", self.server.cursor(), each.join("; "))
    }

    /// At the end: every operation exactly once.
    fn verdict(&self) -> Result<Outcome, Broken> {
        let mut seen = BTreeSet::new();
        let mut operations = 0;
        for sale in self.devices.iter().flat_map(|device| &device.disk.journal) {
            operations += 1;
            let fits = match sale.state {
                SaleState::Accepted { .. } => !sale.impossible && self.server.has_accepted(sale.id) && sale.shown,
                SaleState::Rejected => sale.impossible && !self.server.has_accepted(sale.id),
                SaleState::Queued => false,
            };
            if !fits || !seen.insert(sale.id) {
                return Err(format!("operation {} ended as {:?}, shown {}", sale.id, sale.state, sale.shown));
            }
        }
        let accepted = self.server.accepted_count();
        let rejected = self.devices.iter().flat_map(|device| &device.disk.journal).filter(|sale| sale.state == SaleState::Rejected).count();
        if accepted + rejected != operations {
            return Err(format!("{operations} operations on the devices, {accepted} accepted and {rejected} rejected at the server"));
        }
        Ok(Outcome { commits: self.server.cursor().seq, operations, steps: self.steps, took_ms: self.now })
    }
}

fn lost(call: Call) -> End {
    match call {
        Call::Changes(ask) => End::Changes(ask, None, 0),
        Call::Head => End::Head(None),
        Call::SubDigests(_) => End::SubDigests(None),
        Call::Rows(..) => End::Rows(None),
        Call::Upload(_) => End::Upload(None),
    }
}

fn short(text: &str) -> String {
    text.chars().take(220).collect()
}
