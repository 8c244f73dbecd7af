//! The certificate that listeners show: read from two files, read again when they change, without closing a connection.
//!
//! It asks no client for a certificate: devices are known by their tokens.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use mstore_protocol::Timestamp;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};

/// The files hold nothing that can be shown; what was shown before still is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the certificate {} with the key {}: {reason}", cert.display(), key.display())]
pub struct CertificateError {
    /// The certificate's path.
    pub cert: PathBuf,
    /// The key's path.
    pub key: PathBuf,
    /// What is wrong with them.
    pub reason: String,
}

/// A certificate chain and its key, as the files had them last.
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    shown: RwLock<Shown>,
}

struct Shown {
    certified: Arc<CertifiedKey>,
    /// The first end of validity in the chain.
    expires_at: Timestamp,
    /// Of both files: whether they changed is told by what is in them, not by a clock.
    hash: [u8; 32],
}

impl Certificate {
    /// Reads a chain and its private key, both PEM. The key must belong to the first certificate.
    pub fn load(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Arc<Self>, CertificateError> {
        let (cert, key) = (cert.into(), key.into());
        let shown = read(&cert, &key, None).map_err(|reason| CertificateError { cert: cert.clone(), key: key.clone(), reason })?;
        let shown = RwLock::new(shown.expect("files that are read for the first time are new"));
        Ok(Arc::new(Self { cert, key, shown }))
    }

    /// Reads the files again; whether they hold something new, which new connections are shown from now on. Files that are broken, or of
    /// which only one was replaced so far, change nothing.
    pub fn reload(&self) -> Result<bool, CertificateError> {
        let held = self.shown.read().unwrap_or_else(PoisonError::into_inner).hash;
        let failed = |reason| CertificateError { cert: self.cert.clone(), key: self.key.clone(), reason };
        let Some(shown) = read(&self.cert, &self.key, Some(held)).map_err(failed)? else { return Ok(false) };
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(true)
    }

    /// When the first certificate of the chain ends.
    pub fn expires_at(&self) -> Timestamp {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).expires_at
    }

    /// What a TLS listener works with; it always shows what was loaded last.
    pub fn server_config(self: &Arc<Self>, protocols: &[&str]) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = versions.expect("the provider knows TLS 1.2 and 1.3").with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.read().unwrap_or_else(PoisonError::into_inner).certified.clone())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, until {})", self.cert.display(), self.expires_at())
    }
}

/// What the files hold; nothing when their hash is the one given.
fn read(cert: &Path, key: &Path, held: Option<[u8; 32]>) -> Result<Option<Shown>, String> {
    let file = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let (cert_pem, key_pem) = (file(cert)?, file(key)?);
    let hash = Sha256::new().chain_update(Sha256::digest(&cert_pem)).chain_update(Sha256::digest(&key_pem)).finalize().into();
    if held == Some(hash) {
        return Ok(None);
    }
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&cert_pem).collect::<Result<_, _>>().map_err(|error| format!("the certificate: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate in the file".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| format!("the key: {error}"))?;
    let ends: Vec<Timestamp> = chain.iter().map(end_of).collect::<Result<_, _>>()?;
    let expires_at = ends.into_iter().min().expect("the chain is not empty");
    let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| error.to_string())?;
    Ok(Some(Shown { certified: Arc::new(certified), expires_at, hash }))
}

fn end_of(certificate: &CertificateDer<'_>) -> Result<Timestamp, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| format!("the certificate: {error}"))?;
    Ok(Timestamp::from_ms(parsed.validity().not_after.timestamp().saturating_mul(1_000)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn broken_files_keep_what_was_shown_and_whole_ones_replace_it() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let put = |path: &Path, text: &str| fs::write(path, text).unwrap();
        let (first, second) = (made(), made());
        put(&cert, &first.0);
        put(&key, &first.1);
        let certificate = Certificate::load(&cert, &key).unwrap();
        let shown = || certificate.shown.read().unwrap().certified.clone();
        let original = shown();
        assert_eq!(certificate.reload(), Ok(false));
        // Between the two writes of whoever renews it.
        put(&cert, &second.0);
        assert!(certificate.reload().unwrap_err().reason.contains("KeyMismatch"));
        put(&key, "not a key");
        assert!(certificate.reload().unwrap_err().reason.starts_with("the key"));
        fs::remove_file(&key).unwrap();
        assert!(certificate.reload().unwrap_err().to_string().contains("key.pem"));
        assert!(Arc::ptr_eq(&original, &shown()));
        put(&key, &second.1);
        assert_eq!(certificate.reload(), Ok(true));
        assert!(!Arc::ptr_eq(&original, &shown()));
        assert!(certificate.expires_at().as_ms() > 0);
        assert!(!format!("{certificate:?}").contains("PRIVATE"));
    }
}
