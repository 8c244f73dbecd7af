//! What a session does next, told as short stories: this happened, so that is asked for. Chance and whole systems are the simulation's.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs)]

use std::collections::BTreeMap;

use mstore_engine::{
    Ask, CatchUpOutcome, Comparison, Effect, Fault, Input, Known, QueuedOperation, Reason, Resume, Session, SessionConfig, UploadOutcome,
};
use mstore_protocol::{
    Change, ChangeOp, Code, Collection, Cursor, DeviceState, Digest, Epoch, Frame, Head, OperationId, Tag, Timestamp, Verdict,
    VerdictStatus,
};

const EPOCH: u64 = 0xb5d0_c1a9_7e3f_4a62;

fn at(seq: u64) -> Cursor {
    of_epoch(EPOCH, seq)
}

fn of_epoch(epoch: u64, seq: u64) -> Cursor {
    Cursor { epoch: Epoch::from_bits(epoch), seq, tag: Tag::from_bits(seq * 17 + 3) }
}

fn frame(cursor: Cursor, part: u32, parts: u32) -> Frame {
    let changes = vec![Change { op: ChangeOp::Delete, id: format!("R{}", cursor.seq), row: None }];
    let Cursor { epoch, seq, tag } = cursor;
    let at = Timestamp::parse("2026-11-22T06:41:00.123Z").unwrap();
    Frame { v: 1, frame_type: "product.deleted".into(), epoch, seq, tag, prev: seq - 1, part, parts, at, ops: vec![], changes }
}

fn head(cursor: Cursor) -> Head {
    let at = Timestamp::parse("2026-11-22T06:41:00.123Z").unwrap();
    Head {
        v: 1,
        epoch: cursor.epoch,
        seq: cursor.seq,
        tag: cursor.tag,
        at,
        digests: BTreeMap::new(),
        pull_within_ms: None,
        held_since: None,
    }
}

/// A session, its clock, and the effects of the last thing that happened.
struct Till {
    session: Session,
    now: u64,
    effects: Vec<Effect>,
}

impl Till {
    fn knowing(cursor: Option<Cursor>) -> Self {
        let known = Known { cursor, ..Known::default() };
        Self { session: Session::new(0, SessionConfig::default(), known), now: 0, effects: vec![] }
    }

    /// Live at this cursor: connected, and its head has said that nothing is missing.
    fn live_at(cursor: Cursor) -> Self {
        let mut till = Self::knowing(Some(cursor));
        till.after(0, Input::Woken).after(10, Input::Subscribed).after(1, Input::HeadArrived(head(cursor)));
        assert_eq!(till.state(), DeviceState::Live);
        // Long enough that a return, or a first start, is over.
        till.after(60_000, Input::HeadArrived(head(cursor)));
        till
    }

    fn after(&mut self, ms: u64, input: Input) -> &mut Self {
        self.now += ms;
        self.session.handle(self.now, input);
        self.effects = std::iter::from_fn(|| self.session.poll()).collect();
        self
    }

    /// Lets time go by until something is asked of `/changes`.
    fn until_asked(&mut self) -> Ask {
        for _ in 0..50 {
            if let Some(ask) = self.asked() {
                return ask;
            }
            let due = self.session.next_deadline().expect("something is due");
            let wait = due.saturating_sub(self.now);
            self.after(wait, Input::Woken);
        }
        panic!("nothing was asked for");
    }

    fn asked(&self) -> Option<Ask> {
        self.effects.iter().find_map(|effect| if let Effect::CatchUp(ask) = effect { Some(ask.clone()) } else { None })
    }

    fn applied(&self) -> Vec<u64> {
        let seq = |effect: &Effect| if let Effect::Apply(commit) = effect { Some(commit.cursor.seq) } else { None };
        self.effects.iter().filter_map(seq).collect()
    }

    fn product(&mut self, ms: u64, frame: Frame) -> &mut Self {
        self.after(ms, Input::FrameArrived(Collection::product(), frame))
    }

    fn complete(&mut self, ms: u64, to: Cursor) -> &mut Self {
        self.after(ms, Input::CaughtUp(CatchUpOutcome::Complete { to, digests: BTreeMap::new() }))
    }

    fn state(&self) -> DeviceState {
        let mut status = self.session.status();
        // Nothing is shown in these stories but what was handed out.
        status.cursor = None;
        status.state
    }
}

