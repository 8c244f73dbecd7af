//! Operations: what a device did (§4.6 of the contract), checked for everything that needs no database.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    BranchId, BusinessDate, CanonicalError, Code, Money, Quantity, Timestamp, canonicalise,
    limits::{RECEIPT_LINES_MAX, RECEIPT_TENDERS_MAX, ROW_ID_BYTES_MAX, TEXT_BYTES_MAX},
    problem::shorten,
};

/// A UUIDv7 chosen on the device: the idempotency key of an operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(uuid::Uuid);

impl OperationId {
    /// From a UUID, which must be a version 7.
    pub fn from_uuid(uuid: uuid::Uuid) -> Option<Self> {
        (uuid.get_version_num() == 7).then_some(Self(uuid))
    }

    /// From a time and random bits, which the caller supplies (RFC 9562 §5.7).
    pub fn from_parts(at: Timestamp, random: [u8; 10]) -> Self {
        let ms = u64::try_from(at.as_ms()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }

    /// Parses the hyphenated lower-case form of a UUIDv7.
    pub fn parse(raw: &str) -> Option<Self> {
        let uuid = uuid::Uuid::try_parse(raw).ok()?;
        (uuid.hyphenated().to_string() == raw).then_some(uuid).and_then(Self::from_uuid)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for OperationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OperationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).ok_or_else(|| D::Error::custom(format!("{raw:?} is not a UUIDv7 in lower case")))
    }
}

crate::scope::string_schema!(OperationId);

/// One thing that a device did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Operation {
    /// Chosen on the device; resending it is safe.
    pub id: OperationId,
    /// Dense per device and journal: 1, 2, 3 …
    pub device_seq: u64,
    /// The device's clock when it happened.
    pub occurred_at: Timestamp,
    /// The rejected operation that this one takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<OperationId>,
    /// What was done.
    #[serde(flatten)]
    pub kind: OperationKind,
}

/// What was done, tagged by `type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OperationKind {
    /// Goods handed over for money.
    Sale(Receipt),
    /// Goods taken back.
    Return(Receipt),
    /// Goods came in: a positive delta.
    Receive(StockAct),
    /// A correction: a signed delta.
    Adjust(StockAct),
    /// What was counted on the shelf: the new base of the stock.
    Count(StockAct),
    /// Goods sent to another branch of the merchant: out here, in there.
    Transfer(Transfer),
}

impl OperationKind {
    /// The `type` on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Sale(_) => "sale",
            Self::Return(_) => "return",
            Self::Receive(_) => "receive",
            Self::Adjust(_) => "adjust",
            Self::Count(_) => "count",
            Self::Transfer(_) => "transfer",
        }
    }
}

/// A sale or a return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Receipt {
    /// What was sold, at least one line.
    pub lines: Vec<ReceiptLine>,
    /// How it was paid.
    pub tenders: Vec<Tender>,
    /// The sum of the lines.
    pub total: Money,
    /// The number printed on the receipt.
    pub receipt_no: String,
    /// The day it is booked on.
    pub business_date: BusinessDate,
}

/// One line of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReceiptLine {
    /// Unique within the receipt.
    pub line_no: u32,
    /// The product.
    pub product_id: String,
    /// How much; positive, also on a return.
    pub quantity: Quantity,
    /// Price of one unit.
    pub unit_price: Money,
    /// What the line costs; discounts make it differ from quantity × price.
    pub total: Money,
}

/// One payment of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tender {
    /// `cash`, `card`, `qris`, … — never a card number.
    #[serde(rename = "type")]
    pub kind: String,
    /// How much.
    pub amount: Money,
}

/// Whose stock an act moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StockTarget {
    /// The stock of a product at the branch.
    Product,
    /// The quantity of an inventory item at the branch.
    Inventory,
}

impl StockTarget {
    /// The collection's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Inventory => "inventory",
        }
    }
}

/// A receipt of goods, a correction or a count of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StockAct {
    /// `product` or `inventory`.
    pub collection: StockTarget,
    /// The row's id.
    pub item_id: String,
    /// Delta (receive: positive; adjust: signed) or the counted amount (count: not negative).
    pub quantity: Quantity,
    /// Why: `received`, `damaged`, `stocktake`, …
    pub reason: String,
}

