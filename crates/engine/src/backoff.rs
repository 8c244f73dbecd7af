//! Waiting longer each time, at random: full jitter, so that a crowd never comes back at once.

/// A small seeded generator (SplitMix64, Steele et al. 2014): all the randomness a session has.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..=max`.
    pub(crate) fn up_to(&mut self, max: u64) -> u64 {
        let throw = self.next();
        max.checked_add(1).map_or(throw, |n| throw % n)
    }
}

/// How long to wait after failures in a row.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base_ms: u64,
    cap_ms: u64,
    failures: u32,
}

/// No answer puts a device to sleep for longer than this, whatever it asks for: that would be a silent staleness.
const ASKED_MAX_MS: u64 = 3_600_000;

/// How long to wait when the server asked for patience.
pub(crate) fn patience(asked_ms: u64) -> u64 {
    asked_ms.min(ASKED_MAX_MS)
}

/// Even the luckiest throw waits this long, so that a dead peer costs no busy loop.
const FLOOR_MS: u64 = 20;

impl Backoff {
    pub(crate) fn new(base_ms: u64, cap_ms: u64) -> Self {
        Self { base_ms, cap_ms, failures: 0 }
    }

    /// After one more failure: a random time up to `base × 2^failures`, at most the cap; at least what the server asked for, within reason.
    pub(crate) fn next_ms(&mut self, dice: &mut Dice, asked_ms: Option<u64>) -> u64 {
        let ceiling = self.base_ms.saturating_mul(1 << self.failures.min(20)).min(self.cap_ms);
        self.failures = self.failures.saturating_add(1);
        let own = FLOOR_MS + dice.up_to(ceiling);
        asked_ms.map(patience).map_or(own, |asked| (asked + dice.up_to(asked / 4)).max(own))
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_spreads() {
        let (mut dice, mut backoff) = (Dice::new(7), Backoff::new(100, 5_000));
        let waits: Vec<u64> = (0..40).map(|_| backoff.next_ms(&mut dice, None)).collect();
        assert!(waits.iter().all(|w| (FLOOR_MS..=FLOOR_MS + 5_000).contains(w)));
        assert!(waits[0] <= 120 && waits[10..].iter().any(|w| *w > 2_000) && waits[10..].iter().any(|w| *w < 2_000));
    }

    #[test]
    fn never_comes_before_the_server_allows() {
        let (mut dice, mut backoff) = (Dice::new(7), Backoff::new(100, 5_000));
        assert!((0..20).all(|_| backoff.next_ms(&mut dice, Some(9_000)) >= 9_000));
    }

    #[test]
    fn an_absurd_request_for_patience_is_not_granted() {
        let (mut dice, mut backoff) = (Dice::new(7), Backoff::new(100, 5_000));
        assert!((0..20).all(|_| backoff.next_ms(&mut dice, Some(u64::MAX)) <= ASKED_MAX_MS * 5 / 4));
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let throws = |seed| (0..10).map(|_| Dice::new(seed).up_to(1000)).collect::<Vec<_>>();
        assert_eq!(throws(1), throws(1));
        assert_ne!(throws(1), throws(2));
    }
}
