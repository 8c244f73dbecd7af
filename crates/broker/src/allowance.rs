//! Token buckets: how often each device or address may do something. Time is an argument; the memory is bounded.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mstore_protocol::Timestamp;

use crate::visitors::network;

/// Keys remembered; beyond it those whose bucket is full are forgotten, and if there are none, everything: an attacker with that many
/// addresses gets a few more tries, never more memory.
const KEYS_MAX: usize = 20_000;

/// How often something may be done: a burst, and one more every so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// One more is given back after this, milliseconds.
    pub refill_ms: u32,
}

/// A token bucket per key, kept as the time at which it would be full again.
#[derive(Debug)]
pub struct Allowance<K> {
    rate: Rate,
    full_at_ms: Mutex<HashMap<K, i64>>,
}

impl<K: Eq + Hash> Allowance<K> {
    /// Nobody has used any of it.
    pub fn new(rate: Rate) -> Self {
        Self { rate, full_at_ms: Mutex::default() }
    }

    /// Whether one may be taken; otherwise after how many seconds.
    pub fn check(&self, key: &K, now: Timestamp) -> Result<(), u32> {
        self.wait(self.lock().get(key).copied(), now)
    }

    /// Takes one if there is one; otherwise says after how many seconds.
    pub fn take(&self, key: K, now: Timestamp) -> Result<(), u32> {
        let mut full_at_ms = self.lock();
        self.wait(full_at_ms.get(&key).copied(), now)?;
        self.put(&mut full_at_ms, key, now);
        Ok(())
    }

    /// Takes one, whether there is one or not: it was done.
    pub fn count(&self, key: K, now: Timestamp) {
        self.put(&mut self.lock(), key, now);
    }

    fn wait(&self, full_at_ms: Option<i64>, now: Timestamp) -> Result<(), u32> {
        let room_ms = (i64::from(self.rate.burst) - 1) * i64::from(self.rate.refill_ms);
        let over_ms = full_at_ms.unwrap_or(0).saturating_sub(now.as_ms()) - room_ms;
        if over_ms <= 0 { Ok(()) } else { Err(u32::try_from(over_ms / 1_000 + 1).unwrap_or(u32::MAX)) }
    }

    fn put(&self, full_at_ms: &mut HashMap<K, i64>, key: K, now: Timestamp) {
        if full_at_ms.len() >= KEYS_MAX {
            full_at_ms.retain(|_, full_at_ms| *full_at_ms > now.as_ms());
            if full_at_ms.len() >= KEYS_MAX {
                full_at_ms.clear();
            }
        }
        let full_at_ms = full_at_ms.entry(key).or_insert(0);
        *full_at_ms = (*full_at_ms).max(now.as_ms()) + i64::from(self.rate.refill_ms);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, i64>> {
        self.full_at_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of an address: all that one customer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(network(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, refill_ms: 3_000 };

    #[test]
    fn gives_tries_back_with_time_and_tells_keys_apart() {
        let limit = Allowance::new(RATE);
        let start = Timestamp::from_ms(1_000_000);
        for _ in 0..3 {
            assert_eq!(limit.take("a", start), Ok(()));
        }
        assert_eq!(limit.take("a", start), Err(4));
        assert_eq!(limit.check(&"b", start), Ok(()));
        assert_eq!(limit.take("a", start.plus_ms(3_000)), Ok(()));
        assert!(limit.take("a", start.plus_ms(3_000)).is_err());
        limit.count("a", start.plus_ms(3_000));
        assert!(limit.check(&"a", start.plus_ms(6_000)).is_err(), "what was done all the same counts too");
        assert_eq!(limit.check(&"a", start.plus_ms(9_000)), Ok(()));
    }

    #[test]
    fn the_table_is_bounded_whoever_fills_it() {
        let limit = Allowance::new(RATE);
        let start = Timestamp::from_ms(1_000_000);
        for key in 0..3 * KEYS_MAX {
            limit.count(key, start);
        }
        assert!(limit.lock().len() <= KEYS_MAX);
    }
}
