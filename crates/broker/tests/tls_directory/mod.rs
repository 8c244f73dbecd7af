//! Certificates for a listener and its client, in files as brokers want them.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use tempfile::TempDir;

/// A certificate authority of one certificate: the listener's and the client's.
pub(crate) struct TlsDirectory {
    _dir: TempDir,
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl TlsDirectory {
    pub(crate) fn make() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let ca_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "backend");
        let cert = params.signed_by(&key, &issuer).unwrap().pem();
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (ca, cert, key) = (write("ca.pem", ca_pem), write("cert.pem", cert), write("key.pem", key.serialize_pem()));
        Self { _dir: dir, ca, cert, key }
    }

    /// Lines that make the listener speak TLS, and ask for a certificate.
    pub(crate) fn listener(&self) -> String {
        let (ca, cert, key) = (self.ca.display(), self.cert.display(), self.key.display());
        format!("cafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\n")
    }
}
