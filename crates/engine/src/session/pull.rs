//! Asking `/changes`: exactly one call at a time, for one reason, at a moment that a crowd does not share.

use std::collections::BTreeMap;

use mstore_protocol::{Code, Collection, Cursor, Digest, Head, Seq};

use super::Session;
use crate::{
    Moment,
    backoff::Backoff,
    effect::{Ask, Effect, Reason},
    input::{CatchUpOutcome, Fault, Resume},
    mutation::Mutation,
};

const RETRY_BASE_MS: u64 = 500;
const RETRY_CAP_MS: u64 = 60_000;
const REFUSED_BASE_MS: u64 = 10_000;
const REFUSED_CAP_MS: u64 = 300_000;
/// How long the first call waits for MQTT, so that nothing is missed between the two.
const CONNECT_PATIENCE_MS: u64 = 2_000;
/// How far a retained head may lag behind the changes: one that equals the cursor right after a return says little of what was missed.
const HEAD_LAG_MS: u64 = 2_000;

type Digests = BTreeMap<Collection, Digest>;

/// A call that is due at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    due: Moment,
    reason: Reason,
    /// Frames that bring the cursor here make it needless.
    until_seq: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Running {
    Changes(Ask),
    Head(HeadFor),
    /// Another numbering is compared, range by range.
    Ranges,
}

/// What the head is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadFor {
    /// The server wants a snapshot to be fetched: perhaps less will do.
    Renumbering,
    /// MQTT brings none: its digests prove the rows.
    Digests,
}

/// Whether the device had a network all the time, which is what tells a fallback from a return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    /// It was cut off, and nothing has confirmed its cursor since.
    Unconfirmed,
    /// It counts as returned before this moment, and as online from then on.
    Until(Moment),
}

/// The one call and what is known of the way to the server.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) running: Option<Running>,
    wanted: Option<Wanted>,
    resume: Option<String>,
    /// What is staged, or being staged, is all there is.
    staged_is_snapshot: bool,
    /// Must everything be fetched, whatever the cursor?
    pub(super) forced_snapshot: bool,
    pub(super) needs_snapshot: bool,
    pub(super) blocked: Option<Code>,
    retry: Backoff,
    slow: Backoff,
    unreachable: bool,
    /// Until when the device counts as just returned: what comes by HTTP then is no fallback.
    away: Away,
    confirmed: bool,
    ever_confirmed: bool,
    mqtt_down: bool,
    pub(super) poll_interval_ms: u64,
    poll_at: Moment,
    /// When the call was begun that runs now.
    asked_at: Moment,
    /// The highest number that a verdict had given by then.
    promised: Option<Seq>,
}

impl Pull {
    /// The first call waits a little for MQTT: subscribe first, then read.
    pub(super) fn new(now: Moment, has_rows: bool, resume: Option<Resume>, poll_interval_ms: u64) -> Self {
        let reason = if has_rows { Reason::Returned } else { Reason::First };
        Self {
            running: None,
            wanted: Some(Wanted { due: now + CONNECT_PATIENCE_MS, reason, until_seq: None }),
            staged_is_snapshot: resume.as_ref().is_some_and(|resume| resume.snapshot),
            resume: resume.map(|resume| resume.position),
            forced_snapshot: false,
            needs_snapshot: false,
            blocked: None,
            retry: Backoff::new(RETRY_BASE_MS, RETRY_CAP_MS),
            slow: Backoff::new(REFUSED_BASE_MS, REFUSED_CAP_MS),
            unreachable: false,
            away: Away::Unconfirmed,
            confirmed: false,
            ever_confirmed: false,
            mqtt_down: false,
            poll_interval_ms,
            poll_at: now + poll_interval_ms,
            asked_at: now,
            promised: None,
        }
    }

    pub(super) fn is_unreachable(&self) -> bool {
        self.unreachable
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed && !self.is_behind()
    }

    /// The cursor is the server's own since the last subscription.
    pub(super) fn knows_cursor(&self) -> bool {
        self.confirmed
    }

    /// Something is known to be missing here.
    pub(super) fn is_behind(&self) -> bool {
        let missing = |reason: Reason| !matches!(reason, Reason::Poll | Reason::Requested | Reason::Returned);
        let running = matches!(&self.running, Some(Running::Changes(ask)) if missing(ask.reason));
        // Frames that are only late are no reason to tell the cashier anything.
        running || (self.unreachable && self.wanted.is_some_and(|wanted| missing(wanted.reason)))
    }