#[test]
fn a_new_till_subscribes_first_and_then_asks_for_everything() {
    let mut till = Till::knowing(None);
    till.after(0, Input::Woken);
    assert!(matches!(till.effects[..], [Effect::Connect { .. }]), "{:?}", till.effects);
    let ask = till.after(5, Input::Subscribed).asked().expect("at once");
    assert_eq!((ask.after, ask.reason, ask.is_fallback), (None, Reason::First, false));
    till.complete(5, at(7));
    assert!(till.effects.iter().any(|e| matches!(e, Effect::Show { snapshot: true, is_fallback: false, .. })), "{:?}", till.effects);
}

#[test]
fn without_mqtt_a_new_till_does_not_wait_for_it_for_ever() {
    let mut till = Till::knowing(None);
    till.after(0, Input::Woken).after(0, Input::Disconnected);
    assert_eq!(till.until_asked().reason, Reason::First);
    assert!(till.now <= 2_000, "asked after {} ms", till.now);
}

#[test]
fn commits_come_out_in_order_each_once_each_whole() {
    let mut till = Till::live_at(at(4));
    assert_eq!(till.product(1, frame(at(6), 1, 1)).applied(), [0; 0], "5 is missing");
    assert_eq!(till.product(1, frame(at(5), 2, 2)).applied(), [0; 0], "its first part is missing");
    till.after(1, Input::FrameArrived(Collection::inventory(), frame(at(5), 1, 2)));
    assert_eq!(till.applied(), [5, 6]);
    assert_eq!(till.product(1, frame(at(5), 1, 1)).applied(), [0; 0], "below the cursor");
    assert_eq!(till.session.counters().frames_dropped, 1);
    assert!(till.session.counters().gaps == 0 && till.asked().is_none());
}

#[test]
fn a_gap_is_one_request_after_the_reorder_window() {
    let mut till = Till::live_at(at(4));
    let seen = till.now;
    till.product(1, frame(at(6), 1, 1)).product(30, frame(at(7), 1, 1));
    assert!(till.asked().is_none(), "frames may only be late");
    let ask = till.until_asked();
    assert_eq!((ask.after, ask.reason, ask.is_fallback), (Some(at(4)), Reason::Gap, true));
    assert_eq!(till.now - seen, 101);
    assert!(till.product(1, frame(at(9), 1, 1)).asked().is_none(), "one call at a time");
    till.complete(1, at(7));
    assert_eq!(till.session.counters().gaps, 1);
}

#[test]
fn late_frames_make_the_request_needless() {
    let mut till = Till::live_at(at(4));
    till.product(1, frame(at(6), 1, 1));
    assert_eq!(till.product(99, frame(at(5), 1, 1)).applied(), [5, 6]);
    assert!(till.after(500, Input::Woken).asked().is_none());
}

#[test]
fn what_comes_by_http_right_after_a_return_is_no_fallback_whatever_a_lagging_head_says() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::NetworkChanged { available: false }).after(0, Input::Disconnected);
    let _ = till.until_asked();
    till.after(1, Input::CaughtUp(CatchUpOutcome::Failed(Fault::default())));
    assert_eq!(till.state(), DeviceState::Offline);
    till.after(1, Input::NetworkChanged { available: true });
    let ask = till.until_asked();
    assert_eq!((ask.after, ask.is_fallback), (Some(at(4)), false));
    till.after(1, Input::CaughtUp(CatchUpOutcome::Unchanged)).after(10, Input::Subscribed);
    // The retained head is from before the commits that were made while it was away.
    till.after(1, Input::HeadArrived(head(at(4)))).product(20, frame(at(6), 1, 1));
    let ask = till.until_asked();
    assert_eq!((ask.after, ask.is_fallback), (Some(at(4)), false));
    till.complete(1, at(6));
    till.after(5_000, Input::HeadArrived(head(at(6)))).product(1, frame(at(8), 1, 1));
    assert!(till.until_asked().is_fallback, "by now it counts as online");
}

#[test]
fn after_a_broker_restart_what_http_brought_is_a_fallback() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::Disconnected);
    let ask = till.until_asked();
    assert_eq!((ask.reason, ask.is_fallback), (Reason::Returned, true));
    till.complete(1, at(5)).after(100, Input::Subscribed).after(1, Input::HeadArrived(head(at(5))));
    assert_eq!(till.state(), DeviceState::Live);
}

