//! The text in a claim's QR code: where the server is and the code, in one string that a till's camera can read.
//!
//! `mstore://claim?server=https%3A%2F%2Fsync.example.com&code=01AB-CDEF-GHJK`: both values percent-encoded (RFC 3986 §2.1), in any order; other parameters
//! are for later and are passed over. It is as secret as the code in it.

use std::fmt;

const BEGINNING: &str = "mstore://claim?";
/// Longest text that is read: some 300 bytes are enough for any server.
const LINK_BYTES_MAX: usize = 2_048;

/// A claim as a QR code holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimLink {
    /// `https://sync.example.com`.
    pub server: String,
    /// The one-time claim code.
    pub code: String,
}

impl ClaimLink {
    /// Reads what a camera gave; `None` for anything else, such as the code alone.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX || !text.get(..BEGINNING.len())?.eq_ignore_ascii_case(BEGINNING) {
            return None;
        }
        let value = |wanted: &str| {
            let mut pairs = text[BEGINNING.len()..].split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| decoded(value)).filter(|value| !value.is_empty())
        };
        let server = value("server").filter(|server| server.starts_with("https://") || server.starts_with("http://"))?;
        Some(Self { server, code: value("code")? })
    }
}

/// The text itself.
impl fmt::Display for ClaimLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(BEGINNING)?;
        f.write_str("server=")?;
        encode(&self.server, f)?;
        f.write_str("&code=")?;
        encode(&self.code, f)
    }
}

impl fmt::Debug for ClaimLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClaimLink({}, code …)", self.server)
    }
}

fn encode(raw: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    raw.bytes().try_for_each(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => write!(f, "{}", char::from(byte)),
        _other => write!(f, "%{byte:02X}"),
    })
}

fn decoded(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        let is_escape = byte == b'%';
        let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(if is_escape { digit()? * 16 + digit()? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let link = ClaimLink { server: "https://sync.example.com:8443/a b".into(), code: "01AB-CDEF-GHJK".into() };
        let text = link.to_string();
        assert_eq!(text, "mstore://claim?server=https%3A%2F%2Fsync.example.com%3A8443%2Fa%20b&code=01AB-CDEF-GHJK");
        assert_eq!(ClaimLink::parse(&text), Some(link.clone()));
        assert_eq!(
            ClaimLink::parse(" MSTORE://claim?v=2&code=x&server=http://h&more "),
            Some(ClaimLink { server: "http://h".into(), code: "x".into() })
        );
        assert_eq!(format!("{link:?}"), "ClaimLink(https://sync.example.com:8443/a b, code …)");
    }

    #[test]
    fn anything_else_is_no_claim() {
        for other in [
            "01AB-CDEF-GHJK",
            "",
            "mstore://claim?server=https%3A%2F%2Fh",
            "mstore://claim?server=&code=x",
            "mstore://claim?server=ftp%3A%2F%2Fh&code=x",
            "mstore://claim?server=https%3A%2F%2Fh&code=%4",
            "mstore://claim?server=https%3A%2F%2Fh&code=%FF",
            "https://example.com/claim?server=https%3A%2F%2Fh&code=x",
            "mstore://ćlaim?server=https://h&code=x",
        ] {
            assert_eq!(ClaimLink::parse(other), None, "{other}");
        }
        assert_eq!(ClaimLink::parse(&format!("mstore://claim?server=https://h&code={}", "x".repeat(3_000))), None);
    }
}
