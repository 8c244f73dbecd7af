//! A device's session: what to do next, given what happened and when.
//!
//! *Invariant:* it does not know that MQTT or HTTP exist; a frame is a frame. It hands out commits in order, each once, each whole.

mod frames;
mod link;
mod pull;
mod renumber;
mod repair;

use std::collections::{BTreeMap, VecDeque};

use mstore_protocol::{
    Code, Collection, Cursor, DeviceState, Digest, Epoch, Head,
    limits::{HEAD_FRESH_S, POLL_INTERVAL_S},
};

use crate::{
    Moment, Status,
    backoff::Dice,
    buffer::Buffer,
    effect::Effect,
    input::{Input, Known},
    mutation::Planted,
    upload::UploadQueue,
};
use link::Link;
use pull::Pull;
use renumber::Renumbering;
use repair::Repair;

/// How a session behaves; every time in milliseconds.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The collections to subscribe to; those that a head names join them.
    pub collections: Vec<Collection>,
    /// Where all randomness (jitter) comes from: devices must differ. Default 0.
    pub seed: u64,
    /// Time between two polls: the bound of staleness when MQTT is down. Default 300,000; lower costs requests, higher costs freshness.
    pub poll_interval_ms: u64,
    /// A head younger than this that equals the cursor makes a poll needless. Default 90,000.
    pub head_fresh_ms: u64,
    /// How long to wait for frames out of order before asking. Default 100.
    pub reorder_window_ms: u64,
    /// How long after subscribing to wait for the retained head before asking. Default 1,000.
    pub head_patience_ms: u64,
    /// Over how much time the devices spread their requests after MQTT came back. Default 500.
    pub return_spread_ms: u64,
    /// A bug that the simulator plants. Default none.
    pub planted: Planted,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            collections: Collection::built_in().to_vec(),
            seed: 0,
            poll_interval_ms: POLL_INTERVAL_S * 1000,
            head_fresh_ms: HEAD_FRESH_S * 1000,
            reorder_window_ms: 100,
            head_patience_ms: 1_000,
            return_spread_ms: 500,
            planted: Planted::default(),
        }
    }
}

/// Things counted since the session began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came.
    pub frames: u64,
    /// Frames at or below the cursor, or twice the same.
    pub frames_dropped: u64,
    /// Times that frames were missing and a request had to fetch them.
    pub gaps: u64,
    /// `/changes` calls.
    pub catch_ups: u64,
    /// Of these: came to an end, whichever.
    pub ended: u64,
    /// Of these: without a cursor.
    pub snapshots: u64,
    /// Of these: periodic.
    pub polls: u64,
    /// Of these: answered `304`.
    pub not_modified: u64,
    /// Polls left out because a fresh head equalled the cursor.
    pub polls_skipped: u64,
    /// Digests that differed at the same commit.
    pub digest_mismatches: u64,
    /// Ranges fetched anew because of it.
    pub ranges_repaired: u64,
    /// Times that the MQTT connection was lost.
    pub disconnects: u64,
    /// Uploads begun.
    pub uploads: u64,
    /// Other epochs met.
    pub renumberings: u64,
}

/// Digests that must hold at a cursor.
type Expected = (Cursor, BTreeMap<Collection, Digest>);

/// The state of one device's sync.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    dice: Dice,
    effects: VecDeque<Effect>,
    last_now: Moment,
    /// The last commit handed out to be shown.
    cursor: Option<Cursor>,
    /// What is shown for certain.
    shown: Option<Expected>,
    /// What a head or the last line of an answer says must be.
    expected: Option<Expected>,
    /// The same, once it was compared with what is shown.
    truth: Option<Expected>,
    head: Option<(Head, Moment)>,
    /// A numbering seen on MQTT about which the server has been asked.
    asked_about: Option<(Epoch, u64)>,
    /// A commit with the cursor's number but another tag was seen: nothing is shown until the server has decided.
    in_doubt: bool,
    confirmed_at: Option<Moment>,
    /// When the local digests were last compared with the server's.
    compared_at: Option<Moment>,
    /// The server holds commits back: what is shown is not what the branch has.
    is_held: bool,
    buffer: Buffer,
    link: Link,
    pull: Pull,
    repair: Repair,
    renumbering: Renumbering,
    upload: UploadQueue,
    counters: Counters,
}