#[test]
fn after_long_silence_frames_wait_until_the_numbering_is_known_to_be_the_same() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::Disconnected);
    let _ = till.until_asked();
    till.after(1, Input::CaughtUp(CatchUpOutcome::Failed(Fault::default())));
    till.after(120_000, Input::Subscribed);
    assert_eq!(till.product(1, frame(at(5), 1, 1)).applied(), [0; 0]);
    till.after(1, Input::HeadArrived(head(at(4))));
    assert_eq!(till.applied(), [5], "the head knows the cursor: go on");
    assert_eq!(till.session.counters().gaps, 0);
}

#[test]
fn another_tag_at_the_cursor_is_asked_about_once_and_nothing_is_shown_meanwhile() {
    let mut till = Till::live_at(at(4));
    let mut other = head(at(4));
    other.tag = Tag::from_bits(99);
    till.after(1, Input::HeadArrived(other.clone()));
    let ask = till.until_asked();
    assert_eq!((ask.after, ask.reason), (Some(at(4)), Reason::Renumbered));
    // After the question: what came before it, and the answer does not know, would be of a numbering that is gone.
    assert_eq!(till.product(1, frame(at(5), 1, 1)).applied(), [0; 0]);
    till.after(1, Input::HeadArrived(other)).after(1, Input::CaughtUp(CatchUpOutcome::Unchanged));
    assert_eq!(till.applied(), [5], "the server says that the cursor is right");
    assert_eq!(till.session.counters().catch_ups, 1);
}

#[test]
fn another_epoch_on_mqtt_causes_one_request() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::HeadArrived(head(of_epoch(1, 2)))).after(1, Input::HeadArrived(head(of_epoch(1, 3))));
    assert_eq!(till.until_asked().reason, Reason::Renumbered);
    till.after(1, Input::CaughtUp(CatchUpOutcome::Unchanged));
    till.after(1, Input::HeadArrived(head(of_epoch(1, 4)))).after(10_000, Input::Woken);
    assert_eq!(till.session.counters().catch_ups, 1, "only HTTP decides, and it has");
}

#[test]
fn a_head_below_the_cursor_is_ignored() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::HeadArrived(head(at(2)))).after(10_000, Input::Woken);
    assert!(till.asked().is_none());
    assert_eq!(till.session.counters().catch_ups, 0);
}

#[test]
fn a_head_that_asks_for_pulls_spreads_them() {
    let due = |seed: u64| {
        let known = Known { cursor: Some(at(4)), ..Known::default() };
        let mut till =
            Till { session: Session::new(0, SessionConfig { seed, ..SessionConfig::default() }, known), now: 0, effects: vec![] };
        till.after(0, Input::Woken).after(10, Input::Subscribed).after(1, Input::HeadArrived(head(at(4))));
        let began = till.now;
        let mut bulk = head(at(5));
        bulk.pull_within_ms = Some(5_000);
        till.after(0, Input::HeadArrived(bulk));
        let ask = till.until_asked();
        assert_eq!((ask.reason, ask.is_fallback), (Reason::Pull, false));
        till.now - began
    };
    let waits: Vec<u64> = (0..40).map(due).collect();
    assert!(waits.iter().all(|wait| *wait <= 5_000));
    assert!(waits.iter().any(|wait| *wait < 1_500) && waits.iter().any(|wait| *wait > 3_500), "{waits:?}");
}

#[test]
fn the_poll_is_left_out_only_while_a_fresh_head_equals_the_cursor() {
    let mut till = Till::live_at(at(4));
    let silent_for = |till: &mut Till| {
        let began = till.now;
        let ask = till.until_asked();
        (till.now - began, ask.reason)
    };
    for _ in 0..20 {
        assert!(till.after(60_000, Input::HeadArrived(head(at(4)))).asked().is_none());
    }
    assert!(till.session.counters().polls_skipped >= 3);
    let (waited, reason) = silent_for(&mut till);
    assert!(waited <= 300_000 && reason == Reason::Poll, "{waited} ms of silence, then {reason:?}");
}

#[test]
fn a_refused_login_is_no_network_fault() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::ConnectionRefused(Code::CredentialsRefused));
    assert_eq!(till.state(), DeviceState::Blocked(Code::CredentialsRefused));
    let before = till.now;
    while !till.effects.iter().any(|effect| matches!(effect, Effect::Connect { .. })) {
        let due = till.session.next_deadline().unwrap();
        let wait = due.saturating_sub(till.now);
        till.after(wait, Input::Woken);
        if till.asked().is_some() {
            till.after(0, Input::CaughtUp(CatchUpOutcome::Unchanged));
        }
    }
    assert!(till.now > before, "not in a tight loop");
}

