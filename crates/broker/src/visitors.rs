//! How many connections are open, overall and from each address, and whether one more may come.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The open connections of some listeners.
#[derive(Debug)]
pub struct Visitors {
    all_max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// As large as the number of open connections, not of addresses ever seen.
    per_address: HashMap<IpAddr, usize>,
    refused: u64,
}

/// An open connection; dropped when it is closed.
#[derive(Debug)]
pub struct Visit {
    visitors: Arc<Visitors>,
    /// Nothing for one that is not counted per address.
    network: Option<IpAddr>,
}

impl Visitors {
    /// At most so many connections, and so many from one address (of IPv6: from one /64, which is what one customer gets).
    pub fn new(all_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { all_max, per_address_max, open: Mutex::default() })
    }

    /// Lets one more in, or refuses it and counts that. A `crowd` is an address that many share, such as a proxy's: only the overall bound counts.
    pub fn enter(self: &Arc<Self>, address: IpAddr, is_crowd: bool) -> Option<Visit> {
        let network = (!is_crowd).then(|| network(address));
        let mut open = self.lock();
        let here = network.map_or(0, |network| open.per_address.get(&network).copied().unwrap_or(0));
        if open.all >= self.all_max || here >= self.per_address_max {
            open.refused += 1;
            return None;
        }
        open.all += 1;
        if let Some(network) = network {
            open.per_address.insert(network, here + 1);
        }
        Some(Visit { visitors: self.clone(), network })
    }

    /// Open now.
    pub fn open(&self) -> usize {
        self.lock().all
    }

    /// Refused since the start.
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut open = self.visitors.lock();
        open.all -= 1;
        let Some(network) = self.network else { return };
        let left = open.per_address.get(&network).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            open.per_address.remove(&network);
        } else {
            open.per_address.insert(network, left);
        }
    }
}

/// What one customer has: an IPv4 address, or an IPv6 network of 64 bits.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_address_does_not_take_the_place_of_all() {
        let visitors = Visitors::new(4, 2);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = visitors.enter(a, false).unwrap();
        let _second = visitors.enter(a, false).unwrap();
        assert!(visitors.enter(a, false).is_none());
        let _other = visitors.enter(b, false).unwrap();
        drop(first);
        let _again = visitors.enter(a, false).unwrap();
        let _crowd = visitors.enter(a, true).unwrap();
        assert!(visitors.enter(b, false).is_none(), "the house is full");
        assert_eq!((visitors.open(), visitors.refused()), (4, 2));
    }

    #[test]
    fn nothing_is_remembered_of_who_left() {
        let visitors = Visitors::new(10, 10);
        for n in 0..1_000_u32 {
            drop(visitors.enter(IpAddr::V4(n.into()), false).unwrap());
        }
        assert!(visitors.lock().per_address.is_empty() && visitors.open() == 0);
    }

    #[test]
    fn a_customer_s_ipv6_addresses_are_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
