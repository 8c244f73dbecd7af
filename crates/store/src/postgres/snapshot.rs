//! PostgreSQL's snapshots: which transactions a round has seen the end of.

use mstore_protocol::BranchKey;
use sha2::{Digest as _, Sha256};

/// Branches are sequenced by shard.
pub(super) const SHARDS: u8 = 64;

/// The shard of a branch, as `mstore.shard_of` has it.
pub(super) fn shard_of(key: &BranchKey) -> u8 {
    let hash = Sha256::digest(format!("{}/{}", key.merchant, key.branch));
    hash[0] % SHARDS
}

/// Some of the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shards(pub(super) u64);

impl Shards {
    /// Whether a branch belongs to them.
    pub(super) fn have(self, key: &BranchKey) -> bool {
        self.contains(shard_of(key))
    }

    /// Whether a shard is one of them.
    pub(super) fn contains(self, shard: u8) -> bool {
        self.0 >> shard & 1 == 1
    }

    /// With one more.
    pub(super) fn with(self, shard: u8) -> Self {
        Self(self.0 | 1 << shard)
    }

    /// How many.
    pub(super) fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Their numbers.
    pub(super) fn numbers(self) -> Vec<i64> {
        (0..SHARDS).filter(|shard| self.contains(*shard)).map(i64::from).collect()
    }
}

/// What `pg_current_snapshot()` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// As PostgreSQL writes it.
    pub(super) text: String,
    /// Transactions from here on had not begun.
    pub(super) end: u64,
    /// Those below that had not ended.
    pub(super) running: Vec<u64>,
}

impl Snapshot {
    /// `xmin:xmax:running,running`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (_begin, end, running) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let running = running.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().ok()).collect::<Option<_>>()?;
        Some(Self { text: text.to_owned(), end, running })
    }

    /// Whether it shows what a committed transaction did.
    pub(super) fn sees(&self, xid: u64) -> bool {
        xid < self.end && !self.running.contains(&xid)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_snapshot_sees_what_had_ended() {
        let snapshot = Snapshot::parse("10:20:10,15").unwrap();
        let seen: Vec<u64> = (8..22).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 14, 16, 17, 18, 19]);
        assert!(Snapshot::parse("1:1:").unwrap().running.is_empty());
        assert_eq!(Snapshot::parse("nonsense"), None);
    }

    #[test]
    fn shards_are_counted_and_named() {
        let some = Shards::default().with(0).with(63).with(0);
        assert_eq!((some.count(), some.numbers()), (2, vec![0, 63]));
        assert!(some.contains(63) && !some.contains(1));
    }
}