/// Goods sent to another branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Transfer {
    /// What is sent; the quantity is positive.
    #[serde(flatten)]
    pub act: StockAct,
    /// The branch that receives it.
    pub to_branch: BranchId,
}

/// Why an operation cannot be accepted whatever the database says; nothing else in the upload is touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct OperationError {
    /// The verdict's code.
    pub code: Code,
    /// What and where.
    pub detail: String,
}

fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, OperationError> {
    Err(OperationError { code, detail: shorten(detail.into()) })
}

impl Operation {
    /// Parses one operation of an upload and checks it; the canonical text is what its body is compared by.
    pub fn parse(text: &str) -> Result<(Self, String), OperationError> {
        let canonical = canonicalise(text).map_err(|error| OperationError {
            code: match error {
                CanonicalError::Float { .. } => Code::FloatRefused,
                CanonicalError::IntegerRange { .. } => Code::IntegerOutOfRange,
                CanonicalError::TooLarge { .. } | CanonicalError::TooDeep => Code::OperationTooLarge,
                CanonicalError::Syntax { .. } | CanonicalError::DuplicateKey { .. } => Code::MalformedOperation,
            },
            detail: shorten(error.to_string()),
        })?;
        let operation: Self = serde_json::from_str(&canonical).map_err(|error| Self::shape_error(&canonical, &error))?;
        operation.check()?;
        Ok((operation, canonical.into_owned()))
    }

    /// Serde's message names the field; the code tells quantities and currencies from other shapes.
    fn shape_error(canonical: &str, error: &serde_json::Error) -> OperationError {
        let detail = error.to_string();
        let code = if detail.contains("is not a quantity") || detail.contains("is beyond ±1000000000") {
            Code::MalformedQuantity
        } else if detail.contains("is not a currency") {
            Code::UnknownCurrency
        } else if detail.contains("unknown variant") && !canonical.contains("\"collection\"") {
            Code::UnknownOperationType
        } else {
            Code::MalformedOperation
        };
        OperationError { code, detail: shorten(detail) }
    }

    fn check(&self) -> Result<(), OperationError> {
        if self.device_seq == 0 {
            return refuse(Code::MalformedOperation, "device_seq starts at 1");
        }
        match &self.kind {
            OperationKind::Sale(receipt) | OperationKind::Return(receipt) => receipt.check(),
            OperationKind::Receive(act) => act.check(act.quantity.as_milli() > 0, "a receipt of goods is positive"),
            OperationKind::Adjust(act) => act.check(act.quantity != Quantity::ZERO, "an adjustment of 0 changes nothing"),
            OperationKind::Count(act) => act.check(!act.quantity.is_negative(), "nobody counts less than 0"),
            OperationKind::Transfer(transfer) => transfer.act.check(transfer.act.quantity.as_milli() > 0, "a transfer is positive"),
        }
    }
}

impl Receipt {
    fn check(&self) -> Result<(), OperationError> {
        if self.lines.is_empty() || self.lines.len() > RECEIPT_LINES_MAX {
            return refuse(Code::MalformedOperation, format!("{} lines; 1 to {RECEIPT_LINES_MAX} are allowed", self.lines.len()));
        }
        if self.tenders.len() > RECEIPT_TENDERS_MAX {
            return refuse(Code::MalformedOperation, format!("{} tenders; at most {RECEIPT_TENDERS_MAX}", self.tenders.len()));
        }
        check_text("receipt_no", &self.receipt_no)?;
        let currency = self.total.currency;
        let mut sum: i64 = 0;
        let mut numbers = std::collections::BTreeSet::new();
        for line in &self.lines {
            check_id("product_id", &line.product_id)?;
            if line.quantity.as_milli() <= 0 {
                return refuse(Code::NegativeQuantity, format!("line {}: quantity {} must be above 0", line.line_no, line.quantity));
            }
            if !numbers.insert(line.line_no) {
                return refuse(Code::MalformedOperation, format!("line_no {} stands twice", line.line_no));
            }
            if line.unit_price.currency != currency || line.total.currency != currency {
                return refuse(Code::CurrencyDiffers, format!("line {}: its currency differs from the total's {currency}", line.line_no));
            }
            sum = sum.saturating_add(line.total.amount);
        }
        if let Some(tender) = self.tenders.iter().find(|tender| tender.amount.currency != currency) {
            return refuse(Code::CurrencyDiffers, format!("tender {}: {} instead of {currency}", tender.kind, tender.amount.currency));
        }
        if sum != self.total.amount {
            return refuse(Code::TotalDiffers, format!("the lines add up to {sum}, the total says {}", self.total.amount));
        }
        self.tenders.iter().try_for_each(|tender| check_text("tender type", &tender.kind))
    }
}

