//! The numbering of a branch: epoch, seq, tag, and the cursor that says what a device has.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::limits::INTEGER_MAX;

/// The number of a commit in its branch: 1, 2, 3 … dense; 0 before the first.
pub type Seq = u64;

/// Parses a number of a commit as it stands in a cursor or position: digits without leading zeros, at most [`INTEGER_MAX`], which every
/// JSON reader and every database holds exactly.
pub(crate) fn parse_seq(raw: &str) -> Option<Seq> {
    let plain = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_digit()) && (raw == "0" || !raw.starts_with('0'));
    if !plain {
        return None;
    }
    raw.parse().ok().filter(|seq| *seq <= INTEGER_MAX.unsigned_abs())
}

/// Reads a number of a commit from JSON, within the same bounds.
pub(crate) fn read_seq<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Seq, D::Error> {
    let seq = Seq::deserialize(deserializer)?;
    if seq <= INTEGER_MAX.unsigned_abs() { Ok(seq) } else { Err(D::Error::custom(format!("the seq {seq} is beyond 2^53−1"))) }
}

/// Why a string is not an epoch, tag or cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not 16 lower-case hex digits.
    #[error("{what} is 16 lower-case hex digits")]
    Hex {
        /// Epoch or tag.
        what: &'static str,
    },
    /// Not `{epoch}:{seq}:{tag}`.
    #[error("a cursor is epoch:seq:tag, as the head or the last line of an answer gave it")]
    Shape,
}

macro_rules! hex16 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// From random bits, which the caller draws.
            pub fn from_bits(bits: u64) -> Self {
                Self(bits)
            }

            /// Parses 16 lower-case hex digits.
            pub fn parse(raw: &str) -> Result<Self, CursorError> {
                let fits = raw.len() == 16 && raw.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                let bits = if fits { u64::from_str_radix(raw, 16).ok() } else { None };
                bits.map(Self).ok_or(CursorError::Hex { what: $what })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&raw).map_err(D::Error::custom)
            }
        }

        crate::scope::string_schema!($name);
    };
}

hex16!(
    /// The identity of a branch's numbering; another epoch means: compare and fetch what differs.
    Epoch, "an epoch"
);
hex16!(
    /// Random mark of a commit: tells it from another commit with the same number.
    Tag, "a tag"
);

impl Tag {
    /// The tag of "no commit yet" (seq 0).
    pub const NONE: Self = Self(0);
}

/// What a device has: `{epoch}:{seq}:{tag}`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The numbering it belongs to.
    pub epoch: Epoch,
    /// The last commit shown.
    pub seq: Seq,
    /// That commit's tag.
    pub tag: Tag,
}

impl Cursor {
    /// Parses `{epoch}:{seq}:{tag}`.
    pub fn parse(raw: &str) -> Result<Self, CursorError> {
        let mut parts = raw.split(':');
        let (Some(epoch), Some(seq), Some(tag), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(CursorError::Shape);
        };
        let seq = parse_seq(seq).ok_or(CursorError::Shape)?;
        Ok(Self { epoch: Epoch::parse(epoch)?, seq, tag: Tag::parse(tag)? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch, self.seq, self.tag)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).map_err(D::Error::custom)
    }
}

crate::scope::string_schema!(Cursor);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cursor_round_trips_and_has_one_spelling() {
        let text = "b5d0c1a97e3f4a62:1042:9c41d2e07ab85f13";
        assert_eq!(Cursor::parse(text).unwrap().to_string(), text);
        for bad in [
            "",
            "b5d0c1a97e3f4a62:1042",
            "b5d0c1a97e3f4a62:01:9c41d2e07ab85f13",
            "b5d0c1a97e3f4a62:+1:9c41d2e07ab85f13",
            "B5D0C1A97E3F4A62:1:9c41d2e07ab85f13",
            "b5d0c1a97e3f4a62:1:9c41d2e07ab85f13:x",
            "b5d0c1a97e3f4a62:99999999999999999999:9c41d2e07ab85f13",
            "b5d0c1a97e3f4a62:9007199254740992:9c41d2e07ab85f13",
        ] {
            assert!(Cursor::parse(bad).is_err(), "{bad}");
        }
    }
}