#[test]
fn a_broken_answer_goes_on_where_it_stopped() {
    let mut till = Till::knowing(None);
    till.after(0, Input::Woken).after(5, Input::Subscribed);
    till.after(5, Input::CaughtUp(CatchUpOutcome::Broken { resume: Some("p-17".into()) }));
    let ask = till.until_asked();
    assert_eq!((ask.resume.as_deref(), ask.keep_staged), (Some("p-17"), true));
    till.after(5, Input::CaughtUp(CatchUpOutcome::SnapshotRequired));
    assert!(till.effects.contains(&Effect::DropStaged), "the floor has passed it");
    let ask = till.until_asked();
    assert_eq!((ask.resume, ask.after, ask.keep_staged), (None, None, false));
}

#[test]
fn a_snapshot_that_was_broken_before_a_restart_goes_on_as_a_snapshot() {
    let resume = Some(Resume { position: "p-7".into(), snapshot: true });
    let known = Known { cursor: Some(at(12)), resume, ..Known::default() };
    let mut till = Till { session: Session::new(0, SessionConfig::default(), known), now: 0, effects: vec![] };
    till.after(0, Input::Woken).after(5, Input::Disconnected);
    let ask = till.until_asked();
    assert_eq!(
        (ask.after, ask.resume.as_deref(), ask.keep_staged),
        (None, Some("p-7"), true),
        "its deletions count from where it was made"
    );
}

#[test]
fn everything_anew_waits_for_an_answer_that_joins_what_is_staged() {
    let mut till = Till::live_at(at(4));
    till.after(0, Input::SyncRequested).after(5, Input::CaughtUp(CatchUpOutcome::Broken { resume: Some("p-5".into()) }));
    assert!(till.until_asked().keep_staged);
    till.after(1, Input::ResyncRequested);
    assert!(!till.effects.contains(&Effect::DropStaged), "the call under way needs those rows");
    till.complete(5, at(9));
    assert!(till.effects.iter().any(|e| matches!(e, Effect::Show { snapshot: false, .. })), "{:?}", till.effects);
    let ask = till.until_asked();
    assert_eq!((ask.after, ask.resume), (None, None), "and then everything is asked for anew");
}

#[test]
fn frames_of_a_lost_connection_are_never_shown() {
    let mut till = Till::live_at(at(4));
    till.product(1, frame(at(6), 1, 1)).after(1, Input::Disconnected);
    till.until_asked();
    till.complete(5, at(5));
    assert_eq!(till.applied(), Vec::<u64>::new(), "the server may have been put back to a backup meanwhile");
}

#[test]
fn a_digest_that_differs_at_the_same_commit_is_searched_by_range() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::Applied { cursor: at(4), digests: BTreeMap::new() });
    let mut truth = head(at(4));
    truth.digests.insert(Collection::product(), Digest::parse(&"1".repeat(32)).unwrap());
    till.after(1, Input::HeadArrived(truth));
    assert_eq!(till.effects, [Effect::FetchSubDigests(Collection::product())]);
    till.after(1, Input::Compared(Ok(Comparison { at: at(4), ranges: vec![3, 9], rows: 2 })));
    assert_eq!(till.effects, [Effect::FetchRows { collection: Collection::product(), ranges: vec![3, 9] }]);
    till.after(1, Input::RowsFetched(Ok(at(4))));
    assert_eq!(till.effects, [Effect::ReplaceRanges { collection: Collection::product(), ranges: vec![3, 9] }]);
    let counters = till.session.counters();
    assert_eq!((counters.digest_mismatches, counters.ranges_repaired), (1, 2));
}

fn sale() -> OperationId {
    OperationId::from_parts(Timestamp::from_ms(0), [7; 10])
}

/// A till at this cursor whose sale the server has put into the commit `seq`.
fn sold_at(cursor: Cursor, seq: u64) -> Till {
    let mut till = Till::live_at(cursor);
    till.after(1, Input::OperationCommitted(QueuedOperation { id: sale(), at: Timestamp::from_ms(0) }));
    assert!(matches!(till.effects[..], [Effect::Upload(_)]), "{:?}", till.effects);
    let verdict = Verdict { id: sale().to_string(), status: VerdictStatus::Accepted, seq: Some(seq), code: None, detail: None };
    till.after(1, Input::Uploaded(UploadOutcome::Answered(vec![verdict])));
    till
}

