//! A device's session under a script of bytes: whatever MQTT and HTTP bring, in any order, it does not panic, shows commits in order, and
//! once the world is good again it arrives at the head.

use std::{
    collections::{BTreeMap, VecDeque},
    slice,
};

use mstore_engine::{
    ApplyFault, CatchUpOutcome, Comparison, Effect, Fault, Input, Known, QueuedOperation, Session, SessionConfig, UploadOutcome,
};
use mstore_protocol::{
    Change, ChangeOp, Code, Collection, Cursor, Epoch, Frame, Head, OperationId, PROTOCOL_VERSION, Tag, Timestamp, Verdict, VerdictStatus,
    limits::INTEGER_MAX,
};

/// More effects than this of one input would be a flood.
const EFFECTS_MAX: usize = 1_500;
/// How many times the session may act in the good world before it must have arrived.
const GOOD_STEPS_MAX: usize = 400;

/// Runs a session through the script, then in a good world.
pub fn session(bytes: &[u8]) {
    let mut script = Script(bytes.iter());
    let mut till = Till::new(u64::from(script.next()));
    while !script.0.as_slice().is_empty() {
        let input = till.input(&mut script);
        till.handle(input, script.next().is_multiple_of(16));
    }
    till.recover();
}

struct Script<'a>(slice::Iter<'a, u8>);

impl Script<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::from(self.next()) % from.len()].clone()
    }

    fn fault(&mut self) -> Fault {
        let retry_after_ms = self.pick(&[None, Some(0), Some(1_000), Some(u64::MAX)]);
        Fault { retry_after_ms, reached: retry_after_ms.is_some() }
    }

    /// Near where the till is, or as far as a number goes.
    fn cursor(&mut self, near: Option<Cursor>) -> Cursor {
        let base = near.map_or(0, |cursor| cursor.seq);
        let far = INTEGER_MAX.unsigned_abs();
        let seq = self.pick(&[base, base + 1, base + 2, base.saturating_sub(1), 0, 1, far]).min(far);
        Cursor { epoch: Epoch::from_bits(self.pick(&[1, 1, 1, 2])), seq, tag: Tag::from_bits(self.pick(&[1, 1, 2])) }
    }

    fn frame(&mut self, near: Option<Cursor>) -> (Collection, Frame) {
        let at = self.cursor(near);
        let seq = at.seq.max(1);
        let parts = u32::from(self.next() % 3 + 1);
        let part = u32::from(self.next()) % parts + 1;
        let change = Change { op: ChangeOp::Delete, id: "a".into(), row: None };
        let frame = Frame {
            v: PROTOCOL_VERSION,
            frame_type: "product.deleted".into(),
            epoch: at.epoch,
            seq,
            tag: at.tag,
            prev: 0,
            part,
            parts,
            at: Timestamp::from_ms(0),
            ops: vec![operation(self.next())],
            changes: vec![change],
        };
        (Collection::built_in()[usize::from(self.next() % 3)].clone(), frame)
    }

    fn head(&mut self, near: Option<Cursor>) -> Head {
        let pull_within_ms = self.pick(&[None, None, Some(5), Some(u64::MAX)]);
        let held_since = self.pick(&[None, None, None, Some(Timestamp::from_ms(0))]);
        Head { pull_within_ms, held_since, ..head_at(self.cursor(near)) }
    }

    fn codes(&mut self) -> Code {
        self.pick(&[Code::CredentialsRefused, Code::DeviceRevoked, Code::Forbidden, Code::BodyTooLarge, Code::Unknown])
    }
}

fn operation(n: u8) -> OperationId {
    OperationId::from_parts(Timestamp::from_ms(0), [n; 10])
}

fn head_at(cursor: Cursor) -> Head {
    let Cursor { epoch, seq, tag } = cursor;
    let digests = BTreeMap::from([(Collection::product(), mstore_protocol::Digest::EMPTY)]);
    Head { v: PROTOCOL_VERSION, epoch, seq, tag, at: Timestamp::from_ms(0), digests, pull_within_ms: None, held_since: None }
}

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

