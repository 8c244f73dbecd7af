//! Where a token may travel: over TLS, on loopback, or wherever the development profile says that nobody listens.

use std::{fmt, net::IpAddr, str::FromStr};

/// What a deployment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Real shops: tokens leave the machine over TLS only.
    #[default]
    Production,
    /// A trusted network of one's own: tokens may cross it in the clear.
    Development,
}

/// Not the name of a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither production nor development")]
pub struct ProfileError(String);

impl Profile {
    /// `production` or `development`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "development",
        }
    }

    /// Whether a token may be sent over a connection to this URL.
    pub fn allows(self, url: &str) -> bool {
        match self {
            Self::Production => is_private(url),
            Self::Development => true,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(raw: &str) -> Result<Self, ProfileError> {
        match raw {
            "production" => Ok(Self::Production),
            "development" => Ok(Self::Development),
            other => Err(ProfileError(other.chars().take(32).collect())),
        }
    }
}

/// Whether nobody between the two ends can read along: TLS, or loopback. What is not surely one of the two is neither.
fn is_private(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    if ["https", "mqtts", "ssl", "wss"].iter().any(|tls| scheme.eq_ignore_ascii_case(tls)) {
        return true;
    }
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let is_mqtt = ["mqtt", "tcp"].iter().any(|mqtt| scheme.eq_ignore_ascii_case(mqtt));
    // The nodes of a broker's cluster; no other URL has commas there.
    if is_mqtt { authority.split(',').all(|node| is_loopback(host_of(node))) } else { is_loopback(host_of(authority)) }
}

/// The host without its port, `[::1]` without its brackets; nothing when there is more to it, such as a user's name.
fn host_of(authority: &str) -> &str {
    let (host, rest) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some(bracketed) => bracketed,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    if is_port { host } else { "" }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn in_production_a_token_leaves_the_machine_over_tls_only() {
        let private = [
            "https://sync.example.com",
            "HTTPS://10.0.0.1/v1",
            "mqtts://10.0.0.1:8883",
            "wss://sync.example.com/mqtt",
            "http://127.0.0.1:8080",
            "http://localhost",
            "mqtt://LOCALHOST:1883",
            "mqtt://127.8.9.1",
            "mqtt://127.0.0.1:1883,localhost,[::1]:1885",
            "mqtts://one,two:8883",
            "ws://[::1]:8083/mqtt",
            "http://[::ffff:127.0.0.1]:80/",
        ];
        for url in private {
            assert!(Profile::Production.allows(url), "{url}");
        }
        let open = [
            "http://10.0.0.7:8080",
            "mqtt://shop.local:1883",
            "mqtt://127.0.0.1,shop.local",
            "mqtt://127.0.0.1,",
            "http://127.0.0.1,localhost",
            "tcp://0.0.0.0:1883",
            "ws://[::]:8083/mqtt",
            "http://127.0.0.1@evil.example",
            "http://localhost:80@evil.example/",
            "http://[::1]@evil.example",
            "http://[::1].evil.example",
            "mqtt://[::1]:1883:evil.example",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "http://evil.example/127.0.0.1",
            "http://evil.example#127.0.0.1",
            "http://evil.example\\@127.0.0.1",
            "http:///evil.example",
            "http://127.0.0.1\t.evil.example",
            " https://evil.example",
            "127.0.0.1:8080",
            "",
        ];
        for url in open {
            assert!(!Profile::Production.allows(url), "{url}");
            assert!(Profile::Development.allows(url), "{url}");
        }
    }

    #[test]
    fn is_written_as_it_is_read() {
        for profile in [Profile::Production, Profile::Development] {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert!("prod".parse::<Profile>().unwrap_err().to_string().contains("development"));
        assert_eq!(Profile::default(), Profile::Production);
    }
}
