//! A commit shows exactly the differences, in one order, within the limits of a frame.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn at() -> Timestamp {
    Timestamp::parse("2026-11-22T06:41:00.123Z").unwrap()
}

fn branch() -> BranchState {
    BranchState::new(Epoch::from_bits(1), at())
}

fn product(id: &str, rest: &str) -> Box<str> {
    format!(r#"{{"id":"{id}"{rest}}}"#).into()
}

fn difference(collection: &Collection, id: &str, old: Option<Box<str>>, new: Option<Box<str>>) -> Option<Difference> {
    Difference::between(collection, id, old.map(|text| Stored::new(collection, id, text)), new)
}

fn change(old: Option<&str>, new: Option<&str>) -> Option<(ChangeOp, Option<String>)> {
    let text = |rest: Option<&str>| rest.map(|rest| product("a", rest));
    let change = difference(&Collection::product(), "a", text(old), text(new))?.to_change();
    Some((change.op, change.row.map(|row| row.get().to_owned())))
}

#[test]
fn the_smallest_change_that_tells_the_difference() {
    let long = r#","name":"Tea from the hills","stock":"41""#;
    assert_eq!(change(Some(long), Some(long)), None);
    assert_eq!(change(None, None), None);
    assert_eq!(change(Some(long), None), Some((ChangeOp::Delete, None)));
    let less = r#","name":"Tea from the hills","stock":"40""#;
    assert_eq!(change(Some(long), Some(less)), Some((ChangeOp::Patch, Some(r#"{"stock":"40"}"#.into()))));
    let gone = r#","stock":"41""#;
    assert_eq!(change(Some(long), Some(gone)), Some((ChangeOp::Put, Some(r#"{"id":"a","stock":"41"}"#.into()))));
    assert_eq!(change(None, Some(gone)), Some((ChangeOp::Put, Some(r#"{"id":"a","stock":"41"}"#.into()))));
}

#[test]
fn a_commit_has_one_frame_per_collection_and_its_operations_on_the_first() {
    let op = OperationId::from_parts(at(), [7; 10]);
    let mut differences = vec![
        difference(&Collection::transaction(), "t", None, Some(product("t", ""))).unwrap(),
        difference(&Collection::product(), "b", None, Some(product("b", ""))).unwrap(),
        difference(&Collection::product(), "a", None, Some(product("a", ""))).unwrap(),
    ];
    sort(&mut differences);
    let commit = commit(&branch(), &differences, &[op], Tag::from_bits(9), at()).unwrap();
    let Delivery::Frames(payloads) = &commit.delivery else { panic!("frames") };
    let frames: Vec<Frame> = payloads.iter().map(|(_, payload)| Frame::parse(payload.as_bytes()).unwrap()).collect();
    assert_eq!(payloads.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["product", "transaction"]);
    assert_eq!(
        frames.iter().map(|f| (f.seq, f.prev, f.part, f.parts, f.ops.len())).collect::<Vec<_>>(),
        [(1, 0, 1, 2, 1), (1, 0, 2, 2, 0)]
    );
    assert_eq!(frames[0].changes.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(frames[1].frame_type, "transaction.created");
    assert_eq!(commit.state.collections[&Collection::product()].rows, 2);
}

#[test]
fn prev_names_the_last_commit_of_the_same_collection() {
    let mut state = branch();
    let mut prevs = Vec::new();
    for (collection, id) in [(Collection::product(), "a"), (Collection::inventory(), "x"), (Collection::product(), "b")] {
        let differences = [difference(&collection, id, None, Some(product(id, ""))).unwrap()];
        let made = commit(&state, &differences, &[], Tag::from_bits(1), at()).unwrap();
        let Delivery::Frames(payloads) = &made.delivery else { panic!("frames") };
        prevs.push(Frame::parse(payloads[0].1.as_bytes()).unwrap().prev);
        state = made.state;
    }
    assert_eq!(prevs, [0, 0, 1]);
}

#[test]
fn what_is_too_large_for_frames_goes_without() {
    let many = |count: usize| -> Vec<Difference> {
        (0..count)
            .filter_map(|i| difference(&Collection::product(), &format!("{i:05}"), None, Some(product(&format!("{i:05}"), ""))))
            .collect()
    };
    let delivery = |differences: &[Difference]| commit(&branch(), differences, &[], Tag::from_bits(1), at()).unwrap().delivery;
    assert!(matches!(delivery(&many(BULK_CHANGES_MAX)), Delivery::Frames(_)));
    assert_eq!(delivery(&many(BULK_CHANGES_MAX + 1)), Delivery::HeadOnly);
    let long = product("a", &format!(r#","name":"{}""#, "x".repeat(FRAME_BYTES_MAX)));
    assert_eq!(delivery(&[difference(&Collection::product(), "a", None, Some(long)).unwrap()]), Delivery::HeadOnly);
    assert!(commit(&branch(), &[], &[], Tag::from_bits(1), at()).is_none());
}

#[test]
fn a_commit_that_only_names_is_a_head() {
    let before = branch();
    let made = naming(&before, Tag::from_bits(1), at());
    assert_eq!((made.state.seq, made.state.epoch, &made.state.collections), (before.seq + 1, before.epoch, &before.collections));
    assert_eq!((made.state.tag, made.changed, made.delivery), (Tag::from_bits(1), Vec::new(), Delivery::HeadOnly));
}

#[test]
fn only_deletions_that_nobody_intends_are_held() {
    let check = |rows: u64, deletes: usize, expired: bool| {
        let mut state = branch();
        state.collections.get_mut(&Collection::product()).unwrap().rows = rows;
        let differences: Vec<_> = (0..deletes)
            .map(|i| Difference { expired, ..difference(&Collection::product(), &i.to_string(), Some(product("x", "")), None).unwrap() })
            .collect();
        mass_deletion(&state, &differences).is_some()
    };
    assert!(!check(100, 100, false), "at most 100 rows are never held");
    assert!(check(101, 101, false));
    assert!(!check(1_000, 200, false), "20 % of 1000");
    assert!(check(1_000, 201, false));
    assert!(!check(1_000, 1_000, true), "expiry is not a deletion by somebody");
}

#[test]
fn pulls_are_spread_by_the_number_of_devices() {
    assert_eq!((pull_within_ms(0), pull_within_ms(1)), (0, 0));
    assert!(pull_within_ms(100) > pull_within_ms(10));
    assert_eq!(pull_within_ms(usize::MAX), 30_000);
}

proptest! {
    /// Applying the frames of any history gives the rows, and the digest kept along the way is the digest of those rows.
    #[test]
    fn frames_rebuild_the_rows_and_the_digest(steps in proptest::collection::vec(proptest::collection::vec((0u8..6, proptest::option::of(0u8..4)), 1..6), 1..20)) {
        let name = Collection::product();
        let mut state = branch();
        let (mut source, mut device): (BTreeMap<String, Box<str>>, BTreeMap<String, Row>) = Default::default();
        for step in steps {
            let before = source.clone();
            for (id, value) in step {
                let id = id.to_string();
                match value {
                    Some(value) => source.insert(id.clone(), product(&id, &format!(r#","name":"a long enough name","v":{value}"#))),
                    None => source.remove(&id),
                };
            }
            let ids: std::collections::BTreeSet<&String> = before.keys().chain(source.keys()).collect();
            let mut differences: Vec<_> = ids.into_iter().rev().filter_map(|id| difference(&name, id, before.get(id).cloned(), source.get(id).cloned())).collect();
            sort(&mut differences);
            let Some(made) = commit(&state, &differences, &[], Tag::from_bits(1), at()) else { continue };
            prop_assert_eq!(made.state.seq, state.seq + 1);
            let Delivery::Frames(payloads) = &made.delivery else { panic!("frames") };
            for change in Frame::parse(payloads[0].1.as_bytes()).unwrap().changes {
                match change.op {
                    ChangeOp::Put => { device.insert(change.id.clone(), change.row().unwrap()); }
                    ChangeOp::Patch => { let row = device[&change.id].patched(&change.patch().unwrap()).unwrap(); device.insert(change.id.clone(), row); }
                    ChangeOp::Delete => { device.remove(&change.id); }
                }
            }
            state = made.state;
        }
        let sum = device.values().fold(Digest::EMPTY, |sum, row| sum.with(row.hash(&name)));
        prop_assert_eq!(sum, state.collections[&name].digest);
        prop_assert_eq!(device.len() as u64, state.collections[&name].rows);
        prop_assert!(device.values().map(|row| row.as_str()).eq(source.values().map(|text| &**text)));
    }
}
