//! One history of a till: what happens to it by chance, and the text of everything it was told and asked.

mod text;
mod world;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
};

use mstore_engine::{ApplyFault, Comparison, Effect, Input, Known, QueuedOperation, Resume, Session, SessionConfig, UploadOutcome};
use mstore_protocol::{Collection, Cursor, Digest, OperationId};
use serde_json::json;

pub(crate) use world::Chance;
use world::{accepted, digest, head_at, near, operation};

/// How many times the session may act in the good world before it must have arrived.
const GOOD_STEPS_MAX: usize = 400;

/// The calls that wait for their end: at most one of each kind.
#[derive(Default)]
struct Calls {
    connecting: bool,
    changes: bool,
    head: bool,
    comparing: bool,
    counting: bool,
    rows: bool,
    upload: Option<Vec<OperationId>>,
}

pub(crate) struct History {
    session: Session,
    now: u64,
    cursor: Option<Cursor>,
    calls: Calls,
    /// The numbering that the server has now, once it has said so over HTTP.
    elsewhere: Option<Cursor>,
    /// What the local rows add up to, by chance; wrong now and then.
    digests: BTreeMap<Collection, Digest>,
    text: String,
}

impl History {
    pub(crate) fn new(seed: u64, chance: &mut Chance) -> Self {
        let cursor = chance.pick(&[None, Some(near(None, 0)), Some(near(None, 4))]);
        let resume = chance.pick(&[None, None, Some(Resume { position: "1.1.1.product.a".into(), snapshot: cursor.is_none() })]);
        let queue: Vec<QueuedOperation> = (0..chance.up_to(3)).map(|n| operation(100 + n)).collect();
        let known = Known { cursor, digests: BTreeMap::new(), resume, queue };
        let config = SessionConfig { seed, ..SessionConfig::default() };
        let mut text = String::new();
        writeln!(text, "{}", text::known(seed, &known)).unwrap();
        let session = Session::new(0, config, known);
        Self { session, now: 0, cursor, calls: Calls::default(), elsewhere: None, digests: BTreeMap::new(), text }
    }

    pub(crate) fn into_text(mut self) -> String {
        writeln!(self.text, "{}", text::counters(self.session.counters())).unwrap();
        self.text
    }

    /// Something happens.
    pub(crate) fn step(&mut self, chance: &mut Chance) {
        self.digests = BTreeMap::from([(Collection::product(), digest(chance.pick(&[0, 0, 0, 1])))]);
        let input = self.input(chance);
        let disk_fails = chance.up_to(20) == 0;
        self.handle(input, disk_fails);
        let wait = chance.up_to(3);
        if let Some(due) = self.session.next_deadline().filter(|_| wait == 0) {
            self.now = self.now.max(due);
            self.handle(Input::Woken, false);
        }
    }

    fn input(&mut self, chance: &mut Chance) -> Input {
        let here = self.cursor;
        let there = if chance.up_to(4) > 0 { self.elsewhere.or(here) } else { here };
        match chance.up_to(17) {
            0 => {
                self.now += chance.pick(&[0, 1, 20, 100, 600, 2_000, 30_000, 300_000, 4_000_000]);
                Input::Woken
            }
            1 | 2 if std::mem::take(&mut self.calls.connecting) => Input::Subscribed,
            3 => {
                self.calls.connecting = false;
                if chance.up_to(4) == 0 { Input::ConnectionRefused(chance.code()) } else { Input::Disconnected }
            }
            4 => Input::NetworkChanged { available: chance.up_to(2) > 0 },
            5..=7 => {
                let (collection, frame) = chance.frame(here);
                Input::FrameArrived(collection, frame)
            }
            8 => Input::HeadArrived(chance.head(here)),
            9..=11 if std::mem::take(&mut self.calls.changes) => Input::CaughtUp(chance.outcome(there)),
            9..=12 if std::mem::take(&mut self.calls.head) => self.head_comes(chance),
            9..=13 if std::mem::take(&mut self.calls.comparing) => {
                let at = chance.cursor(there);
                let ranges = chance.pick(&[Some(vec![]), Some(vec![3]), Some(vec![0, 255]), Some((0..=200).collect::<Vec<u8>>()), None]);
                let rows = chance.pick(&[0, 2, 50_000]);
                Input::Compared(ranges.map(|ranges| Comparison { at, ranges, rows }).ok_or_else(|| chance.fault()))
            }
            9..=13 if std::mem::take(&mut self.calls.rows) => {
                let at = chance.cursor(there);
                Input::RowsFetched(if chance.up_to(4) == 0 { Err(chance.fault()) } else { Ok(at) })
            }
            9..=13 if std::mem::take(&mut self.calls.counting) => {
                let altered = chance.pick(&[vec![], vec![Collection::product()], vec![Collection::inventory(), Collection::product()]]);
                Input::Recounted(here.map(|cursor| (cursor, altered)))
            }
            13 | 14 if self.calls.upload.is_some() => self.upload_ends(chance),
            15 => Input::OperationCommitted(operation(chance.up_to(40))),
            16 => chance.pick(&[Wish::Sync, Wish::Sync, Wish::Resync]).input(),
            _ => Input::Woken,
        }
    }

