//! TLS as it was asked for, checked: the certificate's files, the proxies in front, and that nothing listens in the clear for other machines.

use std::{net::SocketAddr, path::PathBuf};

use mstore_broker::Proxies;
use mstore_protocol::{Code, Profile};

use crate::{failure::Failure, settings::RawConfig};

/// How tokens are kept from those who listen on the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsWay {
    /// The certificate chain and its key.
    pub(crate) files: Option<(PathBuf, PathBuf)>,
    /// Proxies in front of this server that end TLS.
    pub(crate) proxies: Proxies,
}

impl TlsWay {
    pub(crate) fn check(raw: &RawConfig) -> Result<Self, Failure> {
        let files = match (raw.get("tls_cert"), raw.get("tls_key")) {
            ("", "") => None,
            ("", _) => return Err(raw.wrong("tls_key", "a key without a certificate; set tls_cert too")),
            (_, "") => return Err(raw.wrong("tls_cert", "a certificate without a key; set tls_key too")),
            (cert, key) => Some((PathBuf::from(cert), PathBuf::from(key))),
        };
        let proxies = Proxies::parse(raw.get("tls_proxy")).map_err(|why| raw.wrong("tls_proxy", why))?;
        Ok(Self { files, proxies })
    }

    /// Where MQTT is unless it is told: the ports that everybody knows, on loopback.
    pub(crate) fn default_mqtt_listen(&self) -> &'static str {
        if self.files.is_some() { "127.0.0.1:8883" } else { "127.0.0.1:1883" }
    }

    /// Refuses a listener that would take tokens from other machines in the clear.
    pub(crate) fn check_listener(&self, raw: &RawConfig, key: &'static str, addr: SocketAddr, profile: Profile) -> Result<(), Failure> {
        let is_private = self.files.is_some() || !self.proxies.is_empty() || addr.ip().to_canonical().is_loopback();
        match profile {
            Profile::Production if !is_private => {
                let code = Code::InsecureListener;
                let why = format!("other machines would send tokens to {addr} in the clear, which the production profile refuses ({code})");
                Err(raw.wrong(key, why).next(code.next_step()))
            }
            Profile::Production | Profile::Development => Ok(()),
        }
    }
}
