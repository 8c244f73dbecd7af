//! Wrong claim codes per address: guessing is slowed down, a hundred right ones in a row are not.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use mstore_protocol::{Code, Timestamp};

use super::problem::Refusal;

/// One more try is given back after this.
const REFILL_MS: i64 = 3_000;
/// Addresses remembered; beyond it those that could start afresh are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// A token bucket per address, kept as the time at which it would be full again.
pub(crate) struct WrongClaims {
    burst: i64,
    full_at_ms: Mutex<HashMap<IpAddr, i64>>,
}

impl WrongClaims {
    pub(crate) fn new(burst: u32) -> Self {
        Self { burst: i64::from(burst), full_at_ms: Mutex::default() }
    }

    /// Whether the address may try.
    pub(crate) fn check(&self, address: IpAddr, now: Timestamp) -> Result<(), Refusal> {
        let full_at = self.lock().get(&address).copied().unwrap_or(0);
        let over_ms = full_at.saturating_sub(now.as_ms()) - (self.burst - 1) * REFILL_MS;
        if over_ms <= 0 {
            return Ok(());
        }
        let wait_s = u32::try_from(over_ms / 1_000 + 1).unwrap_or(u32::MAX);
        Err(Refusal::new(Code::RateLimited, "too many wrong claim codes from this address").retry_after_s(wait_s))
    }

    /// A wrong code.
    pub(crate) fn count(&self, address: IpAddr, now: Timestamp) {
        let mut addresses = self.lock();
        if addresses.len() >= ADDRESSES_MAX {
            addresses.retain(|_, full_at| *full_at > now.as_ms());
        }
        let full_at = addresses.entry(address).or_insert(0);
        *full_at = (*full_at).max(now.as_ms()) + REFILL_MS;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, i64>> {
        self.full_at_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn gives_tries_back_with_time_and_tells_addresses_apart() {
        let limit = WrongClaims::new(3);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let start = Timestamp::from_ms(1_000_000);
        for _ in 0..3 {
            assert!(limit.check(a, start).is_ok());
            limit.count(a, start);
        }
        assert_eq!(limit.check(a, start).unwrap_err().code(), Code::RateLimited);
        assert!(limit.check(b, start).is_ok());
        assert!(limit.check(a, start.plus_ms(REFILL_MS)).is_ok());
        limit.count(a, start.plus_ms(REFILL_MS));
        assert!(limit.check(a, start.plus_ms(REFILL_MS)).is_err());
    }
}
