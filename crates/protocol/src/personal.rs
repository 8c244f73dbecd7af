//! Personal data that has no business on a topic: card numbers, e-mail addresses and phone numbers in the texts of rows and operations.
//!
//! What is found is named by field and kind and never repeated: a refusal must not carry on what it refuses.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};

use crate::nearest::did_you_mean;

/// Digits of the shortest card number that is looked for. Older cards have fewer, but so have the codes on goods.
const CARD_DIGITS_MIN: usize = 15;
const CARD_DIGITS_MAX: usize = 19;
/// Digits of a phone number with its country.
const ABROAD_DIGITS: std::ops::RangeInclusive<usize> = 9..=15;
/// Digits of an Indonesian mobile number, the leading 0 included.
const MOBILE_DIGITS: std::ops::RangeInclusive<usize> = 10..=13;
/// A shorter text holds nothing of the kind.
const TEXT_BYTES_MIN: usize = 6;

/// A kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PersonalKind {
    /// 15 to 19 digits that begin like a payment card's and whose check digit is right.
    Card,
    /// `name@host.tld`.
    Email,
    /// `+` and 9 to 15 digits, or an Indonesian mobile number (`08…`, `628…`).
    Phone,
}

impl PersonalKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Card, Self::Email, Self::Phone];

    /// Its name in settings and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Email => "email",
            Self::Phone => "phone",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Card => "what looks like a card number",
            Self::Email => "what looks like an e-mail address",
            Self::Phone => "what looks like a phone number",
        }
    }
}

/// Personal data in a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonalFound {
    /// The field, without the data.
    pub field: String,
    /// What it is.
    pub kind: PersonalKind,
}

impl fmt::Display for PersonalFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} holds {}", self.field, self.kind.what())
    }
}

/// What is looked for, and where it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonalData {
    kinds: BTreeSet<PersonalKind>,
    exempt: BTreeSet<String>,
}

impl Default for PersonalData {
    /// All kinds, in all fields but those that hold codes.
    fn default() -> Self {
        Self { kinds: PersonalKind::ALL.into(), exempt: BTreeSet::new() }
    }
}

impl PersonalData {
    /// From settings: kinds separated by commas, or `off`; fields separated by commas that may hold anything, beside those that hold codes.
    pub fn parse(kinds: &str, exempt: &str) -> Result<Self, String> {
        let words = |list: &str| list.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect::<Vec<_>>();
        let kinds = if kinds.trim() == "off" { Vec::new() } else { words(kinds) };
        let known = |word: &String| PersonalKind::ALL.into_iter().find(|kind| kind.as_str() == word);
        let kinds = kinds.iter().map(|word| {
            let names = PersonalKind::ALL.map(PersonalKind::as_str).into_iter().chain(["off"]);
            known(word).ok_or_else(|| format!("{word:?} is no kind of personal data; {}", did_you_mean(word, names)))
        });
        Ok(Self { kinds: kinds.collect::<Result<_, _>>()?, exempt: words(exempt).into_iter().collect() })
    }

    /// The first thing that is found in the texts of a JSON object; a text that is no object holds nothing.
    pub fn find(&self, json: &str) -> Option<PersonalFound> {
        if self.kinds.is_empty() || !may_hold(json) {
            return None;
        }
        let object: Map<String, Value> = serde_json::from_str(json).ok()?;
        object.iter().find_map(|(field, value)| self.find_in(field, value))
    }

    /// What one text of a field holds.
    pub fn find_text(&self, field: &str, text: &str) -> Option<PersonalFound> {
        if self.kinds.is_empty() || self.is_exempt(field) || !may_hold(text) {
            return None;
        }
        self.kind_of(text).map(|kind| PersonalFound { field: field.to_owned(), kind })
    }

    /// The text with what is found taken out: for records of what was refused.
    pub fn without(&self, json: &str) -> String {
        let Ok(mut value) = serde_json::from_str::<Value>(json) else { return String::new() };
        self.take_out("", &mut value);
        value.to_string()
    }

