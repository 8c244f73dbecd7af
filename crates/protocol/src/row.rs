//! A row: one JSON object with an `id`, kept verbatim in canonical form so that clients of any age compute the same digest.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    Code,
    canonical::{CanonicalError, Merged, canonicalise, key_order, write_string},
    digest::RowHash,
    limits::{ROW_BYTES_MAX, ROW_ID_BYTES_MAX},
    scope::Collection,
};

/// Why a JSON text is not a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// It has no canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// Not a JSON object.
    #[error("a row is a JSON object")]
    NotAnObject,
    /// No `id`, or one that is not a string of 1–128 bytes without U+0000.
    #[error("a row needs an `id`: a string of 1 to 128 bytes without U+0000")]
    Id,
    /// A patch would change the row's `id`.
    #[error("a patch may not change `id`")]
    IdChanged,
}

impl RowError {
    /// Its stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Canonical(CanonicalError::Float { .. }) => Code::FloatRefused,
            Self::Canonical(CanonicalError::IntegerRange { .. }) => Code::IntegerOutOfRange,
            Self::Canonical(CanonicalError::TooLarge { .. }) => Code::RowTooLarge,
            Self::Canonical(CanonicalError::Syntax { .. } | CanonicalError::DuplicateKey { .. } | CanonicalError::TooDeep)
            | Self::NotAnObject
            | Self::Id
            | Self::IdChanged => Code::MalformedRow,
        }
    }
}

/// A valid row: canonical JSON text and its id.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    id: Box<str>,
    text: Box<str>,
}

#[derive(Deserialize)]
struct IdOnly<'a> {
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
}

impl Row {
    /// Parses any JSON text of the subset; what is canonical already is not written again.
    pub fn parse(text: &str) -> Result<Self, RowError> {
        let canonical = canonicalise(text)?;
        if !canonical.starts_with('{') {
            return Err(RowError::NotAnObject);
        }
        let id = serde_json::from_str::<IdOnly<'_>>(&canonical).map_err(|_| RowError::Id)?.id;
        Self::check_id(&id)?;
        Ok(Self { id: id.into(), text: canonical.into() })
    }

    /// The row `id` of a merged text, without a second look at all of it: canonical parts make a canonical whole. Gives the text back when
    /// it is too long or its `id` is not plainly this one; then somebody has to parse it.
    pub(crate) fn merged<'a>(id: &str, merged: Merged<'a>) -> Result<Self, Merged<'a>> {
        let inner = merged.id.and_then(|quoted| quoted.strip_prefix('"')?.strip_suffix('"'));
        let is_plain = !id.contains('\\') && Self::check_id(id).is_ok();
        if is_plain && inner == Some(id) && merged.text.len() <= ROW_BYTES_MAX {
            Ok(Self { id: id.into(), text: merged.text.into() })
        } else {
            Err(merged)
        }
    }

    /// Builds a row from a JSON object.
    pub fn from_map(map: &Map<String, Value>) -> Result<Self, RowError> {
        let text = serde_json::to_string(map).map_err(|_| RowError::NotAnObject)?;
        Self::parse(&text)
    }

    /// Checks a row id.
    pub fn check_id(id: &str) -> Result<(), RowError> {
        let fits = (1..=ROW_ID_BYTES_MAX).contains(&id.len()) && !id.contains('\0');
        if fits { Ok(()) } else { Err(RowError::Id) }
    }

    /// The row's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The canonical JSON text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The row as a JSON object.
    pub fn to_map(&self) -> Map<String, Value> {
        serde_json::from_str(&self.text).expect("a row's text is a JSON object")
    }

    /// The text as raw JSON, for embedding without parsing.
    pub fn to_raw(&self) -> Box<RawValue> {
        RawValue::from_string(self.text.to_string()).expect("a row's text is JSON")
    }

    /// The row's hash within its collection (§4.4 of the contract).
    pub fn hash(&self, collection: &Collection) -> RowHash {
        RowHash::of(collection, &self.id, &self.text)
    }

    /// Replaces top-level fields; `null` is a value, and a patch cannot remove a field nor change `id`.
    pub fn patched(&self, patch: &Map<String, Value>) -> Result<Self, RowError> {
        if patch.get("id").is_some_and(|id| id.as_str() != Some(&*self.id)) {
            return Err(RowError::IdChanged);
        }
        let mut map = self.to_map();
        for (key, value) in patch {
            map.insert(key.clone(), value.clone());
        }
        Self::from_map(&map)
    }

    /// The patch that turns `self` into `newer`, or `None` when only a whole row can (a field went away).
    pub fn patch_to(&self, newer: &Self) -> Option<String> {
        let (old, new) = (self.raw_fields(), newer.raw_fields());
        if old.keys().any(|key| !new.contains_key(key)) {
            return None;
        }
        let mut changed: Vec<_> = new.iter().filter(|(key, value)| old.get(*key).is_none_or(|o| o.get() != value.get())).collect();
        changed.sort_by(|a, b| key_order(a.0, b.0));
        let mut out = String::from("{");
        for (i, (key, value)) in changed.into_iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            write_string(&mut out, key);
            out.push(':');
            out.push_str(value.get());
        }
        out.push('}');
        Some(out)
    }

    fn raw_fields(&self) -> std::collections::BTreeMap<String, &RawValue> {
        serde_json::from_str(&self.text).expect("a row's text is a JSON object")
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_raw().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn needs_an_object_with_an_id() {
        assert_eq!(Row::parse(r#"{"stock":"1","id":"a"}"#).unwrap().as_str(), r#"{"id":"a","stock":"1"}"#);
        assert_eq!(Row::parse("[1]").unwrap_err(), RowError::NotAnObject);
        for bad in [r"{}", r#"{"id":1}"#, r#"{"id":""}"#, r#"{"id":"a\u0000"}"#, &format!(r#"{{"id":"{}"}}"#, "x".repeat(129))] {
            assert_eq!(Row::parse(bad).unwrap_err(), RowError::Id, "{bad}");
        }
    }

    #[test]
    fn a_patch_is_the_difference_and_applies_back() {
        let old = Row::parse(r#"{"id":"a","name":"Tea","stock":"41","note":null}"#).unwrap();
        let new = Row::parse(r#"{"id":"a","name":"Tea","stock":"40","note":null,"x":[1]}"#).unwrap();
        let patch = old.patch_to(&new).unwrap();
        assert_eq!(patch, r#"{"stock":"40","x":[1]}"#);
        assert_eq!(old.patched(&serde_json::from_str(&patch).unwrap()).unwrap(), new);
        assert!(new.patch_to(&old).is_none(), "a field went away");
    }

    #[test]
    fn a_patch_keeps_null_as_a_value_and_the_id_as_it_is() {
        let row = Row::parse(r#"{"id":"a","stock":"1"}"#).unwrap();
        let patch = |text: &str| row.patched(&serde_json::from_str(text).unwrap());
        assert_eq!(patch(r#"{"stock":null}"#).unwrap().as_str(), r#"{"id":"a","stock":null}"#);
        assert_eq!(patch(r#"{"id":"b"}"#).unwrap_err(), RowError::IdChanged);
    }
}
