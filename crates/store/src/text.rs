//! Writes canonical JSON directly: keys are given in their sorted order, so nothing is parsed or sorted afterwards.

use std::fmt::Write as _;

use mstore_protocol::{Money, Quantity};

/// A JSON object under construction.
pub(crate) struct Text(String);

impl Text {
    /// `{`.
    pub(crate) fn object() -> Self {
        let mut out = String::with_capacity(320);
        out.push('{');
        Self(out)
    }

    /// `}`, and the text.
    pub(crate) fn end(mut self) -> Box<str> {
        self.0.push('}');
        self.0.into_boxed_str()
    }

    /// The next key, which must sort after the one before.
    pub(crate) fn key(&mut self, key: &str) -> &mut Self {
        if !self.0.ends_with(['{', '[']) {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
        self
    }

    /// A string value.
    pub(crate) fn string(&mut self, value: &str) {
        if value.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
            self.0.push('"');
            self.0.push_str(value);
            self.0.push('"');
        } else {
            // Serde escapes what RFC 8785 escapes, and the same way.
            self.0.push_str(&serde_json::to_string(value).expect("a string is JSON"));
        }
    }

    /// A string or null.
    pub(crate) fn string_or_null(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None => self.0.push_str("null"),
        }
    }

    /// Anything whose display form is its JSON form: integers and booleans.
    pub(crate) fn plain(&mut self, value: impl std::fmt::Display) {
        write!(self.0, "{value}").expect("writing to a string does not fail");
    }

    /// A quantity, as a decimal string.
    pub(crate) fn quantity(&mut self, value: Quantity) {
        write!(self.0, "\"{value}\"").expect("writing to a string does not fail");
    }

    /// Minor units and the currency's code.
    pub(crate) fn amount(&mut self, amount: i64, currency: &str) {
        write!(self.0, "{{\"amount\":{amount},\"currency\":\"{currency}\"}}").expect("writing to a string does not fail");
    }

    /// Money.
    pub(crate) fn money(&mut self, value: Money) {
        self.amount(value.amount, value.currency.as_str());
    }

    /// An array of objects, each written by `each`.
    pub(crate) fn objects<T>(&mut self, items: impl IntoIterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        self.0.push('[');
        for (i, item) in items.into_iter().enumerate() {
            self.0.push_str(if i > 0 { ",{" } else { "{" });
            each(self, item);
            self.0.push('}');
        }
        self.0.push(']');
    }
}

/// Bytes of a string as it is written, quotes and escapes included.
pub(crate) fn string_bytes(value: &str) -> usize {
    let escaped = value.bytes().map(|b| match b {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r' => 2,
        0..=0x1f => 6,
        _ => 1,
    });
    2 + escaped.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use mstore_protocol::canonicalise;

    use super::*;

    #[test]
    fn what_is_written_is_canonical() {
        let mut text = Text::object();
        text.key("a").string("plain ä");
        text.key("b").string("\u{1}\t\"\\/\u{7f}");
        text.key("c").objects([1, 2], |text, n| text.key("n").plain(n));
        text.key("d").quantity(Quantity::from_milli(1250));
        text.key("e").amount(-5, "IDR");
        text.key("f").string_or_null(None);
        let text = text.end();
        assert_eq!(canonicalise(&text).as_deref(), Ok(&*text));
    }

    #[test]
    fn the_bytes_of_a_string_are_counted_as_it_is_written() {
        let every: String = (0..=0x7f_u8).map(char::from).collect();
        for value in ["", "plain ä€", &every] {
            assert_eq!(string_bytes(value), serde_json::to_string(value).expect("a string is JSON").len(), "{value:?}");
        }
    }
}
