//! Replays `golden/`: every accepted text parses to what stands beside it, every refused one is refused.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, path::Path};

use mstore_protocol::*;
use serde_json::Value;

struct Golden {
    accepted: Vec<Value>,
    refused: Vec<Value>,
}

fn load(name: &str) -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(format!("{name}.json"));
    let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let list = |key: &str| file[key].as_array().unwrap().clone();
    let golden = Golden { accepted: list("accepted"), refused: list("refused") };
    assert!(!golden.accepted.is_empty() && !golden.refused.is_empty(), "{name} has both kinds");
    golden
}

fn text(case: &Value) -> &str {
    case["text"].as_str().unwrap()
}

fn field<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap()
}

/// Runs one file through a parser that gives back what it would write.
fn replay<E: std::fmt::Display>(name: &str, parse: impl Fn(&Value) -> Result<String, E>) {
    let golden = load(name);
    for case in &golden.accepted {
        if let Err(error) = parse(case) {
            panic!("{name}: {} was refused: {error}", case["name"]);
        }
    }
    for case in &golden.refused {
        if let Ok(written) = parse(case) {
            panic!("{name}: {} was accepted as {written}", case["name"]);
        }
    }
}

fn reread<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(raw: &str) -> Result<String, String> {
    let first: T = serde_json::from_str(raw).map_err(|error| error.to_string())?;
    let written = serde_json::to_string(&first).unwrap();
    let second: T = serde_json::from_str(&written).unwrap();
    assert_eq!(first, second, "writing and reading changed it");
    Ok(written)
}

#[test]
fn every_file_is_replayed() {
    let here: BTreeSet<String> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".json").map(str::to_owned))
        .collect();
    let source = include_str!("golden.rs");
    for name in here {
        assert!(source.contains(&format!("(\"{name}\"")), "golden/{name}.json is replayed by no test");
    }
}

#[test]
fn rows() {
    replay("row", |case| {
        let row = Row::parse(text(case))?;
        if let Some(canonical) = case["canonical"].as_str() {
            assert_eq!(row.as_str(), canonical, "{}", case["name"]);
            let collection = Collection::parse(field(case, "collection")).unwrap();
            let mut bytes = row.hash(&collection).to_bytes();
            bytes.reverse();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, field(case, "hash"), "{}", case["name"]);
            assert_eq!(u64::from(bucket_of(row.id())), case["bucket"].as_u64().unwrap());
        }
        Ok::<_, RowError>(row.as_str().to_owned())
    });
}

#[test]
fn row_refusals_have_the_named_reason() {
    for case in load("row").refused {
        let error = Row::parse(text(&case)).unwrap_err();
        let reason = match &error {
            RowError::Canonical(CanonicalError::Float { .. }) => "float",
            RowError::Canonical(CanonicalError::IntegerRange { .. }) => "integer",
            RowError::Canonical(CanonicalError::DuplicateKey { .. }) => "duplicate_key",
            RowError::Canonical(CanonicalError::TooDeep) => "deep",
            RowError::Canonical(CanonicalError::TooLarge { .. }) => "large",
            RowError::Canonical(CanonicalError::Syntax { .. }) => "syntax",
            RowError::NotAnObject => "object",
            RowError::Id | RowError::IdChanged => "id",
        };
        assert_eq!(reason, field(&case, "reason"), "{}", case["name"]);
    }
}

#[test]
fn digests() {
    let golden = load("digest");
    for case in &golden.accepted {
        let collection = Collection::parse(field(case, "collection")).unwrap();
        let rows = case["rows"].as_array().unwrap().iter().map(|row| Row::parse(row.as_str().unwrap()).unwrap());
        let digest = rows.fold(Digest::EMPTY, |digest, row| digest.with(row.hash(&collection)));
        assert_eq!(digest.to_string(), field(case, "digest"), "{}", case["name"]);
        assert_eq!(Digest::parse(field(case, "digest")).unwrap(), digest);
    }
    for case in &golden.refused {
        assert!(Digest::parse(text(case)).is_err(), "{}", case["name"]);
    }
}

#[test]
fn frames() {
    replay("frame", |case| {
        let frame = Frame::parse(text(case).as_bytes())?;
        if let Some(expected) = case["type_of"].as_str() {
            let collection = Collection::parse(field(case, "collection")).unwrap();
            assert_eq!(frame_type(&collection, &frame.changes), expected, "{}", case["name"]);
            assert_eq!(frame.frame_type, expected, "{}", case["name"]);
        }
        assert_eq!(Frame::parse(frame.to_json().as_bytes()).unwrap(), frame);
        Ok::<_, FrameError>(frame.to_json())
    });
    let one_stock_update = text(&load("frame").accepted[0]).len();
    assert!(one_stock_update <= 250, "a stock update takes {one_stock_update} bytes of payload");
}

#[test]
fn heads() {
    replay("head", |case| Head::parse(text(case).as_bytes()).map(|head| head.to_json()));
}

#[test]
fn change_lines() {
    replay("changes", |case| {
        let raw = text(case);
        match field(case, "kind") {
            "first" => reread::<ChangesFirst>(raw),
            "end" => reread::<ChangesEnd>(raw),
            "line" => {
                serde_json::from_str::<ChangeLine<'_>>(raw).map(|line| serde_json::to_string(&line).unwrap()).map_err(|e| e.to_string())
            }
            "position" => Position::parse(raw).map(|p| p.to_string()).map_err(|e| e.to_string()),
            other => panic!("unknown kind {other}"),
        }
    });
}

