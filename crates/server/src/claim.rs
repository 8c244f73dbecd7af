//! Claim codes: what a person types into a new till, once, within 15 minutes.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LETTERS: usize = 12;

/// A claim code of 60 random bits, written `XXXX-XXXX-XXXX`; stored only as its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimCode([u8; LETTERS]);

impl ClaimCode {
    /// A new one from the system's random numbers.
    pub fn generate() -> Self {
        Self(rand::random::<[u8; LETTERS]>().map(|byte| ALPHABET[usize::from(byte & 31)]))
    }

    /// Reads what a person typed: any case, any grouping, `O` for 0 and `I` or `L` for 1.
    pub fn parse(typed: &str) -> Option<Self> {
        let letters = typed.chars().filter(|c| !matches!(c, '-' | ' ')).map(letter).collect::<Option<Vec<u8>>>()?;
        letters.try_into().ok().map(Self)
    }

    /// What the registry keeps.
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// The code itself, grouped for reading.
    pub fn reveal(&self) -> String {
        let groups: Vec<&str> = self.0.chunks(4).map(|group| std::str::from_utf8(group).expect("the alphabet is ASCII")).collect();
        groups.join("-")
    }
}

fn letter(typed: char) -> Option<u8> {
    let upper = u8::try_from(typed).ok()?.to_ascii_uppercase();
    let read = match upper {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    ALPHABET.contains(&read).then_some(read)
}

impl fmt::Debug for ClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimCode(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn is_read_as_people_type_it() {
        let code = ClaimCode::parse("01AB-CDEF-GHJK").unwrap();
        for typed in ["01ab cdef ghjk", "OIABCDEFGHJK", "olab-cdefghj-k"] {
            assert_eq!(ClaimCode::parse(typed).unwrap().hash(), code.hash(), "{typed}");
        }
        for bad in ["", "01AB-CDEF-GHJ", "01AB-CDEF-GHJK-0", "01AB-CDEF-GHJU", "01AB-CDEF-GHJä"] {
            assert!(ClaimCode::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(code.reveal(), "01AB-CDEF-GHJK");
        let fresh = ClaimCode::generate();
        assert_eq!(ClaimCode::parse(&fresh.reveal()), Some(fresh));
    }
}
