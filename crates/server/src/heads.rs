//! When which branch's head is due: at most one a second after changes, and one a minute in silence. Time is an argument.

use std::{collections::BTreeMap, time::Duration};

use mstore_protocol::BranchKey;
use tokio::time::Instant;

/// The schedule of all branches' heads.
pub(crate) struct HeadSchedule {
    after_change: Duration,
    interval: Duration,
    due: BTreeMap<BranchKey, Instant>,
}

impl HeadSchedule {
    pub(crate) fn new(after_change: Duration, interval: Duration) -> Self {
        Self { after_change, interval, due: BTreeMap::new() }
    }

    /// A branch changed: its head follows soon. Later changes do not put it off.
    pub(crate) fn changed(&mut self, key: &BranchKey, now: Instant) {
        let soon = now + self.after_change;
        match self.due.get_mut(key) {
            Some(due) => *due = soon.min(*due),
            None => drop(self.due.insert(key.clone(), soon)),
        }
    }

    /// A branch's head was sent.
    pub(crate) fn sent(&mut self, key: &BranchKey, now: Instant) {
        self.due.insert(key.clone(), now + self.interval);
    }

    /// A branch that may be new; a known one keeps its time.
    pub(crate) fn known(&mut self, key: BranchKey, now: Instant) {
        self.due.entry(key).or_insert(now);
    }

    /// Somebody else sends a branch's head now.
    pub(crate) fn forget(&mut self, key: &BranchKey) {
        self.due.remove(key);
    }

    /// Retained heads are gone: all are due.
    pub(crate) fn all_due(&mut self, now: Instant) {
        self.due.values_mut().for_each(|due| *due = now);
    }

    /// The branches whose heads are due.
    pub(crate) fn due(&self, now: Instant) -> Vec<BranchKey> {
        self.due.iter().filter(|(_, due)| **due <= now).map(|(key, _)| key.clone()).collect()
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_burst_gives_one_head_a_second_and_silence_one_a_minute() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let key = BranchKey::parse("m", "b").unwrap();
        let mut heads = HeadSchedule::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut sent = Vec::new();
        for ms in (0..130_000).step_by(10) {
            if ms < 2_500 {
                heads.changed(&key, at(ms));
            }
            for key in heads.due(at(ms)) {
                heads.sent(&key, at(ms));
                sent.push(ms);
            }
        }
        assert_eq!(sent, [1_000, 2_010, 3_020, 63_020, 123_020], "the trailing change has its head too");
    }

    #[test]
    fn after_a_broker_restart_all_are_due() {
        let now = Instant::now();
        let mut heads = HeadSchedule::new(Duration::from_secs(1), Duration::from_secs(60));
        let keys: Vec<_> = ["a", "b"].iter().map(|b| BranchKey::parse("m", b).unwrap()).collect();
        keys.iter().for_each(|key| heads.sent(key, now));
        assert!(heads.due(now).is_empty());
        heads.all_due(now);
        assert_eq!(heads.due(now), keys);
    }
}
