//! The certificate of the TLS listeners, looked at again every minute and at SIGHUP: what is broken on disk changes nothing but the log.

use std::sync::{Arc, Mutex, PoisonError};

use mstore_broker::{Certificate, CertificateError};
use mstore_protocol::Timestamp;

/// A certificate that ends within this is worth a warning at every look.
const SOON_MS: i64 = 14 * 24 * 60 * 60 * 1_000;

/// A certificate that somebody renews.
pub(crate) struct Renewal {
    pub(crate) certificate: Arc<Certificate>,
    /// What is wrong with the files now.
    broken: Mutex<Option<CertificateError>>,
}

/// What a look at it told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// Until the certificate ends; below zero once it has.
    pub(crate) expires_in_s: i64,
    /// Whether the files on disk cannot be used.
    pub(crate) is_broken: bool,
}

impl Renewal {
    pub(crate) fn new(certificate: Arc<Certificate>) -> Self {
        Self { certificate, broken: Mutex::default() }
    }

    /// Reads the files again if they changed; says in the log what is new, and what is wrong.
    pub(crate) fn look(&self, now: Timestamp) {
        let result = self.certificate.reload();
        let expires_at = self.certificate.expires_at();
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(true) => tracing::info!(%expires_at, "certificate replaced; open connections keep the one they have"),
            Ok(false) => {}
            // Whoever renews it writes one file after the other: the same complaint once more is not news.
            Err(error) if broken.as_ref() == Some(&error) => return,
            Err(error) => {
                tracing::error!(%error, %expires_at, "the new certificate cannot be used; the old one is shown on");
                *broken = Some(error);
                return;
            }
        }
        *broken = None;
        if expires_at.as_ms().saturating_sub(now.as_ms()) < SOON_MS {
            tracing::warn!(%expires_at, "the certificate ends soon, or has ended");
        }
    }

    pub(crate) fn outlook(&self, now: Timestamp) -> Outlook {
        Outlook {
            expires_in_s: self.certificate.expires_at().as_ms().saturating_sub(now.as_ms()) / 1_000,
            is_broken: self.broken.lock().unwrap_or_else(PoisonError::into_inner).is_some(),
        }
    }
}
