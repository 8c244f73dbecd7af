//! Proxies in front that an operator named: what they say about a client's address counts, and they are not one client.

use std::net::IpAddr;

/// Addresses and networks of proxies; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

impl Network {
    fn parse(raw: &str) -> Option<Self> {
        let (address, bits) = raw.split_once('/').map_or((raw, None), |(address, bits)| (address, Some(bits)));
        let address = address.parse::<IpAddr>().ok()?.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
        Some(Self { address, prefix_bits })
    }

    fn has(&self, other: IpAddr) -> bool {
        let differing = match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        differing >= self.prefix_bits
    }
}

impl Proxies {
    /// Addresses and networks, separated by commas: `10.0.0.5,192.168.0.0/16`.
    pub fn parse(list: &str) -> Result<Self, String> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let parsed = names.map(|name| Network::parse(name).ok_or_else(|| format!("{name:?} is neither an address nor a network")));
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Whether this is one of them; the IPv4 address in an IPv6 one counts as itself.
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.0.iter().any(|network| network.has(address.to_canonical()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn networks_are_checked() {
        for wrong in ["10.0.0.0/33", "proxy.local", "10.0.0.5/", "::1/129"] {
            assert!(Proxies::parse(wrong).is_err(), "{wrong}");
        }
        let contains = |list: &str, address: &str| Proxies::parse(list).unwrap().contains(&address.parse().unwrap());
        assert!(contains(" 10.0.0.0/0, ::1 ", "8.8.8.8") && contains("10.0.0.0/8", "10.9.9.9") && contains("10.0.0.5", "::ffff:10.0.0.5"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1") && !contains("", "10.0.0.1"));
    }
}
