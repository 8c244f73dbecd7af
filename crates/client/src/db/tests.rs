//! The local database by itself: what is shown, what is refused, what survives.
#![allow(clippy::unwrap_used)]

mod ahead;

use std::collections::BTreeMap;

use mstore_engine::ReadyCommit;
use mstore_protocol::{
    Code, Collection, Cursor, DecidedBy, Decision, Digest, Epoch, Frame, Operation, OperationDecision, OperationId, OperationKind, Row,
    Tag, Timestamp, Verdict, VerdictStatus,
};

use super::*;
use crate::{error::CommitError, staged::Staged, views::Query};

struct Till {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    db: LocalDb,
    reader: Reader,
}

fn epoch() -> Epoch {
    Epoch::parse("b5d0c1a97e3f4a62").unwrap()
}

fn at(seq: u64) -> Cursor {
    Cursor { epoch: epoch(), seq, tag: Tag::from_bits(seq) }
}

fn frame(seq: u64, ops: &[OperationId], changes: &str) -> Frame {
    let ops = serde_json::to_string(ops).unwrap();
    let tag = Tag::from_bits(seq);
    let text = format!(
        r#"{{"v":1,"type":"x","epoch":"{}","seq":{seq},"tag":"{tag}","prev":0,"part":1,"parts":1,"at":"2026-11-22T06:41:00.123Z","ops":{ops},"changes":[{changes}]}}"#,
        epoch()
    );
    Frame::parse(text.as_bytes()).unwrap()
}

fn commit(seq: u64, ops: &[OperationId], changes: &str) -> ReadyCommit {
    let frame = frame(seq, ops, changes);
    ReadyCommit { cursor: at(seq), at: frame.at, ops: frame.ops.clone(), frames: vec![(Collection::product(), frame)] }
}

fn tea(stock: &str) -> String {
    format!(
        r#"{{"op":"put","id":"tea","row":{{"id":"tea","name":"Tea","price":{{"amount":500,"currency":"IDR"}},"stock":"{stock}","track_stock":true}}}}"#
    )
}