#[test]
fn topics() {
    replay("topic", |case| {
        let topic = Topic::parse(text(case))?;
        assert_eq!(topic.to_string(), text(case));
        let collection = match &topic.kind {
            TopicKind::Updates(collection) => Value::from(collection.as_str()),
            TopicKind::Head => Value::Null,
        };
        assert_eq!(collection, case["collection"]);
        Ok::<_, TopicError>(topic.to_string())
    });
}

#[test]
fn cursors() {
    replay("cursor", |case| {
        let cursor = Cursor::parse(text(case))?;
        assert_eq!(cursor.to_string(), text(case));
        Ok::<_, CursorError>(cursor.to_string())
    });
}

#[test]
fn claim_links() {
    replay("claim_link", |case| {
        let link = ClaimLink::parse(text(case)).ok_or("no claim")?;
        assert_eq!((&*link.server, &*link.code, &*link.to_string()), (field(case, "server"), field(case, "code"), field(case, "written")));
        Ok::<_, &str>(link.to_string())
    });
}

#[test]
fn quantities() {
    replay("quantity", |case| {
        let quantity = Quantity::parse(text(case))?;
        assert_eq!(quantity.to_string(), text(case));
        assert_eq!(Value::from(quantity.as_milli()), case["milli"]);
        Ok::<_, QuantityError>(quantity.to_string())
    });
}

#[test]
fn money() {
    replay("money", |case| {
        let money: Money = serde_json::from_str(text(case))?;
        assert_eq!(money.to_string(), field(case, "shown"));
        Ok::<_, serde_json::Error>(money.to_string())
    });
}

#[test]
fn timestamps() {
    replay("timestamp", |case| {
        let at = Timestamp::parse(text(case))?;
        assert_eq!(Value::from(at.as_ms()), case["ms"]);
        assert_eq!(at.to_string(), text(case));
        Ok::<_, TimestampError>(at.to_string())
    });
}

#[test]
fn operations() {
    replay("operation", |case| Operation::parse(text(case)).map(|(_, canonical)| canonical));
    for case in load("operation").refused {
        assert_eq!(Operation::parse(text(&case)).unwrap_err().code.as_str(), field(&case, "code"), "{}", case["name"]);
    }
}

#[test]
fn uploads() {
    replay("upload", |case| match field(case, "kind") {
        "upload" => serde_json::from_str::<Upload>(text(case)).map(|u| serde_json::to_string(&u).unwrap()).map_err(|e| e.to_string()),
        _ => reread::<UploadAnswer>(text(case)),
    });
}

#[test]
fn enrolments() {
    replay("enrolment", |case| match field(case, "kind") {
        "request" => serde_json::from_str::<EnrolRequest>(text(case)).map(|r| format!("{r:?}")).map_err(|e| e.to_string()),
        "enrolment" => reread::<Enrolment>(text(case)),
        _ => reread::<Rotation>(text(case)),
    });
}

#[test]
fn reports() {
    replay("report", |case| reread::<DeviceReport>(text(case)));
}

#[test]
fn backends() {
    replay("backend_verdict", |case| reread::<BackendVerdict>(text(case)));
    replay("delivery", |case| {
        let delivery: Delivery = serde_json::from_str(text(case)).map_err(|error| error.to_string())?;
        let (operation, _) = Operation::parse(delivery.operation.get()).map_err(|error| error.detail)?;
        let written = serde_json::to_string(&delivery).unwrap();
        assert_eq!((written.as_str(), operation.id.to_string().as_str()), (text(case), field(case, "idempotency_key")));
        Ok::<_, String>(written)
    });
}

#[test]
fn dead_letters() {
    replay("dead_letter", |case| reread::<DeadLetterReport>(text(case)));
    replay("dead_letter_answer", |case| reread::<DeadLetterAnswer>(text(case)));
}

#[test]
fn journals() {
    replay("journal", |case| {
        let file: JournalFile = serde_json::from_str(text(case)).map_err(|error| error.to_string())?;
        let written = serde_json::to_string(&file).unwrap();
        let again: JournalFile = serde_json::from_str(&written).unwrap();
        assert_eq!((again.operations.len(), again.exported_at), (file.operations.len(), file.exported_at));
        Ok::<_, String>(written)
    });
}

#[test]
fn events() {
    replay("event", |case| match field(case, "kind") {
        "request" => reread::<EventRequest>(text(case)),
        _ => reread::<EventVerdict>(text(case)),
    });
}

#[test]
fn problems() {
    replay("problem", |case| reread::<Problem>(text(case)));
    for code in Code::ALL {
        let problem = Problem::new(*code, "why");
        assert_eq!((problem.status, problem.retryable), (code.http_status(), code.is_retryable()));
    }
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let golden = load("enrolment");
    let request: EnrolRequest = serde_json::from_str(text(&golden.accepted[0])).unwrap();
    let answer: Enrolment = serde_json::from_str(text(&golden.accepted[1])).unwrap();
    let shown = format!("{request:?} {answer:?}");
    assert!(!shown.contains("7K3M") && !shown.contains("AAAA"), "{shown}");
}
