//! Decimal numbers as PostgreSQL writes them, exactly: no float on the way.

/// `digits × 10^-scale`, with a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// Without leading zeros; empty is zero.
    digits: String,
    scale: i64,
}

/// Why a number cannot be had at a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It has more decimals.
    Inexact,
    /// It is too large.
    Range,
}

/// A number of more digits than this before or after the point is no price, stock or measure.
const PLACES_MAX: i64 = 400;

impl Decimal {
    /// Parses `-12.50`, `1e+20`, `1.5e-07`; not `NaN` and not `Infinity`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (number, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i64>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, places) = number.split_once('.').unwrap_or((number, ""));
        let all = format!("{whole}{places}");
        if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let scale = i64::try_from(places.len()).ok()?.checked_sub(exponent)?;
        let digits = all.trim_start_matches('0').to_owned();
        (scale.abs() <= PLACES_MAX).then_some(Self { negative: negative && !digits.is_empty(), digits, scale })
    }

    /// The number times 10^`scale`.
    pub(super) fn scaled(&self, scale: u32, round: bool) -> Result<i64, Misfit> {
        let shift = i64::from(scale) - self.scale;
        let units = if shift >= 0 {
            let zeros = usize::try_from(shift).map_err(|_| Misfit::Range)?;
            if self.digits.is_empty() { 0 } else { parse(&format!("{}{}", self.digits, "0".repeat(zeros)))? }
        } else {
            self.cut(usize::try_from(-shift).map_err(|_| Misfit::Range)?, round)?
        };
        Ok(if self.negative { -units } else { units })
    }

    /// Drops the last digits: only zeros, or rounded half to even.
    fn cut(&self, places: usize, round: bool) -> Result<i64, Misfit> {
        let padded = format!("{:0>width$}", self.digits, width = places + 1);
        let (kept, dropped) = padded.split_at(padded.len() - places);
        let units = parse(kept)?;
        if dropped.bytes().all(|b| b == b'0') {
            return Ok(units);
        }
        if !round {
            return Err(Misfit::Inexact);
        }
        let half = format!("5{}", "0".repeat(places - 1));
        let up = match dropped.cmp(half.as_str()) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => units % 2 == 1,
            std::cmp::Ordering::Greater => true,
        };
        Ok(units + i64::from(up))
    }

    /// Without exponent, with the decimals that it came with.
    pub(super) fn plain(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let places = usize::try_from(self.scale.max(0)).unwrap_or(0);
        let zeros = usize::try_from((-self.scale).max(0)).unwrap_or(0);
        let digits = if self.digits.is_empty() { String::new() } else { format!("{}{}", self.digits, "0".repeat(zeros)) };
        let padded = format!("{digits:0>width$}", width = places + 1);
        let (whole, fraction) = padded.split_at(padded.len() - places);
        if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
    }
}

fn parse(digits: &str) -> Result<i64, Misfit> {
    digits.parse().map_err(|_| Misfit::Range)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_are_scaled_exactly_or_not_at_all() {
        let scaled = |text: &str, scale| Decimal::parse(text).unwrap().scaled(scale, false);
        for (text, scale, is) in [
            ("9.65", 2, 965),
            ("-0.05", 2, -5),
            ("18", 2, 1800),
            ("1.0000", 2, 100),
            ("1e+02", 0, 100),
            ("1.5e-01", 2, 15),
            ("0", 2, 0),
            ("-0.000", 2, 0),
        ] {
            assert_eq!(scaled(text, scale), Ok(is), "{text}");
        }
        assert_eq!(scaled("9.654", 2), Err(Misfit::Inexact));
        assert_eq!(scaled("0.001", 2), Err(Misfit::Inexact));
        assert_eq!(scaled("1e+30", 2), Err(Misfit::Range));
        for bad in ["NaN", "Infinity", "-Infinity", "", "-", ".", "1e999999999", "1,5"] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn rounding_is_half_to_even() {
        for (text, is) in [("0.125", 12), ("0.135", 14), ("0.1251", 13), ("-0.135", -14), ("0.0049", 0), ("0.999", 100)] {
            assert_eq!(Decimal::parse(text).unwrap().scaled(2, true), Ok(is), "{text}");
        }
    }

    #[test]
    fn a_plain_number_has_no_exponent() {
        for (text, is) in
            [("1e+20", "100000000000000000000"), ("1.5e-07", "0.00000015"), ("-12.50", "-12.50"), ("0", "0"), ("0e+5", "0"), ("-0", "0")]
        {
            assert_eq!(Decimal::parse(text).unwrap().plain(), is, "{text}");
        }
    }
}
