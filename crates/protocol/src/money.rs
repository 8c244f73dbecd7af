//! Money: an integer of ISO 4217 minor units and the currency; the exponent comes from the standard's table, never from a guess.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::limits::INTEGER_MAX;

/// Why something is not money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not an alphabetic code of ISO 4217.
    #[error("{raw:?} is not a currency of ISO 4217")]
    Currency {
        /// What was there, shortened.
        raw: String,
    },
    /// Beyond ±(2^53−1) minor units.
    #[error("an amount of {amount} minor units is beyond ±(2^53−1)")]
    Range {
        /// What was there.
        amount: i64,
    },
}

/// Active codes of ISO 4217 (list one) by the number of decimals of their minor unit.
const EXPONENT_0: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const EXPONENT_2: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF \
    CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR \
    ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD \
    NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB \
    TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG";
const EXPONENT_3: &str = "BHD IQD JOD KWD LYD OMR TND";
const EXPONENT_4: &str = "CLF UYW";

/// An alphabetic code of ISO 4217.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Parses a code such as `IDR`; upper case only.
    pub fn parse(raw: &str) -> Result<Self, MoneyError> {
        let error = || MoneyError::Currency { raw: raw.chars().take(8).collect() };
        let bytes: [u8; 3] = raw.as_bytes().try_into().map_err(|_| error())?;
        Self::lookup(raw).map(|_| Self(bytes)).ok_or_else(error)
    }

    /// Decimals of the minor unit: 2 for IDR, although no sen circulate.
    pub fn exponent(&self) -> u32 {
        Self::lookup(self.as_str()).expect("checked when parsed")
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three ASCII letters")
    }

    fn lookup(code: &str) -> Option<u32> {
        let tables = [(EXPONENT_2, 2), (EXPONENT_0, 0), (EXPONENT_3, 3), (EXPONENT_4, 4)];
        tables.into_iter().find(|(codes, _)| codes.split_ascii_whitespace().any(|c| c == code)).map(|(_, e)| e)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).map_err(D::Error::custom)
    }
}

crate::scope::string_schema!(Currency);

/// An amount in minor units of its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawMoney")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Money {
    /// Minor units: 1250000 is Rp 12.500.
    pub amount: i64,
    /// ISO 4217 code.
    pub currency: Currency,
}

#[derive(Deserialize)]
struct RawMoney {
    amount: i64,
    currency: Currency,
}

impl TryFrom<RawMoney> for Money {
    type Error = MoneyError;

    fn try_from(raw: RawMoney) -> Result<Self, MoneyError> {
        Self::new(raw.amount, raw.currency)
    }
}

impl Money {
    /// Checks the range.
    pub fn new(amount: i64, currency: Currency) -> Result<Self, MoneyError> {
        if (-INTEGER_MAX..=INTEGER_MAX).contains(&amount) { Ok(Self { amount, currency }) } else { Err(MoneyError::Range { amount }) }
    }
}

/// For people: `IDR 12500.00`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exponent = self.currency.exponent() as usize;
        let sign = if self.amount < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", self.amount.unsigned_abs(), width = exponent + 1);
        let (whole, minor) = digits.split_at(digits.len() - exponent);
        let point = if exponent == 0 { "" } else { "." };
        write!(f, "{} {sign}{whole}{point}{minor}", self.currency)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_rupiah_has_two_decimals_and_the_yen_none() {
        let money = |amount, code| Money::new(amount, Currency::parse(code).unwrap()).unwrap().to_string();
        assert_eq!(money(1_250_000, "IDR"), "IDR 12500.00");
        assert_eq!(money(-5, "GBP"), "GBP -0.05");
        assert_eq!(money(500, "JPY"), "JPY 500");
        assert_eq!(money(1, "KWD"), "KWD 0.001");
    }

    #[test]
    fn refuses_other_codes_and_far_amounts() {
        for bad in ["", "idr", "IDRX", "XXX", "RP ", "ID"] {
            assert!(Currency::parse(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Money>(r#"{"amount":9007199254740992,"currency":"IDR"}"#).is_err());
        assert!(serde_json::from_str::<Money>(r#"{"amount":1.5,"currency":"IDR"}"#).is_err());
    }
}