#[test]
fn a_server_that_has_not_come_to_the_number_of_a_verdict_has_lost_the_sale() {
    for seq in [4, 5] {
        let mut till = sold_at(at(4), seq);
        till.after(1, Input::SyncRequested);
        till.until_asked();
        till.after(1, Input::CaughtUp(CatchUpOutcome::Unchanged));
        assert_eq!(till.effects.contains(&Effect::Requeue), seq == 5, "a verdict for {seq}, a head of 4: {:?}", till.effects);
        // Once: the next answer says the same and nothing is handed in for it.
        till.after(1, Input::Requeued(vec![]));
        till.after(1, Input::SyncRequested);
        till.until_asked();
        assert!(!till.after(1, Input::CaughtUp(CatchUpOutcome::Unchanged)).effects.contains(&Effect::Requeue));
    }
}

/// A till at commit 9 of the old numbering that the server has told to begin again, and what the server's head is then.
fn renumbered() -> (Till, Head) {
    let mut till = Till::live_at(at(9));
    till.after(1, Input::Applied { cursor: at(9), digests: BTreeMap::new() });
    till.after(1, Input::SyncRequested).after(1, Input::CaughtUp(CatchUpOutcome::SnapshotRequired));
    let mut truth = head(of_epoch(7, 4));
    truth.digests.insert(Collection::product(), Digest::parse(&"1".repeat(32)).unwrap());
    till.after(1, Input::HeadFetched(Ok(truth.clone())));
    (till, truth)
}

#[test]
fn rows_altered_again_and_again_are_mended_range_by_range() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::Applied { cursor: at(4), digests: BTreeMap::new() });
    for _ in 0..10 {
        till.after(1, Input::Recounted(Some((at(4), vec![Collection::product()]))));
        assert_eq!(till.effects, [Effect::FetchSubDigests(Collection::product())]);
        // Meanwhile a head says that the stored digests are right, which proves nothing of the rows.
        till.after(1, Input::HeadArrived(head(at(4))));
        till.after(1, differing(at(4), vec![3], 1)).after(1, Input::RowsFetched(Ok(at(4))));
        assert_eq!(till.effects, [Effect::ReplaceRanges { collection: Collection::product(), ranges: vec![3] }]);
        till.after(1, Input::Applied { cursor: at(4), digests: BTreeMap::new() });
    }
}

#[test]
fn a_repair_that_never_helps_ends_in_a_snapshot() {
    let mut till = Till::live_at(at(4));
    for _ in 0..3 {
        till.after(1, Input::Recounted(Some((at(4), vec![Collection::product()]))));
        till.after(1, differing(at(4), vec![3], 1)).after(1, Input::RowsFetched(Ok(at(4))));
        let other = BTreeMap::from([(Collection::product(), Digest::parse(&"1".repeat(32)).unwrap())]);
        till.after(1, Input::Applied { cursor: at(4), digests: other });
    }
    till.after(1, Input::Recounted(Some((at(4), vec![Collection::product()]))));
    assert_eq!(till.until_asked().after, None);
}

fn differing(at: Cursor, ranges: Vec<u8>, rows: usize) -> Input {
    Input::Compared(Ok(Comparison { at, ranges, rows }))
}

#[test]
fn another_numbering_is_taken_over_by_the_ranges_that_differ_and_what_came_since() {
    let (mut till, truth) = renumbered();
    assert_eq!(till.effects, [Effect::DropStaged, Effect::FetchSubDigests(Collection::product())]);
    till.after(1, differing(of_epoch(7, 5), vec![3], 2));
    assert_eq!(till.effects, [Effect::FetchRows { collection: Collection::product(), ranges: vec![3] }]);
    till.after(1, Input::RowsFetched(Ok(of_epoch(7, 6))));
    let ask = till.asked().expect("the ranges are of different commits");
    assert_eq!((ask.after, ask.over_ranges, ask.keep_staged), (Some(truth.cursor()), true, false));
    assert_eq!(till.product(1, frame(at(10), 1, 1)).applied(), [0; 0], "nothing of the old numbering is shown meanwhile");
    till.after(1, Input::CaughtUp(CatchUpOutcome::Complete { to: of_epoch(7, 6), digests: BTreeMap::new() }));
    assert_eq!(till.effects[..2], [Effect::Renumber { to: of_epoch(7, 6) }, Effect::Requeue]);
    assert_eq!((till.session.counters().snapshots, till.session.counters().ranges_repaired), (0, 1));
}

