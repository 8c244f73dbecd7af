//! Messages in JSON: what is read, written and read again is the same, and what is refused is refused with a stable code.

use std::fmt::Debug;

use mstore_protocol::{
    CanonicalError, Change, ChangeOp, ChangesEnd, ChangesFirst, Code, DeviceReport, EnrolRequest, Enrolment, EventRequest, EventVerdict,
    Frame, FrameError, Head, Operation, Problem, Rotation, Row, RowError, Upload, UploadAnswer, canonicalise,
    limits::{DETAIL_BYTES_MAX, FRAME_BYTES_MAX, ROW_BYTES_MAX},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Reads, writes, reads, writes.
fn stable<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(first) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_string(&first).expect("what was read can be written");
    let second: T = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{written} was written and is refused: {error}"));
    assert_eq!(first, second, "writing and reading changed it");
    assert_eq!(serde_json::to_string(&second).expect("as before"), written);
}

/// A row, and the canonical form of any JSON.
pub fn row(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let known = serde_json::from_str::<Value>(text);
    match canonicalise(text) {
        Ok(canonical) => {
            let value = known.expect("what has a canonical form is JSON");
            assert!(canonical.len() <= text.len(), "the canonical form is the shortest");
            assert_eq!(canonicalise(&canonical).as_deref(), Ok(&*canonical), "a canonical form is its own");
            assert_eq!(serde_json::from_str::<Value>(&canonical).expect("it is JSON"), value, "it means the same");
            let spaced = serde_json::to_string_pretty(&value).expect("a value is always JSON");
            if spaced.len() <= ROW_BYTES_MAX {
                assert_eq!(canonicalise(&spaced).as_deref(), Ok(&*canonical), "another spelling has the same canonical form");
            }
        }
        Err(CanonicalError::Syntax { at }) => {
            assert!(known.is_err(), "JSON was refused as no JSON at byte {at}");
            assert!(at <= text.len());
        }
        Err(CanonicalError::TooLarge { bytes }) => assert!(bytes > ROW_BYTES_MAX),
        Err(
            CanonicalError::Float { .. }
            | CanonicalError::IntegerRange { .. }
            | CanonicalError::DuplicateKey { .. }
            | CanonicalError::TooDeep,
        ) => {}
    }
    if let Ok(row) = Row::parse(text) {
        assert!(Row::check_id(row.id()).is_ok());
        assert_eq!(Row::parse(row.as_str()).as_ref(), Ok(&row));
        assert_eq!(row.patched(&row.to_map()).as_ref(), Ok(&row), "patching a row with itself changes nothing");
        assert_eq!(row.patch_to(&row).as_deref(), Some("{}"));
    }
}

