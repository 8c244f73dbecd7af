//! The network between a device and everybody else: MQTT connections and HTTP calls, with all that happens to them on their way.

use mstore_engine::{Ask, CatchUpOutcome, Comparison, Fault, Input, UploadOutcome};
use mstore_protocol::{Code, Collection, Cursor, Frame, Head, OperationId, Verdict};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{Event, World};
use crate::{
    broker::Session,
    device::db::Fetched,
    promise::{Kept, Promise, broken},
    server::{Login, Reply, Upload, changes::Question},
};

/// Calls that a device may make in [`CALLS_WITHIN_MS`]: a storm of retries is a failure too.
const CALLS_MAX: usize = 150;
const CALLS_WITHIN_MS: u64 = 10_000;

/// What a subscriber gets.
#[derive(Debug, Clone)]
pub(super) enum Delivery {
    Frame(Collection, Box<Frame>),
    Head(Box<Head>),
}

#[derive(Debug)]
pub(super) enum Call {
    Changes(Ask),
    Head,
    SubDigests(Collection),
    Rows(Collection, Vec<u8>),
    Upload(Vec<OperationId>),
    Rotate,
}

/// Why a call came to nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Missed {
    Lost,
    /// The server says that it cannot now.
    Later,
    Refused(Code),
}

impl Missed {
    fn fault(self) -> Fault {
        match self {
            Self::Lost => Fault::default(),
            Self::Later => Fault { retry_after_ms: Some(1_000), reached: true },
            Self::Refused(_) => Fault { retry_after_ms: None, reached: true },
        }
    }
}

/// The rows of some ranges, and where the server was then.

#[derive(Debug)]
pub(super) enum End {
    /// With the lines that came; all of them if there are no more.
    Changes(Ask, Result<Reply, Missed>, usize),
    Head(Result<Head, Missed>),
    SubDigests(Result<Comparison, Missed>),
    Rows(Result<(Cursor, Fetched), Missed>),
    Upload(Result<Vec<Verdict>, Missed>),
    Rotate(Option<u32>),
}

/// A device's ways to the others, and the luck on them: each device has dice of its own, so that leaving a step out changes little elsewhere.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) mqtt_cut: bool,
    pub(super) http_cut: bool,
    /// Which connection to the broker.
    pub(super) link: u32,
    /// When the session is woken next.
    pub(super) wake_at: Option<u64>,
    /// How long it is away when it dies next, milliseconds.
    pub(super) away_ms: u64,
    pub(super) dice: StdRng,
}

impl Wire {
    pub(super) fn new(seed: u64, n: usize) -> Self {
        let dice = StdRng::seed_from_u64(seed.rotate_left(17) ^ (n as u64 + 1));
        Self { mqtt_cut: false, http_cut: false, link: 0, wake_at: None, away_ms: 100, dice }
    }
}

impl World {
    fn luck(&mut self, device: usize, probability: f64) -> bool {
        probability > 0.0 && !self.is_calm && self.wires[device].dice.random_bool(probability)
    }

    fn delay(&mut self, device: usize) -> u64 {
        let late = self.luck(device, self.plan.weather.message);
        self.wires[device].dice.random_range(1..if late { 400 } else { 6 })
    }

    pub(super) fn connect(&mut self, device: usize) {
        self.wires[device].link += 1;
        let (life, link) = (self.devices[device].life, self.wires[device].link);
        let works = self.broker.is_up && !self.wires[device].mqtt_cut;
        let delay = self.delay(device);
        let event = if works { Event::MqttUp { device, life, link } } else { Event::MqttDown { device, life, link } };
        self.after(delay, event);
    }

    /// The broker asks the server whether the device may; it knows nothing itself.
    pub(super) fn mqtt_up(&mut self, device: usize) -> Kept {
        if !self.broker.is_up || !self.server.is_up || self.wires[device].mqtt_cut {
            return self.feed(device, Input::Disconnected);
        }
        let login = self.devices[device].db.login;
        if let Err(code) = self.server.db.registry[device].reads(login) {
            return self.feed(device, Input::ConnectionRefused(code));
        }
        self.broker.sessions[device] = Some(Session { branch: login.branch, link: self.wires[device].link });
        if let Some(head) = self.broker.retained(login.branch) {
            self.deliver(device, &Delivery::Head(Box::new(head)));
        }
        self.feed(device, Input::Subscribed)
    }

    /// The connection to the broker breaks, if there is one.
    pub(super) fn disconnect(&mut self, device: usize) -> Kept {
        let was_connected = self.broker.sessions[device].take().is_some();
        if was_connected && self.devices[device].is_on {
            return self.feed(device, Input::Disconnected);
        }
        Ok(())
    }