#[test]
fn a_broken_comparison_begins_again_and_a_stubborn_one_ends_in_a_snapshot() {
    let (mut till, truth) = renumbered();
    for attempt in 1..4 {
        till.after(1, differing(at(9), vec![3], 2));
        assert_eq!(till.effects[0], Effect::DropStaged, "an answer of the numbering before, attempt {attempt}");
        while !till.effects.contains(&Effect::FetchHead) {
            let wait = till.session.next_deadline().unwrap().saturating_sub(till.now);
            till.after(wait, Input::Woken);
        }
        till.after(1, Input::HeadFetched(Ok(truth.clone())));
    }
    assert_eq!(till.until_asked().after, None);
}

#[test]
fn more_ranges_than_are_worth_it_are_a_snapshot() {
    for (rows, is_snapshot) in [(500, false), (50_000, true)] {
        let (mut till, _) = renumbered();
        till.after(1, differing(of_epoch(7, 4), (0..200).collect(), rows));
        let fetches = till.effects.iter().any(|effect| matches!(effect, Effect::FetchRows { .. }));
        assert_eq!(fetches, !is_snapshot, "{rows} rows");
    }
}

#[test]
fn an_answer_from_before_the_verdict_says_nothing_about_the_sale() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::SyncRequested);
    till.until_asked();
    till.after(1, Input::OperationCommitted(QueuedOperation { id: sale(), at: Timestamp::from_ms(0) }));
    let verdict = Verdict { id: sale().to_string(), status: VerdictStatus::Accepted, seq: Some(5), code: None, detail: None };
    till.after(1, Input::Uploaded(UploadOutcome::Answered(vec![verdict])));
    assert!(!till.after(1, Input::CaughtUp(CatchUpOutcome::Unchanged)).effects.contains(&Effect::Requeue));
}

#[test]
fn frames_that_the_server_knows_nothing_of_are_of_a_numbering_that_is_gone() {
    let mut till = Till::live_at(at(4));
    till.product(1, frame(at(6), 1, 1));
    till.until_asked();
    till.after(1, Input::CaughtUp(CatchUpOutcome::Unchanged));
    assert_eq!(till.product(1, frame(at(5), 1, 1)).applied(), [5], "and not 6 after it");

    let mut till = Till::live_at(at(4));
    till.product(1, frame(at(6), 1, 1));
    till.until_asked();
    till.product(1, frame(at(7), 1, 1));
    till.complete(1, at(6));
    assert_eq!(till.applied(), [7], "what came after the question may be newer than the answer");
}

#[test]
fn rows_are_counted_at_every_poll_and_repaired_without_any_head() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::Applied { cursor: at(4), digests: BTreeMap::new() });
    till.after(300_000, Input::Woken);
    assert!(till.effects.contains(&Effect::Recount), "{:?}", till.effects);
    till.after(1, Input::Recounted(Some((at(4), vec![Collection::product()]))));
    assert_eq!(till.effects, [Effect::FetchSubDigests(Collection::product())]);
    till.after(1, differing(at(4), vec![], 0));
    let nothing = Effect::ReplaceRanges { collection: Collection::product(), ranges: vec![] };
    assert_eq!(till.effects, [nothing], "the rows are right, their sum was not: it is written anew");
    assert_eq!(till.session.counters().digest_mismatches, 1);
}

#[test]
fn a_branch_that_is_held_does_not_look_live_until_it_goes_on() {
    let mut till = Till::live_at(at(4));
    till.after(1, Input::HeadArrived(Head { held_since: Some(Timestamp::from_ms(1)), ..head(at(4)) }));
    assert_eq!(till.state(), DeviceState::Blocked(Code::BranchHeld));
    till.after(1, Input::HeadArrived(head(at(4))));
    assert_eq!(till.state(), DeviceState::Live);
    till.after(1, Input::HeadArrived(Head { held_since: Some(Timestamp::from_ms(1)), ..head(at(4)) }));
    till.product(1, frame(at(5), 1, 1));
    assert_eq!(till.state(), DeviceState::Live, "the next commit came");
}