    /// A head is asked for over HTTP when the numbering is in doubt: often it is another one.
    fn head_comes(&mut self, chance: &mut Chance) -> Input {
        if chance.up_to(4) == 0 {
            return Input::HeadFetched(Err(chance.fault()));
        }
        let head = if chance.up_to(3) == 0 {
            chance.head(self.cursor)
        } else {
            {
                let other = chance.other(self.cursor);
                chance.head(other)
            }
        };
        self.elsewhere = Some(head.cursor());
        Input::HeadFetched(Ok(head))
    }

    fn upload_ends(&mut self, chance: &mut Chance) -> Input {
        let ids = self.calls.upload.take().unwrap_or_default();
        Input::Uploaded(match chance.up_to(5) {
            0 => UploadOutcome::Failed(chance.fault()),
            1 => UploadOutcome::Rejected(chance.code()),
            2 => UploadOutcome::Refused(chance.code()),
            3 => UploadOutcome::Answered(ids.iter().map(|id| chance.verdict(*id)).collect()),
            _ => {
                let some = usize::try_from(chance.up_to(6)).unwrap();
                UploadOutcome::Answered(ids.iter().take(some).map(|id| accepted(*id)).collect())
            }
        })
    }

    /// Hands an input in and carries out what comes of it; the answers of the local database are handed in at once.
    fn handle(&mut self, input: Input, disk_fails: bool) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let told = text::input(&input);
            self.session.handle(self.now, input);
            let (mut asked, mut failed) = (Vec::new(), false);
            while let Some(effect) = self.session.poll() {
                asked.push(text::effect(&effect));
                let shows = matches!(
                    effect,
                    Effect::Apply(_) | Effect::Show { .. } | Effect::Adopt(_) | Effect::Renumber { .. } | Effect::ReplaceRanges { .. }
                );
                if shows && disk_fails && !failed {
                    failed = true;
                    let fault = if matches!(effect, Effect::Apply(_)) { ApplyFault::BaseMissing } else { ApplyFault::Storage };
                    inputs.push_back(Input::ApplyFailed { cursor: self.cursor, fault });
                }
                if !(shows && failed) {
                    inputs.extend(self.perform(effect));
                }
            }
            let status = text::status(&self.session.status(), self.session.next_deadline());
            writeln!(self.text, "{}", json!({ "now": self.now, "told": told, "asked": asked, "then": status })).unwrap();
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Connect { .. } => self.calls.connecting = true,
            Effect::CatchUp(_) => self.calls.changes = true,
            Effect::FetchHead => self.calls.head = true,
            Effect::FetchSubDigests(_) => self.calls.comparing = true,
            Effect::Recount => self.calls.counting = true,
            Effect::FetchRows { .. } => self.calls.rows = true,
            Effect::Upload(ids) => self.calls.upload = Some(ids),
            Effect::Apply(commit) => return Some(self.shown(commit.cursor)),
            Effect::Show { to, .. } | Effect::Adopt(to) | Effect::Renumber { to } => return Some(self.shown(to)),
            Effect::ReplaceRanges { .. } => return self.cursor.map(|cursor| self.shown(cursor)),
            Effect::Requeue => return Some(Input::Requeued(vec![operation(9), operation(41)])),
            Effect::Subscribe(_) | Effect::Disconnect | Effect::DropStaged | Effect::Settle(_) => {}
        }
        None
    }

    fn shown(&mut self, cursor: Cursor) -> Input {
        self.cursor = Some(cursor);
        self.elsewhere = None;
        Input::Applied { cursor, digests: self.digests.clone() }
    }

    /// A server of one numbering that answers everything: the session arrives at its head with nothing left to send.
    pub(crate) fn recover(&mut self) {
        let head = near(None, 50);
        self.digests = head_at(head).digests;
        for _ in 0..GOOD_STEPS_MAX {
            let input = self.good_answer(head).unwrap_or_else(|| {
                self.now = self.session.next_deadline().map_or(self.now + 1, |due| due.max(self.now));
                Input::Woken
            });
            self.handle(input, false);
            if self.cursor == Some(head) && self.session.status().queue_depth == 0 {
                return;
            }
        }
        panic!("not at the head after {GOOD_STEPS_MAX} steps: {:?}", self.session.status());
    }

    fn good_answer(&mut self, head: Cursor) -> Option<Input> {
        let calls = &mut self.calls;
        if std::mem::take(&mut calls.changes) {
            return Some(Input::CaughtUp(mstore_engine::CatchUpOutcome::Complete { to: head, digests: head_at(head).digests }));
        }
        if std::mem::take(&mut calls.head) {
            return Some(Input::HeadFetched(Ok(head_at(head))));
        }
        if std::mem::take(&mut calls.comparing) {
            return Some(Input::Compared(Ok(Comparison { at: head, ranges: Vec::new(), rows: 0 })));
        }
        if std::mem::take(&mut calls.counting) {
            return Some(Input::Recounted(self.cursor.map(|cursor| (cursor, Vec::new()))));
        }
        if std::mem::take(&mut calls.rows) {
            return Some(Input::RowsFetched(Ok(head)));
        }
        if std::mem::take(&mut calls.connecting) {
            return Some(Input::Subscribed);
        }
        let ids = calls.upload.take()?;
        Some(Input::Uploaded(UploadOutcome::Answered(ids.into_iter().map(accepted).collect())))
    }
}

/// What the app asks for.
#[derive(Clone, Copy)]
enum Wish {
    Sync,
    Resync,
}

impl Wish {
    fn input(self) -> Input {
        match self {
            Self::Sync => Input::SyncRequested,
            Self::Resync => Input::ResyncRequested,
        }
    }
}
