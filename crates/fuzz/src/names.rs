//! Names and values that have one spelling: what is accepted is written back as it came.

use std::fmt::Display;

use mstore_protocol::{
    BranchId, BusinessDate, Collection, Currency, Cursor, DeviceId, Digest, Env, Epoch, MerchantId, Money, OperationId, Position, Quantity,
    Tag, Timestamp, Topic, limits::DETAIL_BYTES_MAX,
};

/// Accepted: the same text again. Refused: a reason that a person can read.
pub(crate) fn one_spelling<T: Display, E: Display>(raw: &str, parse: impl Fn(&str) -> Result<T, E>) {
    match parse(raw) {
        Ok(value) => assert_eq!(value.to_string(), raw, "it was accepted in another spelling"),
        Err(error) => {
            let reason = error.to_string();
            assert!(!reason.is_empty() && reason.len() <= DETAIL_BYTES_MAX, "a reason of {} bytes", reason.len());
        }
    }
}

/// A topic.
pub fn topic(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    one_spelling(text, Topic::parse);
    if Topic::parse(text).is_ok() {
        assert!(!text.contains(['+', '#', '\0', ' ']), "a wildcard or worse is no topic");
    }
}

/// A cursor, and what it is made of; a resume position.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    one_spelling(text, Cursor::parse);
    one_spelling(text, Position::parse);
    one_spelling(text, Epoch::parse);
    one_spelling(text, Tag::parse);
    one_spelling(text, Digest::parse);
    let numbers =
        [Cursor::parse(text).ok().map(|cursor| cursor.seq), Position::parse(text).ok().map(|position| position.to.max(position.seq))];
    assert!(numbers.into_iter().flatten().all(|seq| i64::try_from(seq).is_ok()), "a number that no database holds");
}

/// Quantities, times, dates, money, ids, names.
pub fn value(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    one_spelling(text, Quantity::parse);
    one_spelling(text, Timestamp::parse);
    one_spelling(text, |raw| BusinessDate::parse(raw).map(|date| date.as_str().to_owned()));
    one_spelling(text, Currency::parse);
    one_spelling(text, |raw| OperationId::parse(raw).ok_or("not a UUIDv7"));
    one_spelling(text, Env::parse);
    one_spelling(text, MerchantId::parse);
    one_spelling(text, BranchId::parse);
    one_spelling(text, DeviceId::parse);
    one_spelling(text, Collection::parse);
    if let Ok(date) = BusinessDate::parse(text) {
        assert!(Timestamp::parse(&format!("{}T00:00:00.000Z", date.as_str())).is_ok(), "a date that is no day");
    }
    if let Ok(money) = serde_json::from_str::<Money>(text) {
        let written = serde_json::to_string(&money).expect("money is always JSON");
        assert_eq!(serde_json::from_str::<Money>(&written).expect("it was just written"), money);
        assert!(money.to_string().starts_with(money.currency.as_str()));
    }
}
