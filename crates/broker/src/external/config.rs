//! Settings of the way to an external broker: where it is, who we are there, whom to trust, how long to wait.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use mstore_protocol::Env;

use super::url::BrokerUrl;

/// An account on the broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: Bytes,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, …)", self.username)
    }
}

/// Whom to trust and what to show when TLS is spoken, read from PEM files.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may have signed the broker's certificate; the system's if none are given.
    pub(super) authorities: Option<Vec<u8>>,
    /// Our own certificate chain and its key.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why the files are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// It is no PEM file of this kind.
    #[error("{} holds no {wanted} in PEM form", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// A certificate of our own needs the authorities named.
    #[error("a certificate of our own needs the file of the authorities too, such as /etc/ssl/certs/ca-certificates.crt")]
    IdentityWithoutAuthorities,
}

impl TlsFiles {
    /// Reads the files: authorities, and our own certificate chain with its key.
    pub fn read(authorities: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Self, TlsFilesError> {
        if identity.is_some() && authorities.is_none() {
            return Err(TlsFilesError::IdentityWithoutAuthorities);
        }
        let certificate = |path| pem(path, "certificate", b"-----BEGIN CERTIFICATE-----");
        let key = |path| pem(path, "private key", b"PRIVATE KEY-----");
        Ok(Self {
            authorities: authorities.map(certificate).transpose()?,
            identity: identity.map(|(chain, secret)| Ok::<_, TlsFilesError>((certificate(chain)?, key(secret)?))).transpose()?,
        })
    }
}

fn pem(path: &Path, wanted: &'static str, label: &[u8]) -> Result<Vec<u8>, TlsFilesError> {
    let bytes = std::fs::read(path).map_err(|source| TlsFilesError::Unreadable { path: path.to_owned(), source })?;
    let is_there = bytes.windows(label.len()).any(|window| window == label);
    if is_there { Ok(bytes) } else { Err(TlsFilesError::NotPem { path: path.to_owned(), wanted }) }
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, identity) = (self.authorities.is_some(), self.identity.is_some());
        write!(f, "TlsFiles(own authorities: {own}, client certificate: {identity}, …)")
    }
}

/// The way to an external broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalConfig {
    /// Where it is.
    pub url: BrokerUrl,
    /// The deployment that is published for.
    pub env: Env,
    /// Our client id there; two connections with the same one end each other.
    pub client_id: String,
    /// Our account; without one the broker must let anybody publish.
    pub login: Option<Login>,
    /// For `mqtts://`.
    pub tls: TlsFiles,
    /// The account of the throw-away device that tells whether the broker forwards what we publish. Without one nobody checks it: a broker that
    /// discards what we may not publish acknowledges it all the same.
    pub canary: Option<Login>,
    /// Waits and limits.
    pub timing: ExternalTiming,
}

impl ExternalConfig {
    /// An account-less, unchecked connection with the default waits.
    pub fn new(url: BrokerUrl, env: Env) -> Self {
        let client_id = format!("mstore-backend-{env}");
        Self { url, env, client_id, login: None, tls: TlsFiles::default(), canary: None, timing: ExternalTiming::default() }
    }
}

/// Waits and limits of the way to an external broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalTiming {
    /// Messages handed over and not yet acknowledged, default 1,000. Lower and a far broker gets this many per round trip; higher and more is
    /// sent twice after a break.
    pub in_flight_max: u16,
    /// For TCP, TLS and the login, default 5 s.
    pub connect_within: Duration,
    /// Silence after which we ask whether the broker is still there, default 5 s; a second silence of that length ends the connection.
    pub keep_alive: Duration,
    /// For the next acknowledgement, while there is something to acknowledge: default 10 s. A node of a cluster that has lost the others may answer pings and
    /// acknowledge nothing.
    pub acknowledged_within: Duration,
    /// Between two tries to connect: drawn between zero and this, doubled from the first to the second. Default 250 ms and 10 s.
    pub retry_min: Duration,
    /// The longest such wait.
    pub retry_max: Duration,
    /// After a refused login or a discarded canary, default 15 s: trying again at once changes nothing.
    pub refused_wait: Duration,
    /// For the canary to come back, default 5 s.
    pub canary_within: Duration,
    /// Between two canaries of a connection, default 60 s.
    pub canary_interval: Duration,
}

impl Default for ExternalTiming {
    fn default() -> Self {
        Self {
            in_flight_max: 1_000,
            connect_within: Duration::from_secs(5),
            keep_alive: Duration::from_secs(5),
            acknowledged_within: Duration::from_secs(10),
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(10),
            refused_wait: Duration::from_secs(15),
            canary_within: Duration::from_secs(5),
            canary_interval: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let login = Login { username: "backend".into(), password: Bytes::from_static(b"hush") };
        let tls = TlsFiles { authorities: Some(b"hush".to_vec()), identity: Some((b"hush".to_vec(), b"hush".to_vec())) };
        let mut config = ExternalConfig::new("mqtts://h".parse().unwrap(), Env::parse("dev").unwrap());
        (config.login, config.tls) = (Some(login.clone()), tls);
        config.canary = Some(login);
        let shown = format!("{config:?}");
        assert!(shown.contains("backend") && !shown.contains("hush") && !shown.contains("104, 117"), "{shown}");
    }

    #[test]
    fn files_that_are_none_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, empty) = (dir.path().join("missing.pem"), dir.path().join("empty.pem"));
        std::fs::write(&empty, "").unwrap();
        let said = |authorities: Option<&Path>, identity| TlsFiles::read(authorities, identity).unwrap_err().to_string();
        assert!(said(Some(&missing), None).contains("missing.pem"));
        assert!(said(Some(&empty), None).ends_with("empty.pem holds no certificate in PEM form"));
        assert!(said(None, Some((&empty, &empty))).contains("ca-certificates.crt"));
    }
}