struct Till {
    session: Session,
    now: u64,
    cursor: Option<Cursor>,
    calls: Calls,
}

impl Till {
    fn new(seed: u64) -> Self {
        let session = Session::new(0, SessionConfig { seed, ..SessionConfig::default() }, Known::default());
        Self { session, now: 0, cursor: None, calls: Calls::default() }
    }

    fn input(&mut self, script: &mut Script<'_>) -> Input {
        let near = self.cursor;
        match script.next() % 16 {
            0 | 1 => {
                self.now += script.pick(&[0, 1, 20, 100, 600, 2_000, 30_000, 300_000, 4_000_000]);
                Input::Woken
            }
            2 if self.calls.connecting => {
                self.calls.connecting = false;
                Input::Subscribed
            }
            3 => {
                self.calls.connecting = false;
                if script.next().is_multiple_of(4) { Input::ConnectionRefused(script.codes()) } else { Input::Disconnected }
            }
            4 => Input::NetworkChanged { available: script.next().is_multiple_of(2) },
            5..=8 => {
                let (collection, frame) = script.frame(near);
                Input::FrameArrived(collection, frame)
            }
            9 => Input::HeadArrived(script.head(near)),
            10 | 11 if self.calls.changes => {
                self.calls.changes = false;
                Input::CaughtUp(Self::outcome(script, near))
            }
            10 | 11 if self.calls.head => {
                self.calls.head = false;
                Input::HeadFetched(if script.next().is_multiple_of(4) { Err(script.fault()) } else { Ok(script.head(near)) })
            }
            12 if self.calls.comparing => {
                self.calls.comparing = false;
                let at = script.cursor(near);
                let ranges = script.pick(&[Some(vec![]), Some(vec![3]), Some((0..=200).collect::<Vec<u8>>()), None]);
                let rows = script.pick(&[0, 2, 50_000]);
                Input::Compared(ranges.map(|ranges| Comparison { at, ranges, rows }).ok_or_else(Fault::default))
            }
            12 if self.calls.counting => {
                self.calls.counting = false;
                let altered = script.pick(&[vec![], vec![Collection::product()]]);
                Input::Recounted(near.map(|cursor| (cursor, altered)))
            }
            12 if self.calls.rows => {
                self.calls.rows = false;
                let at = script.cursor(near);
                Input::RowsFetched(if script.next().is_multiple_of(4) { Err(script.fault()) } else { Ok(at) })
            }
            13 if self.calls.upload.is_some() => self.upload_ends(script),
            14 => {
                let id = operation(script.next());
                Input::OperationCommitted(QueuedOperation { id, at: Timestamp::from_ms(0) })
            }
            15 => {
                if script.next().is_multiple_of(2) {
                    Input::SyncRequested
                } else {
                    Input::ResyncRequested
                }
            }
            _ => Input::Woken,
        }
    }

    fn outcome(script: &mut Script<'_>, near: Option<Cursor>) -> CatchUpOutcome {
        match script.next() % 8 {
            0 => CatchUpOutcome::Unchanged,
            1 => CatchUpOutcome::Broken { resume: script.pick(&[None, Some("1.1.1.product.a".to_owned())]) },
            2 => CatchUpOutcome::SnapshotRequired,
            3 => CatchUpOutcome::Refused(script.codes()),
            4 => CatchUpOutcome::Failed(script.fault()),
            _ => CatchUpOutcome::Complete { to: script.cursor(near), digests: head_at(script.cursor(near)).digests },
        }
    }

    fn upload_ends(&mut self, script: &mut Script<'_>) -> Input {
        let ids = self.calls.upload.take().unwrap_or_default();
        Input::Uploaded(match script.next() % 4 {
            0 => UploadOutcome::Failed(script.fault()),
            1 => UploadOutcome::Rejected(script.codes()),
            2 => UploadOutcome::Refused(script.codes()),
            _ => UploadOutcome::Answered(ids.iter().take(usize::from(script.next())).map(|id| accepted(*id)).collect()),
        })
    }

