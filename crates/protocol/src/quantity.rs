//! Quantities: decimal strings with up to three places outside, thousandths as an integer inside; never a float.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::limits::QUANTITY_MILLI_MAX;

/// An amount of something, in thousandths of its unit.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i64);

/// Why a string is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not the one spelling: `41`, `-3`, `1.25`.
    #[error("{raw:?} is not a quantity: a decimal string with up to 3 places, no trailing zeros, no -0")]
    Spelling {
        /// What was there, shortened.
        raw: String,
    },
    /// Beyond ±1,000,000,000.
    #[error("{raw} is beyond ±1000000000")]
    Range {
        /// What was there.
        raw: String,
    },
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From thousandths of the unit.
    pub fn from_milli(milli: i64) -> Self {
        Self(milli)
    }

    /// From whole units.
    pub fn from_units(units: i64) -> Self {
        Self(units.saturating_mul(1000))
    }

    /// Thousandths of the unit.
    pub fn as_milli(self) -> i64 {
        self.0
    }

    /// Below zero.
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Parses the one accepted spelling.
    pub fn parse(raw: &str) -> Result<Self, QuantityError> {
        let spelling = || QuantityError::Spelling { raw: raw.chars().take(40).collect() };
        let range = || QuantityError::Range { raw: raw.chars().take(40).collect() };
        let (negative, digits) = raw.strip_prefix('-').map_or((false, raw), |rest| (true, rest));
        let (whole, places) = digits.split_once('.').map_or((digits, ""), |(whole, places)| (whole, places));
        let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let whole_fits = !whole.is_empty() && all_digits(whole) && (whole == "0" || !whole.starts_with('0'));
        let places_fit = places.len() <= 3 && all_digits(places) && !places.ends_with('0');
        if !whole_fits || !places_fit || (digits.contains('.') && places.is_empty()) || (negative && digits == "0") {
            return Err(spelling());
        }
        let units: i64 = whole.parse().map_err(|_| range())?;
        let thousandths: i64 = format!("{places:0<3}").parse().map_err(|_| spelling())?;
        let milli = units.checked_mul(1000).and_then(|m| m.checked_add(thousandths)).ok_or_else(range)?;
        if milli > QUANTITY_MILLI_MAX {
            return Err(range());
        }
        Ok(Self(if negative { -milli } else { milli }))
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::ops::Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (units, places) = (self.0.unsigned_abs() / 1000, self.0.unsigned_abs() % 1000);
        if places == 0 {
            return write!(f, "{sign}{units}");
        }
        let places = format!("{places:03}");
        write!(f, "{sign}{units}.{}", places.trim_end_matches('0'))
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).map_err(D::Error::custom)
    }
}

crate::scope::string_schema!(Quantity);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn has_one_spelling_per_value() {
        for good in ["0", "41", "-3", "1.25", "0.001", "-0.5", "1000000000"] {
            assert_eq!(Quantity::parse(good).unwrap().to_string(), good);
        }
        for bad in ["", "-", "1.", ".5", "1.2500", "1.0", "-0", "-0.0", "01", "+1", "1e3", "1.2345", " 1", "1,5", "NaN", "٣"] {
            assert!(matches!(Quantity::parse(bad), Err(QuantityError::Spelling { .. })), "{bad:?}");
        }
        for far in ["1000000000.001", "99999999999999999999"] {
            assert!(matches!(Quantity::parse(far), Err(QuantityError::Range { .. })), "{far}");
        }
    }

    #[test]
    fn a_thousand_small_steps_do_not_drift() {
        let step = Quantity::parse("0.001").unwrap();
        let sum = (0..1000).fold(Quantity::ZERO, |sum, _| sum + step);
        assert_eq!(sum.to_string(), "1");
    }
}