    fn find_in(&self, field: &str, value: &Value) -> Option<PersonalFound> {
        match value {
            Value::String(text) if !self.is_exempt(field) => self.kind_of(text).map(|kind| PersonalFound { field: field.to_owned(), kind }),
            Value::Array(values) => values.iter().find_map(|value| self.find_in(field, value)),
            Value::Object(object) => object.iter().find_map(|(field, value)| self.find_in(field, value)),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    fn take_out(&self, field: &str, value: &mut Value) {
        match value {
            Value::String(text) if !self.is_exempt(field) => {
                if let Some(kind) = self.kind_of(text) {
                    *text = format!("({} removed)", kind.as_str());
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.take_out(field, value)),
            Value::Object(object) => object.iter_mut().for_each(|(field, value)| self.take_out(field, value)),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Codes look like anything.
    fn is_exempt(&self, field: &str) -> bool {
        matches!(field, "id" | "sku" | "barcode" | "receipt_no") || field.ends_with("_id") || self.exempt.contains(field)
    }

    fn kind_of(&self, text: &str) -> Option<PersonalKind> {
        if text.len() < TEXT_BYTES_MIN {
            return None;
        }
        self.kinds.iter().copied().find(|kind| match kind {
            PersonalKind::Card => numbers(text).any(|number| number.is_card()),
            PersonalKind::Email => has_email(text),
            PersonalKind::Phone => numbers(text).any(|number| number.is_phone()),
        })
    }
}

/// A look that costs little: most texts hold no `@` and no nine digits in a row, signs between them left out.
fn may_hold(json: &str) -> bool {
    let mut digits = 0;
    json.bytes().any(|byte| {
        match byte {
            b'0'..=b'9' => digits += 1,
            b' ' | b'-' | b'.' | b'(' | b')' => {}
            b'@' => return true,
            _other => digits = 0,
        }
        digits >= *ABROAD_DIGITS.start()
    })
}

fn has_email(text: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || "._%+-".contains(c);
    text.match_indices('@').any(|(at, _)| {
        let name = text[..at].chars().rev().take_while(|c| is_name(*c)).count();
        let host: String = text[at + 1..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '.' | '-')).collect();
        let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
        let is_domain = |last: &&str| last.len() >= 2 && last.chars().all(char::is_alphabetic);
        name > 0 && labels.len() >= 2 && labels.iter().all(|label| !label.is_empty()) && labels.last().is_some_and(is_domain)
    })
}

/// A number as people write it: groups of digits with a single sign between them.
struct Written<'a> {
    has_plus: bool,
    groups: Vec<&'a str>,
}

impl Written<'_> {
    fn digits(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.groups.iter().flat_map(|group| group.bytes()).map(|byte| u32::from(byte - b'0'))
    }

    fn count(&self) -> usize {
        self.groups.iter().map(|group| group.len()).sum()
    }

    /// In one piece or in groups as they are printed on cards: 4-4-4-4…, 4-6-5.
    fn is_card(&self) -> bool {
        let lengths: Vec<usize> = self.groups.iter().map(|group| group.len()).collect();
        let is_printed = match lengths.as_slice() {
            [_] | [4, 6, 5] => true,
            [whole @ .., last] => whole.iter().all(|length| *length == 4) && (1..=4).contains(last),
            [] => false,
        };
        is_printed
            && !self.has_plus
            && (CARD_DIGITS_MIN..=CARD_DIGITS_MAX).contains(&self.count())
            && self.is_issued()
            && self.has_check_digit()
    }

    /// Whether a payment network gives out such numbers.
    fn is_issued(&self) -> bool {
        let first = self.digits().take(4).fold(0, |number, digit| number * 10 + digit);
        (3000..7000).contains(&first) || (2221..=2720).contains(&first)
    }

    /// Luhn's check.
    fn has_check_digit(&self) -> bool {
        let twice = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
        let sum: u32 = self.digits().rev().enumerate().map(|(i, digit)| if i % 2 == 1 { twice(digit) } else { digit }).sum();
        sum.is_multiple_of(10)
    }

    fn is_phone(&self) -> bool {
        let Some(first) = self.groups.first() else { return false };
        let digits = self.count();
        // A date begins with two digits and a sign.
        let is_mobile = first.len() >= 4 && first.starts_with("08") && MOBILE_DIGITS.contains(&digits);
        let is_mobile_abroad = first.starts_with("628") && (digits > 1) && MOBILE_DIGITS.contains(&(digits - 1));
        (self.has_plus && !first.starts_with('0') && ABROAD_DIGITS.contains(&digits)) || is_mobile || is_mobile_abroad
    }
}

/// The numbers of a text that stand for themselves: what touches a letter is a code.
fn numbers(text: &str) -> impl Iterator<Item = Written<'_>> {
    let mut rest = text;
    let mut before: Option<char> = None;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(|c: char| c.is_ascii_digit())?;
            let head = &rest[..start];
            let mut touching = head.chars().next_back().or(before);
            let has_plus = touching == Some('+');
            if has_plus {
                touching = head.chars().rev().nth(1);
            }
            let (groups, tail) = groups(&rest[start..]);
            before = rest[..rest.len() - tail.len()].chars().next_back();
            rest = tail;
            let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            if !is_word(touching) && !is_word(tail.chars().next()) {
                return Some(Written { has_plus, groups });
            }
        }
    })
}