impl Session {
    /// A session of a device that knows this much; its first effects come with the first input.
    pub fn new(now: Moment, config: SessionConfig, known: Known) -> Self {
        let shown = known.cursor.map(|cursor| (cursor, known.digests));
        Self {
            dice: Dice::new(config.seed),
            effects: VecDeque::new(),
            last_now: now,
            cursor: known.cursor,
            shown,
            expected: None,
            truth: None,
            head: None,
            asked_about: None,
            in_doubt: false,
            confirmed_at: None,
            compared_at: None,
            is_held: false,
            buffer: Buffer::new(config.planted),
            link: Link::new(now),
            pull: Pull::new(now, known.cursor.is_some(), known.resume, config.poll_interval_ms),
            repair: Repair::new(now + config.poll_interval_ms),
            renumbering: Renumbering::default(),
            upload: UploadQueue::new(known.queue),
            counters: Counters::default(),
            config,
        }
    }

    /// Takes what happened at `now`. The effects of the input before must have been taken out: they were decided on its state.
    pub fn handle(&mut self, now: Moment, input: Input) {
        assert!(self.effects.is_empty(), "the effects of the last input were not taken out");
        assert!(now >= self.last_now, "time went backwards from {} to {now}", self.last_now);
        self.last_now = now;
        match input {
            Input::Woken => {}
            Input::Subscribed => self.subscribed(now),
            Input::ConnectionRefused(code) => self.connection_refused(now, code),
            Input::Disconnected => self.disconnected(now),
            Input::NetworkChanged { available } => self.network_changed(now, available),
            Input::FrameArrived(collection, frame) => self.frame_arrived(now, collection, frame),
            Input::HeadArrived(head) => self.head_arrived(now, head),
            Input::CaughtUp(outcome) => self.caught_up(now, outcome),
            Input::HeadFetched(result) => self.head_fetched(now, result),
            Input::Applied { cursor, digests } => self.applied(now, cursor, digests),
            Input::ApplyFailed { cursor, fault } => self.apply_failed(now, cursor, fault),
            Input::Compared(result) if self.renumbering.is_running() => self.renumbering_compared(now, result),
            Input::Compared(result) => self.compared(now, result),
            Input::RowsFetched(result) if self.renumbering.is_running() => self.renumbering_fetched(now, result),
            Input::RowsFetched(result) => self.rows_fetched(now, result),
            Input::Recounted(counted) => self.recounted(now, counted),
            Input::OperationCommitted(operation) => self.upload.add(operation),
            Input::Requeued(operations) => self.upload.requeue(operations),
            Input::Uploaded(outcome) => {
                let effect = self.upload.ended(now, &mut self.dice, outcome);
                self.effects.extend(effect);
            }
            Input::SyncRequested => self.sync_requested(now),
            Input::ResyncRequested => self.resync_requested(now),
        }
        self.run_timers(now);
    }

    /// The next thing to do; take all before the next input.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call `handle` with [`Input::Woken`] if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Moment> {
        let timers = [self.link.deadline(), self.pull.deadline(), self.repair.deadline(), self.upload.deadline()];
        timers.into_iter().flatten().min()
    }

    fn run_timers(&mut self, now: Moment) {
        self.run_link(now);
        self.run_pull(now);
        self.run_repair(now);
        if let Some(upload) = self.upload.start(now) {
            self.counters.uploads += 1;
            self.effects.push_back(upload);
        }
    }

    /// What the app is told.
    pub fn status(&self) -> Status {
        Status {
            state: self.state(),
            cursor: self.shown.as_ref().map(|(cursor, _)| *cursor),
            confirmed_at: self.confirmed_at,
            queue_depth: self.upload.depth(),
            oldest_pending: self.upload.oldest(),
            upload_refused: self.upload.path_refuses(),
        }
    }

    fn state(&self) -> DeviceState {
        if let Some(code) = self.pull.blocked.or(self.link.refused).or(self.upload.blocked) {
            return DeviceState::Blocked(code);
        }
        if self.pull.needs_snapshot {
            return DeviceState::NeedsSnapshot;
        }
        let connected = self.link.is_up();
        if !connected && self.pull.is_unreachable() {
            return DeviceState::Offline;
        }
        if self.cursor.is_none() || self.shown.is_none() {
            let begun = connected || self.pull.is_running();
            return if begun { DeviceState::CatchingUp } else { DeviceState::Starting };
        }
        let up_to_date = match (connected, self.confirmed_at) {
            (true, _) if self.pull.is_confirmed() => DeviceState::Live,
            (true, _) => return DeviceState::CatchingUp,
            (false, None) => return DeviceState::Starting,
            (false, Some(_)) if self.pull.is_behind() => return DeviceState::CatchingUp,
            (false, Some(_)) => DeviceState::Polling,
        };
        if self.is_held { DeviceState::Blocked(Code::BranchHeld) } else { up_to_date }
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn confirm(&mut self, now: Moment) {
        self.confirmed_at = Some(now);
        self.pull.confirmed(now);
    }
}