/// A frame as an MQTT payload.
pub fn frame(bytes: &[u8]) {
    let frame = match Frame::parse(bytes) {
        Ok(frame) => frame,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = frame.to_json();
    assert!(written.len() <= FRAME_BYTES_MAX, "{} bytes", written.len());
    let again = Frame::parse(written.as_bytes()).unwrap_or_else(|error| panic!("{written} was written and is refused: {error}"));
    assert_eq!(again, frame);
    assert_eq!(again.to_json(), written);
    frame.changes.iter().for_each(applies);
}

/// Whatever a parsed frame holds can be shown, or is refused for a reason that is not the frame's.
fn applies(change: &Change) {
    match change.op {
        ChangeOp::Put => assert_eq!(change.row().expect("it was checked").id(), change.id),
        ChangeOp::Patch => {
            let id = serde_json::to_string(&change.id).expect("a string is always JSON");
            let base = Row::parse(&format!(r#"{{"id":{id},"stock":"1"}}"#)).expect("the id was checked");
            let patch = change.patch().expect("it was checked");
            match (change.patched(base.as_str()), base.patched(&patch)) {
                (Ok(fast), Ok(slow)) => assert_eq!((fast.id(), &fast), (&*change.id, &slow), "merging the texts is merging the rows"),
                (Err(_), Err(RowError::IdChanged | RowError::Canonical(CanonicalError::TooLarge { .. } | CanonicalError::TooDeep))) => {}
                (fast, slow) => panic!("merged as texts: {fast:?}; as rows: {slow:?}"),
            }
        }
        ChangeOp::Delete => assert!(matches!(change.row(), Err(FrameError::RowMissing))),
    }
}

/// A head as an MQTT payload or HTTP body.
pub fn head(bytes: &[u8]) {
    let Ok(head) = Head::parse(bytes) else { return };
    let written = head.to_json();
    assert_eq!(Head::parse(written.as_bytes()).expect("it was just written"), head);
    let cursor = head.cursor();
    assert_eq!(mstore_protocol::Cursor::parse(&cursor.to_string()), Ok(cursor), "what a head says can be asked for");
}

/// One operation of an upload.
pub fn operation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    judge(text);
}

fn judge(text: &str) {
    match Operation::parse(text) {
        Ok((operation, canonical)) => {
            assert_eq!(canonicalise(&canonical).as_deref(), Ok(&*canonical));
            assert_eq!(Operation::parse(&canonical), Ok((operation.clone(), canonical)), "resending is the same operation");
            let written = serde_json::to_string(&operation).expect("an operation is always JSON");
            assert_eq!(
                Operation::parse(&written).map(|(again, _)| again),
                Ok(operation),
                "the client's own spelling is the same operation"
            );
        }
        Err(error) => {
            assert!(Code::ALL.contains(&error.code) && error.code.http_status() == 422, "{}", error.code);
            assert!(!error.detail.is_empty() && error.detail.len() <= DETAIL_BYTES_MAX, "a detail of {} bytes", error.detail.len());
            assert_eq!(Operation::parse(text), Err(error), "the same operation gets the same refusal");
        }
    }
}

/// The body of an upload, and the answer to it.
pub fn upload(bytes: &[u8]) {
    stable::<UploadAnswer>(bytes);
    let Ok(upload) = serde_json::from_slice::<Upload>(bytes) else { return };
    let written = serde_json::to_string(&upload).expect("an upload is always JSON");
    let again: Upload = serde_json::from_str(&written).expect("it was just written");
    assert_eq!((&again.journal_id, again.clock_offset_ms), (&upload.journal_id, upload.clock_offset_ms));
    assert_eq!(again.operations.len(), upload.operations.len());
    for (sent, kept) in upload.operations.iter().zip(&again.operations) {
        assert_eq!(sent.get(), kept.get(), "an operation is kept as it was sent");
        judge(sent.get());
    }
}

/// An event of a backend, and the answer to it.
pub fn event(bytes: &[u8]) {
    stable::<EventRequest>(bytes);
    stable::<EventVerdict>(bytes);
}

/// The bodies of enrolment and rotation: nothing secret shows when they are printed for a log.
pub fn enrolment(bytes: &[u8]) {
    stable::<Enrolment>(bytes);
    stable::<Rotation>(bytes);
    if let Ok(request) = serde_json::from_slice::<EnrolRequest>(bytes) {
        assert_eq!(format!("{request:?}"), "EnrolRequest(…)");
        let written = serde_json::to_string(&request).expect("a request is always JSON");
        let again: EnrolRequest = serde_json::from_str(&written).expect("it was just written");
        assert_eq!((again.code, again.nonce), (request.code, request.nonce));
    }
    if let Ok(enrolment) = serde_json::from_slice::<Enrolment>(bytes) {
        let Enrolment { device_id, env, merchant, branch, .. } = &enrolment;
        assert_eq!(format!("{enrolment:?}"), format!("Enrolment({device_id} in {env}/{merchant}/{branch}, token …)"));
    }
}

/// A device's report about itself.
pub fn report(bytes: &[u8]) {
    stable::<DeviceReport>(bytes);
}

/// An error answer, and the lines of `/changes` that are read whole.
pub fn problem(bytes: &[u8]) {
    stable::<Problem>(bytes);
    stable::<ChangesFirst>(bytes);
    stable::<ChangesEnd>(bytes);
}