/// The groups of digits that a text begins with, and what follows.
fn groups(text: &str) -> (Vec<&str>, &str) {
    let mut groups = Vec::new();
    let mut rest = text;
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        groups.push(&rest[..digits]);
        rest = &rest[digits..];
        let mut signs = rest.chars();
        let is_sign = signs.next().is_some_and(|c| matches!(c, ' ' | '-' | '.'));
        if !is_sign || !signs.next().is_some_and(|c| c.is_ascii_digit()) {
            return (groups, rest);
        }
        rest = &rest[1..];
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kind(text: &str) -> Option<PersonalKind> {
        let json = serde_json::json!({ "id": "P1", "name": text }).to_string();
        PersonalData::default().find(&json).map(|found| found.kind)
    }

    #[test]
    fn card_numbers_are_found_as_people_write_them() {
        // The test numbers that the networks publish.
        for card in
            ["4111111111111111", "4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "3782 822463 10005", "2223003122003222"]
        {
            assert_eq!(kind(&format!("paid with {card}.")), Some(PersonalKind::Card), "{card}");
        }
        for code in [
            "4111111111111112",  // the check digit is wrong
            "8991234567890",     // a code on goods
            "9111111111111111",  // nobody gives out such a card
            "A4111111111111111", // part of a code
            "41 11111111111111", // not as anybody writes a card
        ] {
            assert_ne!(kind(code), Some(PersonalKind::Card), "{code}");
        }
    }

    #[test]
    fn addresses_are_found_and_prices_are_not() {
        for address in ["budi@example.com", "mail: Budi.S+toko@mail.example.co.id!", "<a@b.id>"] {
            assert_eq!(kind(address), Some(PersonalKind::Email), "{address}");
        }
        for text in ["2 @ 5.000", "@home.com", "budi@localhost", "a@b.1", "a@.id"] {
            assert_eq!(kind(text), None, "{text}");
        }
    }

    #[test]
    fn phone_numbers_are_found_and_dates_sizes_and_times_are_not() {
        for phone in ["0812-3456-7890", "081234567890", "call +62 812 3456 789", "628123456789", "+1 415 555 2671", "(0812 345 6789)"] {
            assert_eq!(kind(phone), Some(PersonalKind::Phone), "{phone}");
        }
        for text in ["08-12-2026 10:30", "2026-11-22T06:41:00.123Z", "+10", "500 ml", "0812", "SKU08123456789", "6-8-12-34-56-78-90"] {
            assert_eq!(kind(text), None, "{text}");
        }
    }

    #[test]
    fn fields_of_codes_and_fields_that_were_named_are_left_alone() {
        let row = r#"{"barcode":"081234567890","id":"4111111111111111","lines":[{"product_id":"081234567890"}],"receipt_no":"081234567890","sku":"081234567890"}"#;
        assert_eq!(PersonalData::default().find(row), None);
        let row = r#"{"id":"P","contact":["0812-3456-7890"]}"#;
        let found = PersonalData::default().find(row).unwrap();
        assert_eq!(found.to_string(), r#""contact" holds what looks like a phone number"#);
        assert_eq!(PersonalData::parse("card,email,phone", "contact").unwrap().find(row), None);
        assert_eq!(PersonalData::parse("card, email", "").unwrap().find(row), None);
        assert_eq!(PersonalData::parse("off", "").unwrap().find(row), None);
    }

    #[test]
    fn a_misspelt_kind_is_refused_with_what_it_may_have_meant() {
        assert_eq!(PersonalData::parse("cards", "").unwrap_err(), r#""cards" is no kind of personal data; did you mean "card"?"#);
    }

    #[test]
    fn what_is_kept_of_a_refused_text_is_without_it() {
        let text = r#"{"id":"1","tenders":[{"type":"4111 1111 1111 1111"}],"reason":"damaged"}"#;
        let kept = PersonalData::default().without(text);
        assert_eq!(kept, r#"{"id":"1","reason":"damaged","tenders":[{"type":"(card removed)"}]}"#);
        assert_eq!(PersonalData::default().find(&kept), None);
        assert_eq!(PersonalData::default().without("no JSON: 4111 1111 1111 1111"), "");
    }
}
