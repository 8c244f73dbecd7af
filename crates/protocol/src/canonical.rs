//! RFC 8785 canonical JSON for the subset that rows use: strings, integers within ±(2^53−1), booleans, null, arrays, objects.
//!
//! One pass tells whether a text is canonical already (what the server sends is), and then it is used as it stands; otherwise it
//! is parsed and written anew. Floats, duplicate keys and lone surrogates are refused, never rounded or dropped.

use std::{borrow::Cow, ops::Range};

use crate::limits::{INTEGER_MAX, ROW_BYTES_MAX, ROW_DEPTH_MAX};

/// Why a text has no canonical form here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// Not JSON at all.
    #[error("not valid JSON at byte {at}")]
    Syntax {
        /// Offset of the first byte that does not fit.
        at: usize,
    },
    /// A fraction or an exponent, or minus zero.
    #[error("a float at byte {at}; quantities are decimal strings, money is an integer of minor units")]
    Float {
        /// Offset of the number.
        at: usize,
    },
    /// An integer that JSON readers would round.
    #[error("an integer beyond ±(2^53−1) at byte {at}; send it as a string")]
    IntegerRange {
        /// Offset of the number.
        at: usize,
    },
    /// The same key twice in one object.
    #[error("the key {key:?} stands twice in one object")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// Nested deeper than [`ROW_DEPTH_MAX`].
    #[error("nested deeper than 16 levels")]
    TooDeep,
    /// Longer than [`ROW_BYTES_MAX`].
    #[error("{bytes} bytes; a row has at most 262144")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// The canonical form of a JSON text; borrowed when the text is canonical already.
pub fn canonicalise(text: &str) -> Result<Cow<'_, str>, CanonicalError> {
    if text.len() > ROW_BYTES_MAX {
        return Err(CanonicalError::TooLarge { bytes: text.len() });
    }
    if is_canonical(text) {
        return Ok(Cow::Borrowed(text));
    }
    let mut reader = Reader { bytes: text.as_bytes(), text, at: 0 };
    let mut out = String::with_capacity(text.len());
    reader.space();
    reader.value(&mut out, 0)?;
    reader.space();
    if reader.at != text.len() {
        return Err(CanonicalError::Syntax { at: reader.at });
    }
    Ok(Cow::Owned(out))
}

/// Appends a string as RFC 8785 writes it: only `"`, `\` and control characters are escaped.
pub(crate) fn write_string(out: &mut String, raw: &str) {
    out.push('"');
    let mut from = 0;
    for (i, b) in raw.bytes().enumerate() {
        let short = match b {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            b'\t' => "\\t",
            b'\n' => "\\n",
            0x0c => "\\f",
            b'\r' => "\\r",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&raw[from..i]);
        if short.is_empty() {
            out.push_str(&format!("\\u{b:04x}"));
        } else {
            out.push_str(short);
        }
        from = i + 1;
    }
    out.push_str(&raw[from..]);
    out.push('"');
}

/// Order of keys: by UTF-16 units, which for ASCII is the order of bytes.
pub(crate) fn key_order(a: &str, b: &str) -> std::cmp::Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

/// The fast path: true only if `text` is exactly its own canonical form. A key with an escape makes it give up, which costs time, not truth.
fn is_canonical(text: &str) -> bool {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    scan.value(0).is_some() && scan.at == text.len()
}

/// Two canonical objects made one.
pub(crate) struct Merged<'a> {
    /// The canonical text.
    pub(crate) text: String,
    /// The value of its member `id`, as it stands there.
    pub(crate) id: Option<&'a str>,
}

/// Makes one object of two canonical ones, members of `patch` in the place of those of `base`; `None` when either is not canonical, or has
/// keys whose order is not that of their bytes: then somebody has to parse them.
pub(crate) fn merge_members<'a>(base: &'a str, patch: &'a str) -> Option<Merged<'a>> {
    let (mut base_members, mut patch_members) = (members(base)?.into_iter().peekable(), members(patch)?.into_iter().peekable());
    let mut merged = Merged { text: String::with_capacity(base.len() + patch.len()), id: None };
    loop {
        let next = match (base_members.peek(), patch_members.peek()) {
            (Some((old, _)), Some((new, _))) if old == new => {
                base_members.next();
                patch_members.next()
            }
            (Some((old, _)), Some((new, _))) if new < old => patch_members.next(),
            (Some(_), _) => base_members.next(),
            (None, _) => patch_members.next(),
        };
        let Some((key, value)) = next else { break };
        if key == "id" {
            merged.id = Some(value);
        }
        let out = &mut merged.text;
        out.push_str(if out.is_empty() { "{\"" } else { ",\"" });
        out.push_str(key);
        out.push_str("\":");
        out.push_str(value);
    }
    merged.text.push_str(if merged.text.is_empty() { "{}" } else { "}" });
    Some(merged)
}