    pub(super) fn is_first(&self) -> bool {
        !self.ever_confirmed
    }

    pub(super) fn knows_mqtt_down(&self) -> bool {
        self.mqtt_down
    }

    pub(super) fn mqtt_down(&mut self) {
        self.mqtt_down = true;
        self.confirmed = false;
    }

    pub(super) fn confirmed(&mut self, now: Moment) {
        self.confirmed = true;
        self.ever_confirmed = true;
        if self.away == Away::Unconfirmed {
            self.away = Away::Until(now + HEAD_LAG_MS);
        }
    }

    /// A new subscription of a device that is just back: what was confirmed before it may have been overtaken before frames flow.
    pub(super) fn subscribed(&mut self, now: Moment) {
        if self.is_away(now) {
            self.away = Away::Unconfirmed;
        }
        self.mqtt_down = false;
        self.confirmed = false;
    }

    fn is_away(&self, now: Moment) -> bool {
        match self.away {
            Away::Unconfirmed => true,
            Away::Until(end) => now < end,
        }
    }

    pub(super) fn network_lost(&mut self) {
        self.unreachable = true;
        self.away = Away::Unconfirmed;
        self.confirmed = false;
    }

    pub(super) fn hurry(&mut self, now: Moment) {
        self.retry.reset();
        if let Some(wanted) = self.wanted.as_mut().filter(|_| self.blocked.is_none()) {
            wanted.due = wanted.due.min(now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        if self.running.is_some() {
            return None;
        }
        Some(self.wanted.map_or(self.poll_at, |wanted| wanted.due))
    }
}

impl Session {
    /// Notes that a call is wanted. A pull that the head spreads over time is not overtaken by a gap that it will fill.
    pub(super) fn want(&mut self, due: Moment, reason: Reason, until_seq: Option<u64>) {
        let new = Wanted { due, reason, until_seq };
        let spreads = |reason: Reason| reason == Reason::Pull;
        let waits_for_gap = |reason: Reason| matches!(reason, Reason::Gap | Reason::HeadAhead);
        self.pull.wanted = Some(match self.pull.wanted {
            None => new,
            Some(old) if self.pull.blocked.is_some() => old,
            Some(old) if spreads(old.reason) && waits_for_gap(reason) => old,
            Some(old) if spreads(reason) && waits_for_gap(old.reason) => new,
            Some(old) => {
                let until_seq = old.until_seq.zip(until_seq).map(|(a, b)| a.max(b));
                let reason = if old.due <= due { old.reason } else { reason };
                Wanted { due: old.due.min(due), reason, until_seq }
            }
        });
    }

    /// A head that equals the cursor says that nothing was missed.
    pub(super) fn drop_confirmed_want(&mut self) {
        if self.pull.wanted.is_some_and(|wanted| matches!(wanted.reason, Reason::Returned | Reason::HeadAhead)) {
            self.pull.wanted = None;
        }
    }

    /// The cursor moved: a call for frames that have come meanwhile is needless.
    pub(super) fn drop_needless_want(&mut self, cursor: Cursor) {
        if self.pull.wanted.and_then(|wanted| wanted.until_seq).is_some_and(|until| cursor.seq >= until) {
            self.pull.wanted = None;
        }
    }

    pub(super) fn run_pull(&mut self, now: Moment) {
        if self.pull.deadline().is_none_or(|due| due > now) {
            return;
        }
        let reason = match self.pull.wanted.take() {
            Some(wanted) => wanted.reason,
            None if self.head_confirms(now) => {
                self.counters.polls_skipped += 1;
                self.pull.poll_at = now + self.pull.poll_interval_ms;
                return;
            }
            None => Reason::Poll,
        };
        self.pull.poll_at = now + self.pull.poll_interval_ms;
        if self.pull.needs_snapshot && self.cursor.is_some() && !self.pull.forced_snapshot {
            return self.fetch_head(HeadFor::Renumbering);
        }
        self.ask(now, reason);
    }

    fn head_confirms(&self, now: Moment) -> bool {
        let fresh = |(head, at): &(Head, Moment)| now.saturating_sub(*at) < self.config.head_fresh_ms && self.cursor == Some(head.cursor());
        self.link.is_up() && self.pull.confirmed && self.head.as_ref().is_some_and(fresh)
    }

    fn ask(&mut self, now: Moment, reason: Reason) {
        if self.pull.forced_snapshot && !self.pull.staged_is_snapshot && self.pull.resume.take().is_some() {
            // Not when the snapshot was wished for: a call that joined these rows may have been under way then.
            self.effects.push_back(Effect::DropStaged);
        }
        let resume = self.pull.resume.clone();
        // A broken snapshot goes on as one, also after a restart: the server must count its deletions from where it was made, not from the cursor.
        let goes_on_as_snapshot = resume.is_some() && self.pull.staged_is_snapshot;
        let after = if self.pull.forced_snapshot || goes_on_as_snapshot { None } else { self.cursor };
        if resume.is_none() {
            self.pull.staged_is_snapshot = after.is_none();
        }
        self.counters.catch_ups += 1;
        self.counters.snapshots += u64::from(after.is_none());
        self.counters.polls += u64::from(reason == Reason::Poll);
        self.counters.gaps += u64::from(reason == Reason::Gap);
        let is_fallback = reason.is_fallback() && !self.pull.is_away(now) && after.is_some();
        let keep_staged = resume.is_some();
        self.begin(Ask { after, resume, keep_staged, over_ranges: false, reason, is_fallback });
    }

    pub(super) fn begin(&mut self, ask: Ask) {
        assert!(self.pull.running.is_none(), "two calls of /changes at once");
        self.pull.asked_at = self.last_now;
        self.pull.promised = self.upload.promised();
        self.pull.running = Some(Running::Changes(ask.clone()));
        self.effects.push_back(Effect::CatchUp(ask));
    }

    pub(super) fn caught_up(&mut self, now: Moment, outcome: CatchUpOutcome) {
        self.counters.ended += 1;
        let Some(Running::Changes(ask)) = self.pull.running.take() else { panic!("a call of /changes ended that was not begun") };
        self.pull.poll_at = now + self.pull.poll_interval_ms;
        if ask.over_ranges {
            return self.renumbering_caught_up(now, outcome);
        }
        match outcome {
            CatchUpOutcome::Complete { to, digests } => {
                self.reached();
                self.complete(now, &ask, to, digests);
            }
            CatchUpOutcome::Unchanged => {
                self.reached();
                self.counters.not_modified += 1;
                if ask.keep_staged {
                    return self.begin_again(now, ask.reason);
                }
                // Frames may have moved the cursor on while the answer was on its way: it holds for what was asked.
                if ask.after == self.cursor {
                    ask.after.into_iter().for_each(|at| self.compare_with_end(at));
                    self.confirm(now);
                    self.advance(now);
                    self.prove_digests(now);
                }
            }
            CatchUpOutcome::Broken { resume } => {
                self.pull.resume = resume.or(ask.resume);
                self.failed(now, ask.reason, Fault::default());
            }
            CatchUpOutcome::SnapshotRequired => {
                self.reached();
                self.snapshot_required(now, &ask);
            }
            CatchUpOutcome::Refused(code) => self.refused(now, ask.reason, code),
            CatchUpOutcome::Failed(fault) => self.failed(now, ask.reason, fault),
        }
    }

    pub(super) fn reached(&mut self) {
        self.in_doubt = false;
        self.pull.retry.reset();
        self.pull.slow.reset();
        self.pull.unreachable = false;
        self.pull.blocked = None;
    }

    fn complete(&mut self, now: Moment, ask: &Ask, to: Cursor, digests: Digests) {
        self.pull.resume = None;
        let snapshot = self.pull.staged_is_snapshot;
        if !snapshot {
            self.compare_with_end(to);
        }
        let behind = self.cursor.is_some_and(|cursor| cursor.epoch == to.epoch && to.seq < cursor.seq);
        let stale = behind && snapshot && self.config.planted.has(Mutation::StaleSnapshotEnd);
        let (to, behind) = if stale { (self.cursor.unwrap_or(to), false) } else { (to, behind) };
        if behind && snapshot {
            // A cached snapshot from before: go on from its end until it has caught up, then show all at once.
            let reason = ask.reason;
            self.counters.catch_ups += 1;
            self.begin(Ask { after: Some(to), resume: None, keep_staged: true, over_ranges: false, reason, is_fallback: false });
            return;
        }
        if behind || (self.cursor == Some(to) && !snapshot) {
            self.effects.push_back(Effect::DropStaged);
            if self.cursor == Some(to) {
                self.expected = Some((to, digests));
                self.confirm(now);
                self.advance(now);
                self.check_digests(now);
            }
            return;
        }
        let renumbered = self.cursor.is_some_and(|cursor| cursor.epoch != to.epoch);
        self.pull.staged_is_snapshot = false;
        self.pull.forced_snapshot &= !snapshot;
        self.pull.needs_snapshot = false;
        self.effects.push_back(Effect::Show { to, snapshot, is_fallback: ask.is_fallback });
        self.expected = Some((to, digests));
        let had_rows = self.cursor.is_some();
        self.move_to(now, to, renumbered);
        if snapshot && had_rows && !renumbered {
            // Nobody vouches for what this server remembers of the time before: hand the operations in again, which is safe.
            self.effects.push_back(Effect::Requeue);
        }
        self.confirm(now);
        if snapshot && !self.head_confirms(now) {
            // It may have been a cached one.
            self.want(now, Reason::Returned, None);
            self.pull.away = Away::Unconfirmed;
        }
        self.advance(now);
        self.look_at_head(now);
    }

    /// An answer that is no snapshot ends where the server was: what it does not have there although it once did, a restore took from it.
    fn compare_with_end(&mut self, to: Cursor) {
        self.buffer.drop_disowned(to, self.pull.asked_at);
        if self.pull.promised.take().is_some_and(|promised| promised > to.seq) {
            self.upload.forget_promises();
            self.effects.push_back(Effect::Requeue);
        }
    }

    /// The cursor is another one from here on.
    pub(super) fn move_to(&mut self, now: Moment, to: Cursor, renumbered: bool) {
        self.cursor = Some(to);
        self.is_held = false;
        self.buffer.drop_shown(to);
        self.drop_needless_want(to);
        self.repair_overtaken(now);
        self.head = self.head.take().filter(|(head, _)| head.epoch == to.epoch);
        if renumbered {
            self.counters.renumberings += 1;
            self.upload.forget_promises();
            if !self.config.planted.has(Mutation::ForgetReplay) {
                self.effects.push_back(Effect::Requeue);
            }
        }
    }

    fn snapshot_required(&mut self, now: Moment, ask: &Ask) {
        if ask.resume.is_some() || ask.keep_staged {
            return self.begin_again(now, ask.reason);
        }
        self.pull.needs_snapshot = !self.config.planted.has(Mutation::IgnoreSnapshotRequired);
        self.pull.confirmed = false;
        self.want(now, Reason::Renumbered, None);
    }

    /// The server no longer knows where the staged rows end.
    fn begin_again(&mut self, now: Moment, reason: Reason) {
        self.pull.resume = None;
        self.effects.push_back(Effect::DropStaged);
        self.failed(now, reason, Fault { retry_after_ms: None, reached: true });
    }

    pub(super) fn refused(&mut self, now: Moment, reason: Reason, code: Code) {
        self.pull.unreachable = false;
        self.pull.blocked = Some(code);
        self.pull.confirmed = false;
        let wait = self.pull.slow.next_ms(&mut self.dice, None);
        self.pull.wanted = Some(Wanted { due: now + wait, reason, until_seq: None });
    }

    pub(super) fn failed(&mut self, now: Moment, reason: Reason, fault: Fault) {
        if !fault.reached {
            self.pull.unreachable = true;
            if !self.link.is_up() {
                self.pull.away = Away::Unconfirmed;
            }
        }
        let wait = self.pull.retry.next_ms(&mut self.dice, fault.retry_after_ms);
        self.pull.wanted = None;
        self.want(now + wait, reason, None);
    }

    pub(super) fn sync_requested(&mut self, now: Moment) {
        self.hurry(now);
        self.recount_soon(now);
        self.want(now, Reason::Requested, None);
        if let Some(wanted) = &mut self.pull.wanted {
            wanted.due = wanted.due.min(now);
        }
    }

    pub(super) fn resync_requested(&mut self, now: Moment) {
        if self.config.planted.has(Mutation::DropQueueOnResync) {
            self.upload.forget();
        }
        self.force_snapshot(now, Reason::Requested);
    }

    /// Everything anew; what is shown stays until all of it is there.
    pub(super) fn force_snapshot(&mut self, now: Moment, reason: Reason) {
        self.pull.forced_snapshot = true;
        self.want(now, reason, None);
    }
}
