//! Values of foreign columns as values of rows: exact, or a reason why not.

use std::fmt::Write as _;

use mstore_protocol::{
    Currency, Quantity, Timestamp,
    limits::{INTEGER_MAX, QUANTITY_MILLI_MAX},
};

use super::decimal::{Decimal, Misfit};

/// How a column's text becomes a value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Convert {
    Text,
    Integer,
    Boolean { not: bool },
    Money { currency: CurrencyOf, minor: bool, round: bool },
    Quantity { round: bool },
    Decimal,
    Time,
    Date,
    Json,
}

/// Where the currency of an amount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CurrencyOf {
    Fixed(Currency),
    /// A further column of the query, by its place among the values.
    Value(usize),
}

impl Convert {
    /// Writes the value as JSON; the error is a reason for people.
    pub(super) fn write(&self, out: &mut String, text: Option<&str>, values: &[Option<&str>]) -> Result<(), String> {
        let Some(text) = text else {
            out.push_str("null");
            return Ok(());
        };
        match self {
            Self::Text => out.push_str(&string(text)),
            Self::Integer => write(out, integer(text)?),
            Self::Boolean { not } => write(out, boolean(text)? != *not),
            Self::Money { currency, minor, round } => {
                let currency = match currency {
                    CurrencyOf::Fixed(currency) => *currency,
                    CurrencyOf::Value(at) => currency_of(values.get(*at).copied().flatten())?,
                };
                let amount = amount(text, if *minor { 0 } else { currency.exponent() }, *round)?;
                write!(out, "{{\"amount\":{amount},\"currency\":\"{currency}\"}}").expect("writing to a string does not fail");
            }
            Self::Quantity { round } => out.push_str(&string(&quantity(text, *round)?.to_string())),
            Self::Decimal => out.push_str(&string(&number(text)?.plain())),
            Self::Time => out.push_str(&string(&time(text)?)),
            Self::Date => out.push_str(&string(date(text)?)),
            Self::Json => out.push_str(text),
        }
        Ok(())
    }
}

fn write(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("writing to a string does not fail");
}

fn string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

fn number(text: &str) -> Result<Decimal, String> {
    Decimal::parse(text).ok_or_else(|| format!("{} is not a number that a device could use", short(text)))
}

fn integer(text: &str) -> Result<i64, String> {
    match number(text)?.scaled(0, false) {
        Ok(value) if (-INTEGER_MAX..=INTEGER_MAX).contains(&value) => Ok(value),
        Ok(_) | Err(Misfit::Range) => Err(format!("{} is beyond ±(2^53−1); send it as = \"text\"", short(text))),
        Err(Misfit::Inexact) => Err(format!("{} is not whole; send it as = \"decimal\"", short(text))),
    }
}

/// Booleans, and the integers that stand for them.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "t" | "1" | "Y" | "y" => Ok(true),
        "false" | "f" | "0" | "N" | "n" => Ok(false),
        _other => Err(format!("{} is neither true nor false", short(text))),
    }
}

fn currency_of(text: Option<&str>) -> Result<Currency, String> {
    let text = text.ok_or("its currency is NULL")?;
    Currency::parse(text.trim()).map_err(|error| error.to_string())
}

fn amount(text: &str, exponent: u32, round: bool) -> Result<i64, String> {
    match number(text)?.scaled(exponent, round) {
        Ok(amount) if (-INTEGER_MAX..=INTEGER_MAX).contains(&amount) => Ok(amount),
        Ok(_) | Err(Misfit::Range) => Err(format!("{} is beyond ±(2^53−1) minor units", short(text))),
        Err(Misfit::Inexact) => Err(format!("{} is not exact at {exponent} decimals; correct it, or set round = true", short(text))),
    }
}

fn quantity(text: &str, round: bool) -> Result<Quantity, String> {
    match number(text)?.scaled(3, round) {
        Ok(milli) if milli.unsigned_abs() <= QUANTITY_MILLI_MAX.unsigned_abs() => Ok(Quantity::from_milli(milli)),
        Ok(_) | Err(Misfit::Range) => Err(format!("{} is beyond ±1000000000", short(text))),
        Err(Misfit::Inexact) => Err(format!("{} is not exact at 3 decimals; correct it, or set round = true", short(text))),
    }
}

/// What `to_json` writes for a time in UTC, cut to milliseconds.
fn time(text: &str) -> Result<String, String> {
    let refuse = || format!("{} is not a time of the years 0 to 9999; as = \"text\" sends it", short(text));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let cut: String = fraction.chars().chain("000".chars()).take(3).collect();
    Timestamp::parse(&format!("{seconds}.{cut}Z")).map(|time| time.to_string()).map_err(|_| refuse())
}

fn date(text: &str) -> Result<&str, String> {
    let is_date = Timestamp::parse(&format!("{text}T00:00:00.000Z")).is_ok();
    if is_date { Ok(text) } else { Err(format!("{} is not a date of the years 0 to 9999; as = \"text\" sends it", short(text))) }
}

/// A value to be quoted in a reason.
fn short(text: &str) -> String {
    string(&text.chars().take(60).collect::<String>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(convert: &Convert, text: &str, expect: Result<&str, &str>) {
        let mut out = String::new();
        let got = convert.write(&mut out, Some(text), &[]).map(|()| out.as_str());
        match (got, expect) {
            (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{text}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
            (got, expect) => panic!("{text}: {got:?}, not {expect:?}"),
        }
    }

    fn money(code: &str, round: bool) -> Convert {
        Convert::Money { currency: CurrencyOf::Fixed(Currency::parse(code).unwrap()), minor: false, round }
    }

    #[test]
    fn prices_become_minor_units_exactly() {
        check(&money("USD", false), "9.65", Ok(r#"{"amount":965,"currency":"USD"}"#));
        check(&money("IDR", false), "12500", Ok(r#"{"amount":1250000,"currency":"IDR"}"#));
        check(&money("JPY", false), "1e+03", Ok(r#"{"amount":1000,"currency":"JPY"}"#));
        check(&money("USD", false), "9.6543", Err("not exact at 2 decimals"));
        check(&money("USD", true), "9.6543", Ok(r#"{"amount":965,"currency":"USD"}"#));
        check(&money("USD", false), "NaN", Err("not a number"));
        check(&money("USD", false), "1e+20", Err("2^53"));
    }

    #[test]
    fn numbers_keep_their_value_or_say_why_not() {
        check(&Convert::Integer, "9007199254740992", Err("2^53"));
        check(&Convert::Integer, "-5", Ok("-5"));
        check(&Convert::Quantity { round: false }, "1.250", Ok(r#""1.25""#));
        check(&Convert::Quantity { round: false }, "0.0001", Err("3 decimals"));
        check(&Convert::Quantity { round: false }, "10000000000", Err("1000000000"));
        check(&Convert::Decimal, "1.5e-05", Ok(r#""0.000015""#));
        check(&Convert::Boolean { not: true }, "1", Ok("false"));
    }

    #[test]
    fn times_are_utc_with_three_digits() {
        check(&Convert::Time, "2026-11-22T06:41:00.123456", Ok(r#""2026-11-22T06:41:00.123Z""#));
        check(&Convert::Time, "2026-11-22T06:41:00", Ok(r#""2026-11-22T06:41:00.000Z""#));
        check(&Convert::Time, "infinity", Err("years"));
        check(&Convert::Time, "0044-03-15T12:00:00 BC", Err("years"));
        check(&Convert::Date, "1996-07-04", Ok(r#""1996-07-04""#));
        check(&Convert::Date, "10000-01-01", Err("years"));
    }
}
