//! Times: RFC 3339 in UTC with exactly three fractional digits, held as milliseconds since 1970.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A point in time, milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a string is not a time of the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{raw:?} is not a time like 2026-11-22T06:41:00.123Z (UTC, three fractional digits)")]
pub struct TimestampError {
    /// What was there.
    pub raw: String,
}

impl Timestamp {
    /// From milliseconds since 1970; outside the years 0–9999 it is clamped to them.
    pub fn from_ms(ms: i64) -> Self {
        Self(ms.clamp(-62_167_219_200_000, 253_402_300_799_999))
    }

    /// Milliseconds since 1970.
    pub fn as_ms(self) -> i64 {
        self.0
    }

    /// This time moved by `ms`.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self::from_ms(self.0.saturating_add(ms))
    }

    /// The date in UTC, `YYYY-MM-DD`.
    pub fn date(self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }

    /// Parses the one accepted spelling.
    pub fn parse(raw: &str) -> Result<Self, TimestampError> {
        let error = || TimestampError { raw: raw.chars().take(40).collect() };
        let bytes = raw.as_bytes();
        let shaped = bytes.len() == 24
            && bytes.iter().enumerate().all(|(i, b)| match i {
                4 | 7 => *b == b'-',
                10 => *b == b'T',
                13 | 16 => *b == b':',
                19 => *b == b'.',
                23 => *b == b'Z',
                _ => b.is_ascii_digit(),
            });
        // A leap second is clamped by the library; refuse it so that every text has one reading.
        if !shaped || &bytes[17..19] == b"60" {
            return Err(error());
        }
        let parsed: jiff::Timestamp = raw.parse().map_err(|_| error())?;
        Ok(Self(parsed.as_millisecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = jiff::Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{at:.3}")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).map_err(D::Error::custom)
    }
}

crate::scope::string_schema!(Timestamp);

/// The day that a receipt is booked on, `YYYY-MM-DD`: the shop's own, which need not be the calendar day in UTC.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BusinessDate(Box<str>);

impl BusinessDate {
    /// Parses `YYYY-MM-DD`.
    pub fn parse(raw: &str) -> Result<Self, TimestampError> {
        let error = || TimestampError { raw: raw.chars().take(40).collect() };
        // The library reads other spellings too, such as week dates and dates with a zone.
        let shaped =
            raw.len() == 10 && raw.bytes().enumerate().all(|(i, b)| if matches!(i, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
        if !shaped {
            return Err(error());
        }
        raw.parse::<jiff::civil::Date>().map_err(|_| error())?;
        Ok(Self(raw.into()))
    }

    /// As written on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BusinessDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for BusinessDate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BusinessDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).map_err(D::Error::custom)
    }
}

crate::scope::string_schema!(BusinessDate);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn has_one_spelling() {
        let text = "2026-11-22T06:41:00.120Z";
        assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        assert_eq!(Timestamp::from_ms(0).to_string(), "1970-01-01T00:00:00.000Z");
        for bad in [
            "2026-11-22T06:41:00Z",
            "2026-11-22T06:41:00.12Z",
            "2026-11-22T06:41:00.120+00:00",
            "2026-11-22 06:41:00.120Z",
            "2026-02-30T00:00:00.000Z",
            "2026-11-22T06:41:60.000Z",
            "",
            "2026-11-22T25:41:00.120Z",
            "2026-11-22t06:41:00.120z",
        ] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
        assert!(BusinessDate::parse("2026-11-22").is_ok());
        assert!(BusinessDate::parse("2026-13-22").is_err());
        for bad in ["20261122", "20261122Z ", "20261122T1", "2026-11-2Z", "+2026-1122", "2026-W47-1"] {
            assert!(BusinessDate::parse(bad).is_err(), "{bad}");
        }
    }
}
