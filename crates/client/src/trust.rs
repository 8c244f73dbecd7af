//! Whom a device believes over TLS: the authorities of the operating system, or those of one file and nobody else; and what is wrong with a
//! certificate that it does not believe.

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use mstore_protocol::Code;
use rumqttc::Transport;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::error::OpenError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection nobody used for this long is closed.
const IDLE_CONNECTION: Duration = Duration::from_millis(250);

/// Whom to believe.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust(Option<Arc<ClientConfig>>);

impl Trust {
    /// The authorities of a PEM file; the operating system's without one.
    pub(crate) fn read(ca_file: Option<&Path>) -> Result<Self, OpenError> {
        // The process may have installed one already: then that one is used.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let Some(path) = ca_file else { return Ok(Self(None)) };
        let wrong = |detail: String| OpenError::Authorities { path: path.to_owned(), detail };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
            roots.add(certificate.map_err(|error| wrong(error.to_string()))?).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("there is no certificate in it".to_owned()));
        }
        Ok(Self(Some(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))))
    }

    /// MQTT over TLS.
    pub(crate) fn transport(&self) -> Transport {
        match &self.0 {
            Some(config) => Transport::tls_with_config(ClientConfig::clone(config).into()),
            None => Transport::tls_with_default_config(),
        }
    }

    /// Makes the HTTP library's client.
    pub(crate) fn http_client(&self, server_url: &str) -> Result<reqwest::Client, OpenError> {
        let mut builder = reqwest::Client::builder();
        if let Some(config) = &self.0 {
            builder = builder.tls_backend_preconfigured(ClientConfig::clone(config));
        } else if !server_url.starts_with("https:") {
            // Reading the system's certificates takes longer than a first sync; who speaks plain HTTP trusts none.
            let trusts_nobody = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            builder = builder.tls_backend_preconfigured(trusts_nobody);
        }
        builder
            .no_zstd()
            .no_gzip()
            .no_proxy()
            // A redirect could lead a token or a claim code to where it may not go.
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .pool_max_idle_per_host(2)
            // Between polls there are minutes: a kept connection would only cost the server memory.
            .pool_idle_timeout(IDLE_CONNECTION)
            .build()
            .map_err(|error| OpenError::Url { url: "https".into(), detail: format!("the TLS set-up failed: {error}") })
    }
}

/// The code of what is wrong with the other end's certificate, if that is the reason why a connection failed.
pub(crate) fn certificate_fault(error: &(dyn Error + 'static)) -> Option<Code> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An I/O error hides what it carries from `source`.
        let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(code) = carried.and_then(|carried| certificate_fault(carried)) {
            return Some(code);
        }
        if let Some(rustls::Error::InvalidCertificate(fault)) = error.downcast_ref::<rustls::Error>() {
            return Some(code_of(fault));
        }
        cause = error.source();
    }
    None
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is wrong, it is not a certificate that this device may believe")]
fn code_of(fault: &CertificateError) -> Code {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Code::CertificateExpired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Code::CertificateName,
        _ => Code::CertificateUntrusted,
    }
}