    /// Hands an input in and carries out what comes of it; the answers of the local database are handed in at once.
    fn handle(&mut self, input: Input, disk_fails: bool) {
        let mut inputs = VecDeque::from([input]);
        let mut effects_seen = 0;
        while let Some(input) = inputs.pop_front() {
            self.session.handle(self.now, input);
            let mut failed = false;
            while let Some(effect) = self.session.poll() {
                effects_seen += 1;
                assert!(effects_seen < EFFECTS_MAX, "a flood of effects");
                let shows = matches!(
                    effect,
                    Effect::Apply(_) | Effect::Show { .. } | Effect::Adopt(_) | Effect::Renumber { .. } | Effect::ReplaceRanges { .. }
                );
                if shows && disk_fails && !failed {
                    failed = true;
                    inputs.push_back(Input::ApplyFailed { cursor: self.cursor, fault: ApplyFault::Storage });
                }
                if !(shows && failed) {
                    inputs.extend(self.perform(effect));
                }
            }
        }
        assert!(
            self.session.next_deadline().is_none_or(|due| due > self.now || self.catches_up_with_time()),
            "a busy loop at {}",
            self.now
        );
    }

    /// Being woken a few times leaves nothing that is due.
    fn catches_up_with_time(&mut self) -> bool {
        (0..8).any(|_| {
            self.session.handle(self.now, Input::Woken);
            while let Some(effect) = self.session.poll() {
                let input = self.perform(effect);
                assert!(input.is_none(), "time alone shows nothing");
            }
            self.session.next_deadline().is_none_or(|due| due > self.now)
        })
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Connect { .. } => self.calls.connecting = true,
            Effect::CatchUp(_) => assert!(!std::mem::replace(&mut self.calls.changes, true), "two calls of /changes at once"),
            Effect::FetchHead => self.calls.head = true,
            Effect::FetchSubDigests(_) => self.calls.comparing = true,
            Effect::Recount => self.calls.counting = true,
            Effect::FetchRows { .. } => self.calls.rows = true,
            Effect::Upload(ids) => assert!(self.calls.upload.replace(ids).is_none(), "two uploads at once"),
            Effect::Apply(commit) => {
                let before = self.cursor.expect("a commit is shown after a snapshot");
                assert_eq!((commit.cursor.epoch, commit.cursor.seq), (before.epoch, before.seq + 1), "a commit out of order");
                assert_eq!(commit.frames.len(), commit.frames[0].1.parts as usize, "a commit in part");
                return Some(self.shown(commit.cursor));
            }
            Effect::Show { to, .. } => {
                let back = self.cursor.is_some_and(|before| before.epoch == to.epoch && to.seq < before.seq);
                assert!(!back, "the cursor went back");
                return Some(self.shown(to));
            }
            Effect::Adopt(to) | Effect::Renumber { to } => return Some(self.shown(to)),
            Effect::ReplaceRanges { .. } => return self.cursor.map(|cursor| self.shown(cursor)),
            Effect::Requeue => return Some(Input::Requeued(vec![QueuedOperation { id: operation(9), at: Timestamp::from_ms(0) }])),
            Effect::Subscribe(_) | Effect::Disconnect | Effect::DropStaged | Effect::Settle(_) => {}
        }
        None
    }

    fn shown(&mut self, cursor: Cursor) -> Input {
        self.cursor = Some(cursor);
        Input::Applied { cursor, digests: BTreeMap::new() }
    }

    /// A server of one numbering that answers everything.
    fn recover(&mut self) {
        let head = Cursor { epoch: Epoch::from_bits(3), seq: 50, tag: Tag::from_bits(3) };
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
            let outcome = CatchUpOutcome::Complete { to: head, digests: head_at(head).digests };
            return Some(Input::CaughtUp(outcome));
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

fn accepted(id: OperationId) -> Verdict {
    Verdict { id: id.to_string(), status: VerdictStatus::Accepted, seq: Some(1), code: None, detail: None }
}