/// Keys (as they stand between their quotes) and values of a canonical object.
fn members(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    let mut found = Vec::with_capacity(16);
    scan.members(1, |key, value| found.push((&text[key], &text[value])))?;
    (scan.at == text.len()).then_some(found)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.integer(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.members(depth, |_, _| ())
    }

    /// Says of each member where its key, without the quotes, and its value stand.
    fn members(&mut self, depth: usize, mut each: impl FnMut(Range<usize>, Range<usize>)) -> Option<()> {
        if depth > ROW_DEPTH_MAX {
            return None;
        }
        self.eat(b'{')?;
        if self.eat(b'}').is_some() {
            return Some(());
        }
        let mut last: Option<&'a [u8]> = None;
        loop {
            let from = self.at + 1;
            let key = self.string()?;
            if key.iter().any(|b| *b == b'\\' || !b.is_ascii()) || last.is_some_and(|last| last >= key) {
                return None;
            }
            last = Some(key);
            self.eat(b':')?;
            let value = self.at;
            self.value(depth)?;
            each(from..from + key.len(), value..self.at);
            if self.eat(b',').is_none() {
                return self.eat(b'}');
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        if depth > ROW_DEPTH_MAX {
            return None;
        }
        self.eat(b'[')?;
        if self.eat(b']').is_some() {
            return Some(());
        }
        loop {
            self.value(depth)?;
            if self.eat(b',').is_none() {
                return self.eat(b']');
            }
        }
    }

    /// The bytes between the quotes, still escaped.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.eat(b'"')?;
        let from = self.at;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.canonical_escape()?,
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(&self.bytes[from..self.at - 1])
    }

    fn canonical_escape(&mut self) -> Option<()> {
        match *self.bytes.get(self.at + 1)? {
            b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r' => self.at += 2,
            b'u' => {
                let hex = self.bytes.get(self.at + 2..self.at + 6)?;
                let value = u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
                let has_short = matches!(value, 0x08 | 0x09 | 0x0a | 0x0c | 0x0d);
                let lower = hex.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
                if value > 0x1f || has_short || !lower {
                    return None;
                }
                self.at += 6;
            }
            _ => return None,
        }
        Some(())
    }

    fn integer(&mut self) -> Option<()> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let digits = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        let count = self.at - digits;
        let leads_with_zero = count > 0 && self.bytes[digits] == b'0';
        if count == 0 || (leads_with_zero && (count > 1 || digits > from)) || count > 16 {
            return None;
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return None;
        }
        if count == 16 {
            let value: i64 = std::str::from_utf8(&self.bytes[digits..self.at]).ok()?.parse().ok()?;
            return (value <= INTEGER_MAX).then_some(());
        }
        Some(())
    }
}