fn answer(lines: &[&str], to: u64, ops: &[OperationId]) -> Staged {
    let mut staged = Staged::default();
    let ops = serde_json::to_string(ops).unwrap();
    let first = format!(r#"{{"epoch":"{}","from":0,"to":{to},"rows":{},"ops":{ops}}}"#, epoch(), lines.len());
    let end = format!(r#"{{"end":true,"seq":{to},"tag":"{}","digests":{{}}}}"#, Tag::from_bits(to));
    staged.feed(format!("{first}\n{}{end}\n", lines.iter().map(|line| format!("{line}\n")).collect::<String>()).as_bytes()).unwrap();
    staged
}

fn line(id: &str, row: Option<&str>) -> String {
    match row {
        Some(row) => format!(r#"{{"c":"product","op":"put","id":"{id}","seq":1,"p":"p-{id}","row":{row}}}"#),
        None => format!(r#"{{"c":"product","op":"delete","id":"{id}","seq":1,"p":"p-{id}"}}"#),
    }
}

impl Till {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("till.db");
        let db = LocalDb::open(&path).unwrap();
        let reader = open_reader(&path).unwrap();
        Self { _dir: dir, path, db, reader }
    }

    fn with_tea(stock: &str) -> Self {
        let mut till = Self::new();
        till.db.show(&answer(&[], 0, &[]), at(0), true).unwrap();
        till.db.apply(&[commit(1, &[], &tea(stock))]).unwrap();
        till
    }

    fn sell(&mut self, n: u8, quantity: &str) -> OperationId {
        let price = r#"{"amount":0,"currency":"IDR"}"#;
        let kind: OperationKind = serde_json::from_str(&format!(
            r#"{{"type":"sale","lines":[{{"line_no":1,"product_id":"tea","quantity":"{quantity}","unit_price":{price},"total":{price}}}],"tenders":[],"total":{price},"receipt_no":"R{n}","business_date":"2026-11-22"}}"#
        ))
        .unwrap();
        self.commit(n, kind)
    }

    fn commit(&mut self, n: u8, kind: OperationKind) -> OperationId {
        let id = OperationId::from_parts(Timestamp::from_ms(1_000), [n; 10]);
        let new = NewOperation { id, occurred_at: Timestamp::from_ms(1_000), replaces: None };
        let text = |operation: &Operation| Ok::<_, CommitError>(serde_json::to_string(operation).unwrap());
        self.db.commit(&new, |_, _| Ok(kind), text).unwrap();
        id
    }

    fn verdict(&mut self, id: OperationId, status: VerdictStatus, seq: Option<u64>) {
        self.db.settle(&[Verdict { id: id.to_string(), status, seq, code: None, detail: None }]).unwrap();
    }

    /// What the app shows, and what the server said.
    fn stock(&self) -> String {
        let tea = self.reader.product("tea").unwrap().unwrap();
        format!("{} of {}", tea.stock, tea.server_stock)
    }

    fn check_digests(&self) {
        for (collection, digest) in self.db.digests() {
            let rows = self.reader.rows(collection).unwrap();
            let sum = rows.iter().fold(Digest::EMPTY, |sum, row| sum.with(Row::parse(row).unwrap().hash(collection)));
            assert_eq!(sum, *digest, "{collection}");
        }
    }
}

#[test]
fn commits_change_rows_digests_and_cursor_together() {
    let mut till = Till::with_tea("41");
    till.db
        .apply(&[
            commit(2, &[], r#"{"op":"patch","id":"tea","row":{"stock":"40"}}"#),
            commit(3, &[], r#"{"op":"put","id":"x","row":{"id":"x"}}"#),
        ])
        .unwrap();
    assert_eq!((till.stock().as_str(), till.db.cursor()), ("40 of 40", Some(at(3))));
    till.check_digests();
    till.db.apply(&[commit(4, &[], r#"{"op":"delete","id":"tea"}"#)]).unwrap();
    assert!(till.reader.product("tea").unwrap().is_none());
    till.check_digests();
    let reopened = LocalDb::open(&till.path).unwrap();
    assert_eq!((reopened.cursor(), reopened.digests()), (Some(at(4)), till.db.digests()));
}

#[test]
fn a_patch_without_its_row_shows_nothing_of_the_whole_batch() {
    let mut till = Till::with_tea("41");
    let batch = [commit(2, &[], &tea("7")), commit(3, &[], r#"{"op":"patch","id":"nobody","row":{"stock":"40"}}"#)];
    assert!(matches!(till.db.apply(&batch), Err(ApplyError::BaseMissing { .. })));
    assert_eq!((till.stock().as_str(), till.db.cursor()), ("41 of 41", Some(at(1))));
    till.check_digests();
    assert!(matches!(till.db.apply(&[commit(3, &[], &tea("7"))]), Err(ApplyError::OutOfOrder { .. })), "2 is missing");
}

#[test]
fn an_own_sale_shows_at_once_and_leaves_with_the_commit_that_names_it() {
    let mut till = Till::with_tea("41");
    let sale = till.sell(1, "2");
    assert_eq!(till.stock(), "39 of 41");
    till.verdict(sale, VerdictStatus::Accepted, Some(3));
    assert_eq!(till.stock(), "39 of 41", "accepted, but not in the stream yet");
    till.db.apply(&[commit(2, &[], r#"{"op":"patch","id":"tea","row":{"stock":"30"}}"#)]).unwrap();
    assert_eq!(till.stock(), "28 of 30", "somebody else's commit");
    till.db.apply(&[commit(3, &[sale], r#"{"op":"patch","id":"tea","row":{"stock":"28"}}"#)]).unwrap();
    assert_eq!(till.stock(), "28 of 28");
}

#[test]
fn an_operation_leaves_the_overlay_whichever_comes_first_stream_or_verdict() {
    let mut till = Till::with_tea("41");
    let (named, passed) = (till.sell(1, "1"), till.sell(2, "2"));
    till.db.apply(&[commit(2, &[named], r#"{"op":"patch","id":"tea","row":{"stock":"40"}}"#)]).unwrap();
    assert_eq!(till.stock(), "38 of 40", "named while its verdict is on the way");
    till.db.apply(&[commit(3, &[], r#"{"op":"patch","id":"tea","row":{"stock":"38"}}"#)]).unwrap();
    till.verdict(passed, VerdictStatus::Duplicate, Some(3));
    assert_eq!(till.stock(), "38 of 38", "its commit had been shown before the verdict");
    let waiting: Vec<_> = till.db.queue().unwrap().iter().map(|operation| operation.id).collect();
    assert_eq!(waiting, [named, passed], "the second was promised for a commit that did not name it: handed in once more");
    till.verdict(passed, VerdictStatus::Duplicate, Some(3));
    assert_eq!(till.db.queue().unwrap().len(), 1, "and only once");
}

#[test]
fn a_rejected_operation_leaves_the_overlay_and_becomes_a_dead_letter() {
    let mut till = Till::with_tea("41");
    let sale = till.sell(1, "2");
    till.db
        .settle(&[Verdict {
            id: sale.to_string(),
            status: VerdictStatus::Rejected,
            seq: None,
            code: Some(Code::UnknownProduct),
            detail: None,
        }])
        .unwrap();
    assert_eq!(till.stock(), "41 of 41");
    let letters = till.db.dead_letters().unwrap();
    assert_eq!((letters.len(), letters[0].code, letters[0].operation.id), (1, Some(Code::UnknownProduct), sale));
    assert!(till.db.discard(sale).unwrap() && !till.db.discard(sale).unwrap());
    assert_eq!(till.db.dead_letter_count().unwrap(), 0);
}

#[test]
fn a_count_is_the_base_of_what_comes_after_it() {
    let mut till = Till::with_tea("41");
    till.sell(1, "2");
    let count = r#"{"type":"count","collection":"product","item_id":"tea","quantity":"10","reason":"stocktake"}"#;
    till.commit(2, serde_json::from_str(count).unwrap());
    till.sell(3, "1");
    assert_eq!(till.stock(), "9 of 41");
}

#[test]
fn a_snapshot_replaces_everything_and_keeps_the_queue() {
    let mut till = Till::with_tea("41");
    till.sell(1, "2");
    let lines =
        [line("coffee", Some(r#"{"id":"coffee","stock":"3"}"#)), line("tea", Some(r#"{"id":"tea","stock":"50","track_stock":true}"#))];
    till.db.show(&answer(&[&lines[0], &lines[1]], 9, &[]), at(9), true).unwrap();
    assert_eq!((till.stock().as_str(), till.db.queue().unwrap().len()), ("48 of 50", 1));
    till.db.show(&answer(&[&lines[0]], 10, &[]), at(10), true).unwrap();
    assert!(till.reader.product("tea").unwrap().is_none());
    assert_eq!(till.reader.products(&Query::default()).unwrap().len(), 1);
    till.check_digests();
}

#[test]
fn a_broken_answer_is_not_shown_and_goes_on_after_a_restart() {
    let mut till = Till::with_tea("41");
    let (a, b) = (line("a", Some(r#"{"id":"a"}"#)), line("b", Some(r#"{"id":"b"}"#)));
    let mut staged = answer(&[&a, &b], 9, &[]);
    till.db.spill(&mut staged, true).unwrap();
    assert_eq!(till.reader.rows(&Collection::product()).unwrap().len(), 1, "only what was shown before");

    let mut db = LocalDb::open(&till.path).unwrap();
    let (resume, ops) = db.staged().unwrap().unwrap();
    assert_eq!((resume.position.as_str(), resume.snapshot), ("p-b", true));
    let mut staged = Staged::on_disk(ops);
    staged.go_on();
    let gone = line("a", None);
    let first = format!(r#"{{"epoch":"{}","from":0,"to":9,"rows":1,"ops":[]}}"#, epoch());
    staged.feed(format!("{first}\n{gone}\n").as_bytes()).unwrap();
    db.show(&staged, at(9), true).unwrap();
    assert_eq!(till.reader.rows(&Collection::product()).unwrap(), [r#"{"id":"b"}"#]);
    assert!(db.staged().unwrap().is_none());
    till.db = db;
    till.check_digests();
}

#[test]
fn the_answer_of_changes_takes_contained_operations_out_of_the_overlay() {
    let mut till = Till::with_tea("41");
    let sale = till.sell(1, "2");
    let row = line("tea", Some(r#"{"id":"tea","stock":"39","track_stock":true}"#));
    till.db.show(&answer(&[&row], 2, &[sale]), at(2), false).unwrap();
    assert_eq!(till.stock(), "39 of 39");
}

#[test]
fn the_app_cannot_write_what_belongs_to_the_server() {
    let mut till = Till::with_tea("41");
    till.sell(1, "2");
    let app = Connection::open(&till.path).unwrap();
    for sql in [
        "UPDATE row SET body = '{}'",
        "DELETE FROM row",
        "INSERT INTO row VALUES ('product', 'x', 1, '{}', x'00')",
        "DELETE FROM operation",
        "UPDATE operation SET state = 'accepted'",
    ] {
        let error = app.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("only_the_sync_client_writes_here"), "{sql}: {error}");
    }
    assert_eq!(app.query_row("SELECT stock FROM product WHERE id = 'tea'", [], |row| row.get::<_, String>(0)).unwrap(), "41");
}

#[test]
fn a_range_is_repaired_even_when_text_and_sum_were_altered() {
    let mut till = Till::with_tea("41");
    let at = till.db.cursor().unwrap();
    let row = till.reader.row(&Collection::product(), "tea").unwrap().unwrap();
    let mut theirs = [Digest::EMPTY; 256];
    theirs[usize::from(mstore_protocol::bucket_of("tea"))] = Digest::EMPTY.with(row.hash(&Collection::product()));
    assert!(till.db.compare(&Collection::product(), at, &theirs).unwrap().ranges.is_empty());
    let app = Connection::open(&till.path).unwrap();
    app.execute_batch("DROP TRIGGER row_guard_update; UPDATE row SET body = replace(body, '41', '99')").unwrap();
    assert_eq!(recount(&till.path).unwrap(), Some((at, vec![Collection::product()])));
    let found = till.db.compare(&Collection::product(), at, &theirs).unwrap();
    assert_eq!((&found.ranges[..], found.rows), (&[mstore_protocol::bucket_of("tea")][..], 1));
    till.db.replace_ranges(&FetchedRange { collection: Collection::product(), ranges: found.ranges, rows: vec![(row, 1)] }).unwrap();
    assert_eq!(recount(&till.path).unwrap(), Some((at, vec![])));
    assert_eq!(till.stock(), "41 of 41");
    till.check_digests();
}

#[test]
fn after_a_start_an_accepted_operation_that_was_not_shown_waits_for_a_verdict_again() {
    let mut till = Till::with_tea("41");
    let (first, second) = (till.sell(1, "2"), till.sell(2, "1"));
    till.verdict(first, VerdictStatus::Accepted, Some(2));
    till.verdict(second, VerdictStatus::Accepted, Some(3));
    till.db.apply(&[commit(2, &[first], &tea("39"))]).unwrap();
    till.db.queue_unshown().unwrap();
    let queue = till.db.queue().unwrap();
    assert_eq!(queue.iter().map(|operation| operation.id).collect::<Vec<_>>(), [second], "the first is in the stream");
    assert_eq!(till.stock(), "38 of 39", "it stays in the overlay");
    till.verdict(second, VerdictStatus::Duplicate, Some(3));
    assert!(till.db.queue().unwrap().is_empty());
}

#[test]
fn accepted_operations_wait_again_when_the_server_was_renumbered_and_old_ones_are_forgotten() {
    let mut till = Till::with_tea("41");
    let sale = till.sell(1, "2");
    till.db.apply(&[commit(2, &[sale], &tea("41"))]).unwrap();
    till.verdict(sale, VerdictStatus::Accepted, Some(2));
    assert!(till.db.queue().unwrap().is_empty());
    let queue = till.db.requeue(Timestamp::from_ms(2_000)).unwrap();
    assert_eq!(queue.iter().map(|operation| operation.id).collect::<Vec<_>>(), [sale]);
    till.verdict(sale, VerdictStatus::Duplicate, Some(1));
    assert_eq!(till.stock(), "41 of 41", "it is in the stream, whatever its verdict says again");
    let after_keep = Timestamp::from_ms(1_001 + 30 * 86_400_000);
    assert!(till.db.requeue(after_keep).unwrap().is_empty());
    till.db.prune(after_keep).unwrap();
    assert_eq!(till.db.next_device_seq().unwrap(), 2, "numbers are never given twice");
}

#[test]
fn what_was_done_at_a_branch_that_the_till_has_left_is_never_handed_in_at_the_next() {
    let mut till = Till::with_tea("9");
    let old = till.sell(1, "2");
    till.verdict(old, VerdictStatus::Accepted, Some(2));
    till.db.apply(&[commit(2, &[old], &tea("7"))]).unwrap();
    till.db.leave_branch().unwrap();
    till.db.show(&answer(&[&line("tea", Some(r#"{"id":"tea","stock":"5"}"#))], 3, &[]), at(3), true).unwrap();
    let anew = Cursor { epoch: Epoch::from_bits(7), ..at(4) };
    till.db.show(&answer(&[&line("tea", Some(r#"{"id":"tea","stock":"5"}"#))], 4, &[]), anew, true).unwrap();
    assert!(till.db.queue().unwrap().is_empty(), "another numbering of this branch asks for nothing of the other");
}

#[test]
fn digests_of_nothing_are_nothing() {
    let till = Till::new();
    assert_eq!((till.db.cursor(), till.db.digests()), (None, &BTreeMap::new()));
}

#[test]
fn a_wiped_database_takes_no_sale_from_a_program_that_still_has_it_open() {
    let mut till = Till::with_tea("41");
    let mut other = LocalDb::open(&till.path).unwrap();
    let id = till.sell(1, "2");
    assert_eq!(till.db.wipe().unwrap(), Some(Unsaved { waiting: 1, rejected: 0 }));
    till.verdict(id, VerdictStatus::Rejected, None);
    assert_eq!(till.db.wipe().unwrap(), Some(Unsaved { waiting: 0, rejected: 1 }), "nobody has decided about it");
    till.db.discard(id).unwrap();
    assert_eq!(till.db.wipe().unwrap(), None);
    let new = NewOperation {
        id: OperationId::from_parts(Timestamp::from_ms(2_000), [9; 10]),
        occurred_at: Timestamp::from_ms(2_000),
        replaces: None,
    };
    let kind = serde_json::from_str(r#"{"type":"count","collection":"product","item_id":"tea","quantity":"1","reason":"x"}"#).unwrap();
    let refused = other.commit(&new, |_, _| Ok::<OperationKind, CommitError>(kind), |_| Ok(String::new())).unwrap_err();
    assert!(refused.to_string().contains("was wiped"), "{refused}");
}

#[test]
fn what_an_operator_decided_takes_the_place_of_a_decision_made_here() {
    let mut till = Till::with_tea("41");
    let (open, given_up) = (till.sell(1, "1"), till.sell(2, "1"));
    for id in [open, given_up] {
        till.verdict(id, VerdictStatus::Rejected, None);
    }
    till.db.discard(given_up).unwrap();
    let undecided = till.db.undecided().unwrap();
    assert_eq!((undecided.open, undecided.decided[0].id, undecided.decided[0].device_seq), (vec![open], given_up, 2));
    let by = OperationId::from_parts(Timestamp::from_ms(3_000), [3; 10]);
    let sent_again = |id| OperationDecision {
        id,
        decision: Decision::Replaced,
        replaced_by: Some(by),
        decided_by: DecidedBy::Operator,
        reason: "called".into(),
        decided_at: Timestamp::from_ms(4_000),
    };
    till.db.settled(&undecided.decided, &[sent_again(open), sent_again(given_up)]).unwrap();
    assert_eq!(till.db.dead_letter_count().unwrap(), 0);
    let states: Vec<String> = {
        let mut read = till.db.conn.prepare("SELECT state FROM operation ORDER BY device_seq").unwrap();
        read.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(states, ["replaced", "replaced"]);
    let left = till.db.undecided().unwrap();
    assert!(left.open.is_empty() && left.decided.is_empty());
    let again: Vec<OperationId> = till.db.requeue(Timestamp::from_ms(5_000)).unwrap().into_iter().map(|queued| queued.id).collect();
    assert_eq!(again, [open, given_up], "a server restored from a backup may have forgotten what the operator sent");
}
