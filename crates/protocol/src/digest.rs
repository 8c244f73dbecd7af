//! Digests of collections: a sum of row hashes that any order of changes arrives at (§4.4 of the contract).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

use crate::scope::Collection;

/// How many sub-digests a collection has: one per first byte of SHA-256(id).
pub const SUB_DIGESTS: usize = 256;

/// The first 16 bytes of SHA-256 over `collection 0x00 id 0x00 canonical(row)`, read as a little-endian number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowHash(u128);

impl RowHash {
    /// Hashes a row given its canonical text.
    pub fn of(collection: &Collection, id: &str, canonical: &str) -> Self {
        let mut sha = Sha256::new();
        sha.update(collection.as_str());
        sha.update([0]);
        sha.update(id);
        sha.update([0]);
        sha.update(canonical);
        let out = sha.finalize();
        let mut first = [0u8; 16];
        first.copy_from_slice(&out[..16]);
        Self(u128::from_le_bytes(first))
    }

    /// As stored: 16 bytes, little-endian.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// From storage.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

impl fmt::Debug for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowHash({:032x})", self.0)
    }
}

/// The range of a row id: the first byte of SHA-256(id).
pub fn bucket_of(id: &str) -> u8 {
    Sha256::digest(id)[0]
}

/// The sum of a collection's row hashes mod 2^128; 32 hex digits on the wire, most significant first.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u128);

/// A digest is 32 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 32 lower-case hex digits")]
pub struct DigestError;

impl Digest {
    /// The digest of no rows: 32 zeros.
    pub const EMPTY: Self = Self(0);

    /// With one more row.
    #[must_use]
    pub fn with(self, row: RowHash) -> Self {
        Self(self.0.wrapping_add(row.0))
    }

    /// Without a row that was in it.
    #[must_use]
    pub fn without(self, row: RowHash) -> Self {
        Self(self.0.wrapping_sub(row.0))
    }

    /// With `old` taken out and `new` put in, where there are such.
    #[must_use]
    pub fn replacing(self, old: Option<RowHash>, new: Option<RowHash>) -> Self {
        let less = old.map_or(self, |old| self.without(old));
        new.map_or(less, |new| less.with(new))
    }

    /// Parses 32 lower-case hex digits.
    pub fn parse(raw: &str) -> Result<Self, DigestError> {
        let fits = raw.len() == 32 && raw.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !fits {
            return Err(DigestError);
        }
        u128::from_str_radix(raw, 16).map(Self).map_err(|_| DigestError)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).map_err(D::Error::custom)
    }
}

crate::scope::string_schema!(Digest);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_order_gives_the_same_sum_and_removal_undoes() {
        let product = Collection::product();
        let (a, b) = (RowHash::of(&product, "a", r#"{"id":"a"}"#), RowHash::of(&product, "b", r#"{"id":"b"}"#));
        assert_eq!(Digest::EMPTY.with(a).with(b), Digest::EMPTY.with(b).with(a));
        assert_eq!(Digest::EMPTY.with(a).with(b).without(a), Digest::EMPTY.with(b));
        assert_eq!(Digest::EMPTY.with(a).replacing(Some(a), Some(b)), Digest::EMPTY.with(b));
        assert_eq!(Digest::EMPTY.to_string(), "0".repeat(32));
    }

    #[test]
    fn the_collection_and_the_id_are_part_of_the_hash() {
        let row = r#"{"id":"a"}"#;
        assert_ne!(RowHash::of(&Collection::product(), "a", row), RowHash::of(&Collection::inventory(), "a", row));
    }
}