/// The slow path: reads any JSON of the subset and writes its canonical form.
struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn syntax<T>(&self) -> Result<T, CanonicalError> {
        Err(CanonicalError::Syntax { at: self.at })
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.bytes.get(self.at) == Some(&byte);
        if there {
            self.at += 1;
        }
        there
    }

    fn value(&mut self, out: &mut String, depth: usize) -> Result<(), CanonicalError> {
        match self.bytes.get(self.at) {
            Some(b'"') => {
                let raw = self.string()?;
                write_string(out, &raw);
                Ok(())
            }
            Some(b'{') => self.object(out, depth + 1),
            Some(b'[') => self.array(out, depth + 1),
            Some(b'-' | b'0'..=b'9') => self.number(out),
            _ => {
                for word in ["true", "false", "null"] {
                    if self.bytes[self.at..].starts_with(word.as_bytes()) {
                        self.at += word.len();
                        out.push_str(word);
                        return Ok(());
                    }
                }
                self.syntax()
            }
        }
    }

    fn object(&mut self, out: &mut String, depth: usize) -> Result<(), CanonicalError> {
        if depth > ROW_DEPTH_MAX {
            return Err(CanonicalError::TooDeep);
        }
        let mut entries: Vec<(String, String)> = Vec::new();
        self.at += 1;
        self.space();
        if !self.eat(b'}') {
            loop {
                let key = self.string()?;
                self.space();
                if !self.eat(b':') {
                    return self.syntax();
                }
                self.space();
                let mut value = String::new();
                self.value(&mut value, depth)?;
                entries.push((key, value));
                self.space();
                if self.eat(b'}') {
                    break;
                }
                if !self.eat(b',') {
                    return self.syntax();
                }
                self.space();
            }
        }
        write_object(out, entries)
    }

    fn array(&mut self, out: &mut String, depth: usize) -> Result<(), CanonicalError> {
        if depth > ROW_DEPTH_MAX {
            return Err(CanonicalError::TooDeep);
        }
        self.at += 1;
        self.space();
        out.push('[');
        if !self.eat(b']') {
            loop {
                self.value(out, depth)?;
                self.space();
                if self.eat(b']') {
                    break;
                }
                if !self.eat(b',') {
                    return self.syntax();
                }
                out.push(',');
                self.space();
            }
        }
        out.push(']');
        Ok(())
    }

    fn string(&mut self) -> Result<String, CanonicalError> {
        let from = self.at;
        if !self.eat(b'"') {
            return self.syntax();
        }
        loop {
            match self.bytes.get(self.at) {
                // A backslash at the very end steps over it.
                None => return Err(CanonicalError::Syntax { at: self.bytes.len() }),
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let quoted = self.text.get(from..self.at).ok_or(CanonicalError::Syntax { at: from })?;
        serde_json::from_str(quoted).map_err(|_| CanonicalError::Syntax { at: from })
    }

    fn number(&mut self, out: &mut String) -> Result<(), CanonicalError> {
        let from = self.at;
        self.eat(b'-');
        let digits = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        let count = self.at - digits;
        if count == 0 || (count > 1 && self.bytes[digits] == b'0') {
            return self.syntax();
        }
        let is_minus_zero = digits > from && self.bytes[digits] == b'0';
        if is_minus_zero || matches!(self.bytes.get(self.at), Some(b'.' | b'e' | b'E')) {
            return Err(CanonicalError::Float { at: from });
        }
        let text = &self.text[from..self.at];
        let value: i64 = text.parse().map_err(|_| CanonicalError::IntegerRange { at: from })?;
        if value.unsigned_abs() > INTEGER_MAX.unsigned_abs() {
            return Err(CanonicalError::IntegerRange { at: from });
        }
        out.push_str(text);
        Ok(())
    }
}

fn write_object(out: &mut String, mut entries: Vec<(String, String)>) -> Result<(), CanonicalError> {
    entries.sort_by(|a, b| key_order(&a.0, &b.0));
    out.push('{');
    for (i, (key, value)) in entries.iter().enumerate() {
        if i > 0 {
            if entries[i - 1].0 == *key {
                return Err(CanonicalError::DuplicateKey { key: key.clone() });
            }
            out.push(',');
        }
        write_string(out, key);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(input: &str, expect: &str) {
        assert_eq!(canonicalise(input).unwrap(), expect);
        assert!(is_canonical(expect) || !expect.is_ascii() || expect.contains('\\'), "fast path misses {expect}");
        assert_eq!(canonicalise(expect).unwrap(), expect, "canonical form is a fixed point");
    }

    #[test]
    fn sorts_keys_and_drops_space() {
        check(r#" { "b" : 1 , "a" : [ true , null , "x" ] } "#, r#"{"a":[true,null,"x"],"b":1}"#);
        check(r"{}", r"{}");
        check("[ ]", "[]");
    }

    #[test]
    fn orders_keys_by_utf16_units() {
        // RFC 8785 §3.2.3: U+1F600 (surrogates d83d de00) sorts before U+FB33, although its UTF-8 sorts after.
        check("{\"\u{fb33}\":1,\"\u{1f600}\":2}", "{\"\u{1f600}\":2,\"\u{fb33}\":1}");
    }

    #[test]
    fn writes_strings_with_the_fewest_escapes() {
        check(r#""\u0041\/\u00e9\u000a\u001f\"""#, "\"A/é\\n\\u001f\\\"\"");
    }

    #[test]
    fn a_mistake_lies_within_the_text() {
        for bad in ["\"a", "\"\\", "{\"a\\", "[1,"] {
            assert!(matches!(canonicalise(bad), Err(CanonicalError::Syntax { at }) if at <= bad.len()), "{bad}");
        }
    }

    #[test]
    fn refuses_what_readers_would_disagree_on() {
        for float in ["1.0", "-0", "1e3", "[0.5]"] {
            assert!(matches!(canonicalise(float), Err(CanonicalError::Float { .. })), "{float}");
        }
        for big in ["9007199254740992", "-9007199254740992", "-9223372036854775808", "123456789012345678901234567890"] {
            assert!(matches!(canonicalise(big), Err(CanonicalError::IntegerRange { .. })), "{big}");
        }
        check("9007199254740991", "9007199254740991");
        assert!(matches!(canonicalise(r#"{"a":1,"a":2}"#), Err(CanonicalError::DuplicateKey { .. })));
        let deep = "[".repeat(17) + &"]".repeat(17);
        assert_eq!(canonicalise(&deep), Err(CanonicalError::TooDeep));
        for bad in ["", "01", "{", "{\"a\":}", "\"\\ud800\"", "nul", "[1,]", "\"a", "\"\\", "{\"a\" 1}", "1 2"] {
            assert!(matches!(canonicalise(bad), Err(CanonicalError::Syntax { .. })), "{bad}");
        }
    }
}