    pub(super) fn deliver(&mut self, device: usize, message: &Delivery) {
        let (life, link) = (self.devices[device].life, self.wires[device].link);
        let copies = if self.luck(device, self.plan.weather.message) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.luck(device, self.plan.weather.message) {
                let delay = self.delay(device);
                self.after(delay, Event::Deliver { device, life, link, message: message.clone() });
            }
        }
    }

    pub(super) fn delivered(&mut self, device: usize, message: Delivery) -> Kept {
        if self.broker.sessions[device].is_none_or(|session| session.link != self.wires[device].link) {
            return Ok(());
        }
        let input = match message {
            Delivery::Frame(collection, frame) => {
                self.devices[device].saw(self.now, frame.at);
                Input::FrameArrived(collection, *frame)
            }
            Delivery::Head(head) => Input::HeadArrived(*head),
        };
        self.feed(device, input)
    }

    pub(super) fn call(&mut self, device: usize, call: Call) -> Kept {
        let now = self.now;
        let calls = &mut self.devices[device].calls;
        calls.retain(|at| at + CALLS_WITHIN_MS > now);
        calls.push_back(now);
        if calls.len() > CALLS_MAX {
            return broken(Promise::BoundedWork, format!("device {device} made {CALLS_MAX} calls within {CALLS_WITHIN_MS} ms"));
        }
        let life = self.devices[device].life;
        let delay = self.delay(device);
        if self.wires[device].http_cut || !self.server.is_up || self.luck(device, self.plan.weather.call) {
            let end = Box::new(missed(call, Missed::Lost));
            self.after(delay * 10, Event::CallEnds { device, life, end });
        } else {
            self.after(delay, Event::CallArrives { device, life, call });
        }
        Ok(())
    }

    /// The server answers; the answer may be lost or break off on its way back, or the server dies before it is sent.
    pub(super) fn call_arrives(&mut self, device: usize, call: Call) -> Kept {
        let life = self.devices[device].life;
        let is_lost = self.luck(device, self.plan.weather.call);
        let is_cut = self.luck(device, self.plan.weather.call);
        let server_life = self.server.life;
        let login = self.devices[device].db.login;
        let mut end = if self.server.is_up { self.answer(device, login, call, is_cut)? } else { missed(call, Missed::Lost) };
        if is_lost || self.server.life != server_life {
            end = lost(end);
        }
        let delay = self.delay(device);
        self.after(delay, Event::CallEnds { device, life, end: Box::new(end) });
        Ok(())
    }

    fn answer(&mut self, device: usize, login: Login, call: Call, is_cut: bool) -> Kept<End> {
        let registered = &mut self.server.db.registry[device];
        let may = match &call {
            Call::Upload(_) => registered.uploads(login),
            Call::Rotate => registered.log_in(login),
            Call::Changes(_) | Call::Head | Call::SubDigests(_) | Call::Rows(..) => registered.reads(login),
        };
        if let Err(code) = may {
            return Ok(missed(call, Missed::Refused(code)));
        }
        let branch = login.branch;
        Ok(match call {
            Call::Changes(ask) => {
                let device_name = self.devices[device].name.clone();
                let question =
                    Question { branch, device: device_name, after: ask.after, resume: ask.resume.clone(), names_all: ask.over_ranges };
                let (reply, made) = self.server.changes(&mut self.dice, self.now, &question);
                self.committed(made.into_iter().collect())?;
                let lines = match &reply {
                    Reply::Lines(answer) if is_cut => self.wires[device].dice.random_range(0..=answer.lines.len()),
                    Reply::Lines(_) | Reply::Unchanged | Reply::SnapshotRequired | Reply::Restored => usize::MAX,
                };
                End::Changes(ask, Ok(reply), lines)
            }
            Call::Head => End::Head(Ok(self.server.head(branch, self.now, None))),
            Call::SubDigests(collection) => {
                let theirs = self.devices[device].db.sub_digests(&collection);
                let ranges = self.server.db.differing_ranges(branch, &collection, &theirs);
                let rows = self.devices[device].db.rows_in(&collection, &ranges);
                End::SubDigests(Ok(Comparison { at: self.server.db.branches[branch].cursor(), ranges, rows }))
            }
            Call::Rows(collection, ranges) => {
                let rows = self.server.db.range_rows(branch, &collection, &ranges);
                End::Rows(Ok((self.server.db.branches[branch].cursor(), Fetched { collection, ranges, rows })))
            }
            Call::Upload(ids) => End::Upload(self.upload(device, branch, &ids)?),
            Call::Rotate => End::Rotate(Some(self.server.db.registry[device].rotate())),
        })
    }

    fn upload(&mut self, device: usize, branch: usize, ids: &[OperationId]) -> Kept<Result<Vec<Verdict>, Missed>> {
        let held = &self.devices[device];
        let upload = Upload {
            branch,
            device: held.name.clone(),
            journal: held.db.journal_id.clone(),
            clock_offset_ms: held.clock_offset_ms(),
            operations: held.db.operations(ids),
        };
        let fresh: Vec<OperationId> = ids.iter().filter(|id| !self.server.db.operations.contains_key(*id)).copied().collect();
        let Some((verdicts, made)) = self.server.accept(&mut self.dice, self.now, &upload) else { return Ok(Err(Missed::Later)) };
        self.committed(made)?;
        for id in &fresh {
            if self.server.db.operations.get(id).is_some_and(|recorded| recorded.accepted) {
                self.truth.accepted(branch, *id);
            }
        }
        self.check_effects(device, branch, &fresh)?;
        Ok(Ok(verdicts))
    }

    pub(super) fn call_ends(&mut self, device: usize, end: End) -> Kept {
        let input = match end {
            End::Changes(_, Err(Missed::Refused(code)), _) => Input::CaughtUp(CatchUpOutcome::Refused(code)),
            End::Changes(_, Err(missed), _) => Input::CaughtUp(CatchUpOutcome::Failed(missed.fault())),
            End::Changes(_, Ok(Reply::Unchanged), _) => Input::CaughtUp(CatchUpOutcome::Unchanged),
            End::Changes(_, Ok(Reply::SnapshotRequired | Reply::Restored), _) => Input::CaughtUp(CatchUpOutcome::SnapshotRequired),
            End::Changes(ask, Ok(Reply::Lines(answer)), lines) => {
                let (to, digests) = (answer.to, answer.digests.clone());
                let position = self.devices[device].stage(&ask, &answer, lines, self.server.restores);
                Input::CaughtUp(if lines == usize::MAX {
                    CatchUpOutcome::Complete { to, digests }
                } else {
                    CatchUpOutcome::Broken { resume: position }
                })
            }
            End::Head(head) => Input::HeadFetched(head.map_err(Missed::fault)),
            End::SubDigests(found) => Input::Compared(found.map_err(Missed::fault)),
            End::Rows(Err(missed)) => Input::RowsFetched(Err(missed.fault())),
            End::Rows(Ok((at, fetched))) => {
                self.devices[device].fetched(fetched);
                Input::RowsFetched(Ok(at))
            }
            End::Upload(Ok(verdicts)) => Input::Uploaded(UploadOutcome::Answered(verdicts)),
            End::Upload(Err(Missed::Refused(code))) => Input::Uploaded(UploadOutcome::Refused(code)),
            End::Upload(Err(missed)) => Input::Uploaded(UploadOutcome::Failed(missed.fault())),
            End::Rotate(None) => return Ok(()),
            End::Rotate(Some(generation)) => return self.rotated(device, generation),
        };
        self.feed(device, input)
    }

    /// The device has a new token: it connects with it, and has no reason to wait.
    fn rotated(&mut self, device: usize, generation: u32) -> Kept {
        self.devices[device].db.login.generation = generation;
        self.devices[device].sync();
        self.disconnect(device)?;
        if !self.devices[device].is_on {
            return Ok(());
        }
        self.feed(device, Input::NetworkChanged { available: true })
    }
}

fn missed(call: Call, why: Missed) -> End {
    match call {
        Call::Changes(ask) => End::Changes(ask, Err(why), 0),
        Call::Head => End::Head(Err(why)),
        Call::SubDigests(_) => End::SubDigests(Err(why)),
        Call::Rows(..) => End::Rows(Err(why)),
        Call::Upload(_) => End::Upload(Err(why)),
        Call::Rotate => End::Rotate(None),
    }
}

fn lost(end: End) -> End {
    match end {
        End::Changes(ask, ..) => End::Changes(ask, Err(Missed::Lost), 0),
        End::Head(_) => End::Head(Err(Missed::Lost)),
        End::SubDigests(_) => End::SubDigests(Err(Missed::Lost)),
        End::Rows(_) => End::Rows(Err(Missed::Lost)),
        End::Upload(_) => End::Upload(Err(Missed::Lost)),
        End::Rotate(_) => End::Rotate(None),
    }
}