impl StockAct {
    fn check(&self, sign_fits: bool, rule: &str) -> Result<(), OperationError> {
        check_id("item_id", &self.item_id)?;
        check_text("reason", &self.reason)?;
        if sign_fits { Ok(()) } else { refuse(Code::NegativeQuantity, format!("quantity {}: {rule}", self.quantity)) }
    }
}

fn check_id(name: &str, id: &str) -> Result<(), OperationError> {
    let fits = (1..=ROW_ID_BYTES_MAX).contains(&id.len()) && !id.contains('\0');
    if fits { Ok(()) } else { refuse(Code::MalformedOperation, format!("{name} takes 1 to {ROW_ID_BYTES_MAX} bytes without U+0000")) }
}

fn check_text(name: &str, text: &str) -> Result<(), OperationError> {
    let fits = text.len() <= TEXT_BYTES_MAX && !text.contains('\0');
    if fits { Ok(()) } else { refuse(Code::MalformedOperation, format!("{name} takes at most {TEXT_BYTES_MAX} bytes without U+0000")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SALE: &str = r#"{"id":"019aab12-3456-7abc-8def-0123456789ab","device_seq":1,"type":"sale","occurred_at":"2026-11-22T06:41:00.123Z",
        "lines":[{"line_no":1,"product_id":"P","quantity":"2","unit_price":{"amount":500,"currency":"IDR"},"total":{"amount":1000,"currency":"IDR"}}],
        "tenders":[{"type":"cash","amount":{"amount":1000,"currency":"IDR"}}],"total":{"amount":1000,"currency":"IDR"},"receipt_no":"R-1","business_date":"2026-11-22"}"#;

    fn code_of(from: &str, to: &str) -> Code {
        assert!(SALE.contains(from), "{from}");
        Operation::parse(&SALE.replace(from, to)).unwrap_err().code
    }

    #[test]
    fn a_good_sale_parses_and_writes_back() {
        let (operation, canonical) = Operation::parse(SALE).unwrap();
        let again = serde_json::to_string(&operation).unwrap();
        assert_eq!(canonicalise(&again).unwrap(), canonical);
    }

    #[test]
    fn a_refusal_does_not_repeat_the_operation() {
        let long = "x".repeat(100_000);
        for bad in
            [SALE.replace("sale", &long), SALE.replace(r#""P""#, &format!(r#""P","{long}":1,"{long}":1"#)), SALE.replace("cash", &long)]
        {
            assert!(Operation::parse(&bad).unwrap_err().detail.len() <= crate::limits::DETAIL_BYTES_MAX);
        }
    }

    #[test]
    fn every_refusal_has_its_code() {
        assert_eq!(code_of(r#""quantity":"2""#, r#""quantity":2.5"#), Code::FloatRefused);
        assert_eq!(code_of(r#""quantity":"2""#, r#""quantity":"-2""#), Code::NegativeQuantity);
        assert_eq!(code_of(r#""quantity":"2""#, r#""quantity":"2.0""#), Code::MalformedQuantity);
        assert_eq!(code_of(r#""amount":500,"currency":"IDR""#, r#""amount":500,"currency":"USD""#), Code::CurrencyDiffers);
        assert_eq!(code_of(r#""amount":500,"currency":"IDR""#, r#""amount":500,"currency":"RP""#), Code::UnknownCurrency);
        assert_eq!(code_of(r#""amount":500,"#, r#""amount":9007199254740992,"#), Code::IntegerOutOfRange);
        assert_eq!(
            code_of(r#""total":{"amount":1000,"currency":"IDR"},"receipt_no""#, r#""total":{"amount":999,"currency":"IDR"},"receipt_no""#),
            Code::TotalDiffers
        );
        assert_eq!(code_of(r#""type":"sale""#, r#""type":"gift""#), Code::UnknownOperationType);
        assert_eq!(code_of("7abc", "4abc"), Code::MalformedOperation);
        assert_eq!(code_of(r#""device_seq":1"#, r#""device_seq":0"#), Code::MalformedOperation);
    }
}
