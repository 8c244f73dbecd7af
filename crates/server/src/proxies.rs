//! Whose address a request comes from: the connection's, unless a proxy that the operator named says another one.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

/// Where proxies say for whom they ask.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Proxies that are believed when they say for whom they ask; none by default: then the header means nothing, for anybody can send it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

impl Network {
    fn parse(raw: &str) -> Option<Self> {
        let (address, bits) = raw.split_once('/').map_or((raw, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
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

impl TrustedProxies {
    /// Addresses and networks, separated by commas: `10.0.0.5,192.168.0.0/16`.
    pub fn parse(list: &str) -> Result<Self, String> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let parsed = names.map(|name| Network::parse(name).ok_or_else(|| format!("{name:?} is neither an address nor a network")));
        parsed.collect::<Result<_, _>>().map(Self)
    }

    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.has(address.to_canonical()))
    }

    /// The nearest address that no trusted proxy has: what lies beyond it was written by somebody unknown.
    pub(crate) fn address_of(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer.ip().to_canonical();
        let said: Vec<&str> =
            headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')).collect();
        for hop in said.into_iter().rev().map(str::trim) {
            if !self.trust(nearest) {
                break;
            }
            let Some(address) = hop.parse().ok().or_else(|| hop.parse().ok().map(|with_port: SocketAddr| with_port.ip())) else { break };
            nearest = address.to_canonical();
        }
        nearest
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(trusted: &str, peer: &str, said: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in said {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        TrustedProxies::parse(trusted).unwrap().address_of(format!("{peer}:1").parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_named_proxy_is_believed() {
        assert_eq!(address("", "10.0.0.5", &["1.2.3.4"]), "10.0.0.5");
        assert_eq!(address("10.0.0.6", "10.0.0.5", &["1.2.3.4"]), "10.0.0.5");
        assert_eq!(address("10.0.0.5", "10.0.0.5", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(address("10.0.0.0/8", "10.9.9.9", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(address("10.0.0.5", "10.0.0.5", &[]), "10.0.0.5");
    }

    #[test]
    fn what_a_client_wrote_itself_is_not_believed() {
        assert_eq!(address("10.0.0.5", "10.0.0.5", &["9.9.9.9, 1.2.3.4"]), "1.2.3.4", "the proxy added the last one");
        assert_eq!(address("10.0.0.0/8", "10.0.0.5", &["9.9.9.9", "1.2.3.4, 10.1.1.1"]), "1.2.3.4");
        assert_eq!(address("10.0.0.5", "10.0.0.5", &["1.2.3.4, unknown"]), "10.0.0.5");
    }

    #[test]
    fn networks_are_checked() {
        for wrong in ["10.0.0.0/33", "proxy.local", "10.0.0.5/", "::1/129"] {
            assert!(TrustedProxies::parse(wrong).is_err(), "{wrong}");
        }
        assert!(TrustedProxies::parse(" 10.0.0.0/0, ::1 ").unwrap().trust("8.8.8.8".parse().unwrap()));
    }
}
