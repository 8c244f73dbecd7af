//! Where the next slice of a sweep begins, and what was found of the branch before it.

use std::fmt;

/// `{head}.{flags}.{collection}.{last id in hex}`: opaque to whoever hands it back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) head: i64,
    pub(crate) collection: String,
    /// The last id compared; bytes, for it may not be text.
    pub(crate) after: Vec<u8>,
    /// Something of this branch differed.
    pub(crate) has_differences: bool,
    /// Some id of this branch is not text.
    pub(crate) has_nameless: bool,
}

impl Position {
    pub(crate) fn parse(raw: &str) -> Option<Self> {
        let mut parts = raw.splitn(4, '.');
        let head = parts.next()?.parse().ok()?;
        let flags = parts.next()?;
        let collection = parts.next()?.to_owned();
        let hex = parts.next()?;
        let byte = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let after = (0..hex.len()).step_by(2).map(byte).collect::<Option<_>>()?;
        Some(Self { head, collection, after, has_differences: flags.contains('d'), has_nameless: flags.contains('n') })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |is_set: bool, name: &'static str| if is_set { name } else { "" };
        write!(f, "{}.{}{}.{}.", self.head, flag(self.has_differences, "d"), flag(self.has_nameless, "n"), self.collection)?;
        self.after.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_says_what_it_was_told_whatever_the_id() {
        for after in [&b""[..], b"a.b|c", b"\xff\xfe\x00"] {
            let at = Position {
                head: 7,
                collection: "product".into(),
                after: after.into(),
                has_differences: true,
                has_nameless: after.is_empty(),
            };
            assert_eq!(Position::parse(&at.to_string()), Some(at));
        }
        assert_eq!(Position::parse("7|product|x"), None);
    }
}
