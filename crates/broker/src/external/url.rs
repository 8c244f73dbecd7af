//! Where an external broker is: one address, or the nodes of a cluster, any of which will do.

use std::{fmt, net::IpAddr, str::FromStr};

/// Where a broker is: `mqtt://host[:1883]` or `mqtts://host[:8883]`; the nodes of a cluster with commas between them, as in `mqtt://one,two,three:2883`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// At least one.
    nodes: Vec<BrokerNode>,
    /// Whether TLS is spoken.
    pub tls: bool,
}

/// One address of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerNode {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Why a text is not a broker's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    /// Another scheme, or none.
    #[error("a broker's URL begins with mqtt:// or mqtts://")]
    Scheme,
    /// User name or password in it: it would show in process lists and logs.
    #[error("a broker's URL holds no user name and no password; set broker_username and broker_password_file")]
    Credentials,
    /// No host, or something behind it.
    #[error("a broker's URL is mqtt://HOST or mqtt://HOST:PORT, or mqtt://HOST,HOST,HOST for a cluster, with nothing behind it")]
    Host,
    /// The port is none.
    #[error("the port of a broker's URL is a number from 1 to 65535")]
    Port,
}

impl BrokerUrl {
    /// The node whose turn it is: the first, the second, … and the first again after the last.
    pub fn node(&self, turn: usize) -> &BrokerNode {
        &self.nodes[turn % self.nodes.len()]
    }

    /// Whether there are several nodes.
    pub fn is_cluster(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Whether what is sent there may be read on the way: neither TLS nor this machine.
    pub(super) fn is_in_the_clear(&self) -> bool {
        !self.tls && !self.nodes.iter().all(BrokerNode::is_here)
    }
}

impl BrokerNode {
    fn parse(raw: &str, default_port: u16) -> Result<Self, BrokerUrlError> {
        // `[::1]:1883`: the colons of an IPv6 address stand in brackets.
        let (host, port) = match raw.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok().filter(|port| *port > 0).ok_or(BrokerUrlError::Port)?),
            Some(_) | None => (raw, default_port),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
        if bare.is_empty() || !bare.bytes().all(fits) || (bare.contains(':') && bare == host) {
            return Err(BrokerUrlError::Host);
        }
        Ok(Self { host: bare.to_owned(), port })
    }

    fn is_here(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|addr| addr.is_loopback())
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(raw: &str) -> Result<Self, BrokerUrlError> {
        let (scheme, rest) = raw.split_once("://").ok_or(BrokerUrlError::Scheme)?;
        let (tls, default_port) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err(BrokerUrlError::Scheme),
        };
        if rest.contains('@') {
            return Err(BrokerUrlError::Credentials);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let nodes = rest.split(',').map(|node| BrokerNode::parse(node, default_port)).collect::<Result<_, _>>()?;
        Ok(Self { nodes, tls })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "mqtts://" } else { "mqtt://" })?;
        for (n, node) in self.nodes.iter().enumerate() {
            write!(f, "{}{node}", if n > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for BrokerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = if self.host.contains(':') { ["[", "]"] } else { ["", ""] };
        write!(f, "{}{}{}:{}", brackets[0], self.host, brackets[1], self.port)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls() {
        for (raw, shown) in [
            ("mqtt://127.0.0.1:2883", "mqtt://127.0.0.1:2883"),
            ("mqtts://broker.example", "mqtts://broker.example:8883"),
            ("mqtt://[::1]/", "mqtt://[::1]:1883"),
            ("mqtts://one,two:2883,[::1]", "mqtts://one:8883,two:2883,[::1]:8883"),
        ] {
            assert_eq!(raw.parse::<BrokerUrl>().unwrap().to_string(), shown);
        }
        for (raw, error) in [
            ("broker.example", BrokerUrlError::Scheme),
            ("http://broker.example", BrokerUrlError::Scheme),
            ("mqtt://me:secret@broker.example", BrokerUrlError::Credentials),
            ("mqtt://one,me:secret@two", BrokerUrlError::Credentials),
            ("mqtt://", BrokerUrlError::Host),
            ("mqtt://one,", BrokerUrlError::Host),
            ("mqtt://one,mqtt://two", BrokerUrlError::Port),
            ("mqtt://broker.example/env", BrokerUrlError::Host),
            ("mqtt://::1", BrokerUrlError::Host),
            ("mqtt://broker.example:0", BrokerUrlError::Port),
            ("mqtt://broker.example:mqtt", BrokerUrlError::Port),
        ] {
            assert_eq!(raw.parse::<BrokerUrl>().unwrap_err(), error, "{raw}");
        }
    }

    #[test]
    fn every_node_has_its_turn() {
        let url: BrokerUrl = "mqtt://one,two".parse().unwrap();
        assert_eq!([0, 1, 2, usize::MAX].map(|turn| url.node(turn).host.as_str()), ["one", "two", "one", "two"]);
    }

    #[test]
    fn a_password_crosses_in_the_clear_only_where_it_says_so() {
        for (url, in_the_clear) in [
            ("mqtt://127.0.0.1", false),
            ("mqtt://[::1]", false),
            ("mqtt://localhost,127.0.0.2", false),
            ("mqtts://b", false),
            ("mqtt://b", true),
            ("mqtt://localhost,b", true),
        ] {
            assert_eq!(url.parse::<BrokerUrl>().unwrap().is_in_the_clear(), in_the_clear, "{url}");
        }
    }
}
