//! Rows written ahead of their last line: never seen before it, never in anybody's way, and the same in the end.

use std::sync::Arc;

use super::*;
use crate::staged::Segment;

const ROWS: usize = 4_000;

/// A first snapshot that fills more than one segment.
fn snapshot() -> Staged {
    let padding = "x".repeat(200);
    let lines: Vec<_> = (0..ROWS).map(|n| line(&format!("p{n:05}"), Some(&format!(r#"{{"id":"p{n:05}","name":"{padding}"}}"#)))).collect();
    let first = format!(r#"{{"epoch":"{}","from":0,"to":7,"rows":{ROWS},"ops":[]}}"#, epoch());
    let end = format!(r#"{{"end":true,"seq":7,"tag":"{}","digests":{{}}}}"#, Tag::from_bits(7));
    let mut staged = Staged::default();
    for text in [&first].into_iter().chain(&lines).chain([&end]) {
        staged.feed(format!("{text}\n").as_bytes()).unwrap();
    }
    assert!(staged.full().len() > 1, "more than one segment");
    staged
}

fn write_all(db: &mut LocalDb, segments: &[Arc<Segment>]) {
    assert!(db.begin_ahead().unwrap());
    for segment in segments {
        assert!(db.write_ahead(segment).unwrap());
    }
}

fn check_shown(till: &Till) {
    assert_eq!(till.reader.rows(&Collection::product()).unwrap().len(), ROWS);
    assert_eq!(till.db.cursor(), Some(at(7)));
    assert_eq!(recount(&till.path).unwrap(), Some((at(7), vec![])));
    till.check_digests();
}

#[test]
fn rows_written_ahead_are_shown_with_the_last_line_and_not_before() {
    let (mut till, staged) = (Till::new(), snapshot());
    write_all(&mut till.db, staged.full());
    assert!(till.reader.rows(&Collection::product()).unwrap().is_empty());
    assert_eq!(till.db.show(&staged, at(7), true).unwrap().changes, ROWS as u64);
    check_shown(&till);
    assert!(!till.db.begin_ahead().unwrap(), "what is shown is never written over");
}

#[test]
fn a_sale_in_the_middle_is_on_disk_and_the_rows_are_written_when_they_are_shown() {
    let (mut till, staged) = (Till::new(), snapshot());
    write_all(&mut till.db, &staged.full()[..1]);
    let sale = till.sell(1, "2");
    assert!(!till.db.write_ahead(&staged.full()[1]).unwrap(), "the sale has ended it");
    let other = Connection::open(&till.path).unwrap();
    assert_eq!(other.query_row("SELECT count(*) FROM operation", [], |row| row.get::<_, i64>(0)).unwrap(), 1, "the sale was committed");
    till.db.show(&staged, at(7), true).unwrap();
    check_shown(&till);
    assert_eq!(till.db.queue().unwrap().iter().map(|operation| operation.id).collect::<Vec<_>>(), [sale]);
}

#[test]
fn rows_of_an_answer_that_broke_off_are_gone() {
    let (mut till, broken, whole) = (Till::new(), snapshot(), snapshot());
    write_all(&mut till.db, broken.full());
    till.db.show(&whole, at(7), true).unwrap();
    check_shown(&till);

    let mut till = Till::new();
    write_all(&mut till.db, broken.full());
    till.db.end_ahead().unwrap();
    let other = Connection::open(&till.path).unwrap();
    other.execute("INSERT INTO state (name, value) VALUES ('other program', 'writes')", []).unwrap();
    assert!(till.reader.rows(&Collection::product()).unwrap().is_empty());
}
