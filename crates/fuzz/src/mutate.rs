//! Small damage to an input, drawn from a seed: enough of it, and of the kinds that parsers trip over.

/// A source of damaged inputs; the same seed gives the same ones.
#[derive(Debug, Clone)]
pub struct Mutator(u64);

/// What tends to be read wrongly.
const TOKENS: &[&str] = &[
    "0",
    "-",
    "-0",
    "+",
    "1",
    "9007199254740992",
    "18446744073709551616",
    "-9223372036854775808",
    "1e3",
    ".5",
    "null",
    "true",
    "{}",
    "[]",
    "[[[[[[[[[[[[[[[[[[",
    "\"\"",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\u{0}",
    "\u{7f}",
    "\u{1b}",
    "ä",
    "\u{fb33}",
    "😀",
    "\u{202e}",
    "\n",
    "\r\n",
    " ",
    "\t",
    ",",
    ":",
    "/",
    ".",
    "#",
    "admin",
    "id",
    "\"id\":\"x\",",
    "\"seq\":0,",
    "..",
    "2026-02-30",
    "T24:00:00.000Z",
    "IDR",
];

/// Inputs do not grow beyond this, so that a run takes seconds.
const GROWN_BYTES_MAX: usize = 4_096;

impl Mutator {
    /// A source for this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound` (SplitMix64, Steele et al. 2014); 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let throw = z ^ (z >> 31);
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(throw % bound).unwrap_or(0)
    }

    /// One to four kinds of damage to `input`; `other` is an input to take pieces from.
    pub fn damage(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut out = input.to_vec();
        for _ in 0..=self.below(4) {
            self.once(&mut out, other);
        }
        out
    }

    fn once(&mut self, out: &mut Vec<u8>, other: &[u8]) {
        let (from, to) = self.range(out.len());
        match self.below(8) {
            0 => {
                if let Some(byte) = out.get_mut(from) {
                    *byte ^= 1 << self.below(8);
                }
            }
            1 => drop(out.drain(from..to)),
            2 => {
                let token = TOKENS[self.below(TOKENS.len())];
                out.splice(from..from, token.bytes());
            }
            3 => {
                let token = TOKENS[self.below(TOKENS.len())];
                out.splice(from..to, token.bytes());
            }
            4 if out.len() < GROWN_BYTES_MAX => {
                let piece = out[from..to].to_vec();
                out.splice(to..to, piece);
            }
            5 => {
                let (start, end) = self.range(other.len());
                out.splice(from..to, other[start..end].iter().copied());
            }
            6 => self.number(out, from),
            _ => out.truncate(to),
        }
    }

    /// Changes the next digit, or the sign before it.
    fn number(&mut self, out: &mut Vec<u8>, from: usize) {
        let Some(at) = out.iter().skip(from).position(u8::is_ascii_digit).map(|distance| from + distance) else { return };
        match self.below(4) {
            0 => out.insert(at, b'0'),
            1 => out.insert(at, b'-'),
            2 => out.insert(at, b'+'),
            _ => out[at] = b'0' + u8::try_from(self.below(10)).unwrap_or(0),
        }
    }

    fn range(&mut self, length: usize) -> (usize, usize) {
        let from = self.below(length + 1);
        let most = [1, 4, 16, length][self.below(4)];
        (from, (from + self.below(most + 1)).min(length))
    }
}
