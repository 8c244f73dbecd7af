//! An operation as it came: what can be told of it even when it is refused.

use mstore_protocol::{BranchKey, Code, Operation, OperationError, OperationId, OperationKind, PersonalData, Verdict, VerdictStatus};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Longest id or type that is repeated to whoever sent it, in characters.
const SHORT_CHARS_MAX: usize = 64;

/// An operation of an upload.
pub(super) struct Received {
    pub(super) id: String,
    pub(super) device_seq: Option<u64>,
    pub(super) act: String,
    pub(super) replaces: Option<OperationId>,
    pub(super) hash: [u8; 32],
    /// What is kept of it: all of it, or all but the personal data that it is refused for.
    pub(super) body: String,
    pub(super) parsed: Result<Operation, OperationError>,
}

impl Received {
    /// Reads it; never fails, for a verdict needs an id whatever else is wrong.
    pub(super) fn read(text: &str, personal: &PersonalData) -> Self {
        let received = Self::parse(text);
        match personal.find(&received.body) {
            None => received,
            Some(found) => Self {
                body: personal.without(&received.body),
                parsed: Err(OperationError { code: Code::PersonalData, detail: found.to_string() }),
                ..received
            },
        }
    }

    fn parse(text: &str) -> Self {
        match Operation::parse(text) {
            Ok((operation, canonical)) => Self {
                id: operation.id.to_string(),
                device_seq: Some(operation.device_seq),
                act: operation.kind.as_str().into(),
                replaces: operation.replaces,
                hash: Sha256::digest(&canonical).into(),
                body: canonical,
                parsed: Ok(operation),
            },
            Err(error) => {
                let loose: Loose = serde_json::from_str(text).unwrap_or_default();
                let body = mstore_protocol::canonicalise(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned);
                Self {
                    id: loose.id,
                    device_seq: loose.device_seq.filter(|seq| *seq > 0 && i64::try_from(*seq).is_ok()),
                    act: loose.act,
                    replaces: OperationId::parse(&loose.replaces),
                    hash: Sha256::digest(&body).into(),
                    body,
                    parsed: Err(error),
                }
            }
        }
    }

    /// The other branch whose stock it moves.
    pub(super) fn destination(&self, from: &BranchKey) -> Option<BranchKey> {
        match &self.parsed.as_ref().ok()?.kind {
            OperationKind::Transfer(transfer) => Some(BranchKey { merchant: from.merchant.clone(), branch: transfer.to_branch.clone() }),
            OperationKind::Sale(_)
            | OperationKind::Return(_)
            | OperationKind::Receive(_)
            | OperationKind::Adjust(_)
            | OperationKind::Count(_) => None,
        }
    }

    /// The id as the key of exactly-once; a malformed one cannot be remembered.
    pub(super) fn key(&self) -> Option<OperationId> {
        OperationId::parse(&self.id)
    }

    /// The verdict that refuses it.
    pub(super) fn rejected(&self, code: Code, detail: impl Into<String>) -> Verdict {
        Verdict { id: self.id.clone(), status: VerdictStatus::Rejected, seq: None, code: Some(code), detail: Some(detail.into()) }
    }
}

/// The few fields that a refused operation is known by. Of a key that stands twice the first counts: standing twice may be all that is wrong.
#[derive(Default)]
struct Loose {
    id: String,
    device_seq: Option<u64>,
    act: String,
    replaces: String,
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an operation")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        let (mut id, mut device_seq, mut act, mut replaces) = (None, None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let field = match key.as_str() {
                "id" => &mut id,
                "device_seq" => &mut device_seq,
                "type" => &mut act,
                "replaces" => &mut replaces,
                _other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value: Box<RawValue> = map.next_value()?;
            field.get_or_insert(value);
        }
        let text = |value: Option<Box<RawValue>>| {
            let text: Option<String> = value.and_then(|value| serde_json::from_str(value.get()).ok());
            text.unwrap_or_default().chars().filter(|c| *c != '\0').take(SHORT_CHARS_MAX).collect()
        };
        let device_seq = device_seq.and_then(|value| serde_json::from_str(value.get()).ok());
        Ok(Loose { id: text(id), device_seq, act: text(act), replaces: text(replaces) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_personal_data_is_kept_without_it_and_known_again() {
        let text = |reason: &str| {
            format!(
                r#"{{"id":"019aab12-3456-7abc-8def-0123456789ab","device_seq":3,"type":"adjust","occurred_at":"2026-11-22T06:41:00.123Z","collection":"product","item_id":"P","quantity":"1","reason":"{reason}"}}"#
            )
        };
        let sent = text("for budi@example.com");
        let received = Received::read(&sent, &PersonalData::default());
        let error = received.parsed.as_ref().err();
        assert_eq!(error.map(|error| error.code), Some(Code::PersonalData));
        assert!(!format!("{error:?}{}", received.body).contains("budi"), "{}", received.body);
        assert_eq!(received.device_seq, Some(3));
        let whole = Received::read(&sent, &PersonalData::parse("off", "").unwrap_or_default());
        assert_eq!((whole.hash, whole.parsed.is_ok()), (received.hash, true), "the hash is of what was sent");
        assert!(Received::read(&text("damaged"), &PersonalData::default()).parsed.is_ok());
    }

    #[test]
    fn what_is_refused_keeps_its_name() {
        let id = "019aab12-3456-7abc-8def-0123456789ab";
        for text in [
            format!(r#"{{"id":"{id}","device_seq":3,"type":"sale","type":"sale"}}"#),
            format!(r#"{{"id":"{id}","id":"another","device_seq":3,"device_seq":4,"type":"sale"}}"#),
            format!(r#"{{"far":1e999,"id":"{id}","device_seq":3,"type":"sale"}}"#),
            format!(r#"{{"id":"{id}","device_seq":3,"type":"sale","lines":{{"a":1,"a":2}}}}"#),
        ] {
            let received = Received::read(&text, &PersonalData::default());
            assert_eq!((received.id.as_str(), received.device_seq, received.act.as_str()), (id, Some(3), "sale"), "{text}");
            assert!(received.parsed.is_err(), "{text}");
        }
        for text in ["7", "[]", r#"{"id":7,"device_seq":-1}"#, r#"{"device_seq":9223372036854775808}"#] {
            let received = Received::read(text, &PersonalData::default());
            assert_eq!((received.id.as_str(), received.device_seq), ("", None), "{text}");
        }
    }
}
