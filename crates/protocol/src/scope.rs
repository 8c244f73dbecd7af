//! The scope of all data: env, merchant, branch, and the names that share its alphabet (device, collection).
//!
//! Every one is a *segment*: it can stand in a topic, a path and a log line without quoting.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::limits::SEGMENT_BYTES_MAX;

/// Why a string is not a segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Nothing there.
    #[error("{what} is empty; it takes 1 to 64 of A-Z a-z 0-9 _ -")]
    Empty {
        /// Which name it was to be.
        what: &'static str,
    },
    /// Over [`SEGMENT_BYTES_MAX`].
    #[error("{what} has {bytes} bytes; at most 64 are allowed")]
    TooLong {
        /// Which name it was to be.
        what: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// A character outside the alphabet.
    #[error("{what} contains {found:?}; only A-Z a-z 0-9 _ - are allowed")]
    Character {
        /// Which name it was to be.
        what: &'static str,
        /// The first offending character.
        found: char,
    },
    /// A word that the HTTP paths or topics use themselves.
    #[error("{what} may not be {word:?}, which is reserved")]
    Reserved {
        /// Which name it was to be.
        what: &'static str,
        /// The reserved word.
        word: String,
    },
}

fn check(what: &'static str, raw: &str, reserved: &[&str]) -> Result<(), SegmentError> {
    if raw.is_empty() {
        return Err(SegmentError::Empty { what });
    }
    if raw.len() > SEGMENT_BYTES_MAX {
        return Err(SegmentError::TooLong { what, bytes: raw.len() });
    }
    if let Some(found) = raw.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '_' || *c == '-')) {
        return Err(SegmentError::Character { what, found });
    }
    if reserved.contains(&raw) {
        return Err(SegmentError::Reserved { what, word: raw.to_owned() });
    }
    Ok(())
}

macro_rules! segment {
    ($(#[$doc:meta])* $name:ident, $what:literal, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `raw` against the segment alphabet, the length and the reserved words.
            pub fn parse(raw: &str) -> Result<Self, SegmentError> {
                check($what, raw, $reserved)?;
                Ok(Self(raw.into()))
            }

            /// The name as it is written on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = SegmentError;

            fn from_str(raw: &str) -> Result<Self, SegmentError> {
                Self::parse(raw)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
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

/// Declares a type as a plain string in the OpenAPI document.
macro_rules! string_schema {
    ($name:ident) => {
        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::schema::Type::String).into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    };
}
pub(crate) use string_schema;

const RESERVED: &[&str] = &["admin", "devices"];

segment!(
    /// A deployment: `dev`, `staging`, `prod`.
    Env, "env", RESERVED
);
segment!(
    /// A business with one catalogue and any number of branches.
    MerchantId, "merchant", RESERVED
);
segment!(
    /// A shop of a merchant; numbering, stock and devices belong to it.
    BranchId, "branch", RESERVED
);
segment!(
    /// A till; also its MQTT client id and user name.
    DeviceId, "device", &[]
);
segment!(
    /// A kind of row: `product`, `inventory`, `transaction`, or one that an operator attaches.
    Collection, "collection", &["sync"]
);

impl Collection {
    /// `product`.
    pub fn product() -> Self {
        Self("product".into())
    }

    /// `inventory`.
    pub fn inventory() -> Self {
        Self("inventory".into())
    }

    /// `transaction`.
    pub fn transaction() -> Self {
        Self("transaction".into())
    }

    /// The three collections that every branch has, in the order of their names.
    pub fn built_in() -> [Self; 3] {
        [Self::inventory(), Self::product(), Self::transaction()]
    }
}

/// A branch within one env: what most of the server works with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BranchKey {
    /// The merchant it belongs to.
    pub merchant: MerchantId,
    /// Its own name, unique within the merchant.
    pub branch: BranchId,
}

impl BranchKey {
    /// Parses both parts.
    pub fn parse(merchant: &str, branch: &str) -> Result<Self, SegmentError> {
        Ok(Self { merchant: MerchantId::parse(merchant)?, branch: BranchId::parse(branch)? })
    }
}

impl fmt::Display for BranchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.merchant, self.branch)
    }
}

/// The full scope of a row: env, merchant and branch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Scope {
    /// The deployment.
    pub env: Env,
    /// The merchant.
    pub merchant: MerchantId,
    /// The branch.
    pub branch: BranchId,
}

impl Scope {
    /// Puts a branch into its env.
    pub fn new(env: Env, key: BranchKey) -> Self {
        Self { env, merchant: key.merchant, branch: key.branch }
    }

    /// The branch without its env.
    pub fn key(&self) -> BranchKey {
        BranchKey { merchant: self.merchant.clone(), branch: self.branch.clone() }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.env, self.merchant, self.branch)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn accepts_the_alphabet_and_nothing_else() {
        for good in ["a", "m1", "A-b_9", &"x".repeat(64)] {
            assert_eq!(BranchId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "a b", "+", "#", "ä", "a.b", "a\0", &"x".repeat(65), "$SYS"] {
            assert!(BranchId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reserved_words_are_refused_where_paths_use_them() {
        assert!(matches!(MerchantId::parse("admin"), Err(SegmentError::Reserved { .. })));
        assert!(matches!(MerchantId::parse("devices"), Err(SegmentError::Reserved { .. })));
        assert!(Collection::parse("sync").is_err());
        assert!(DeviceId::parse("admin").is_ok(), "a device id never stands where a path segment is matched");
    }
}
