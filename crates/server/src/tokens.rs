//! Secrets: device tokens derived from one master key, so that nothing secret is stored per device, and the admin token.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use mstore_protocol::DeviceId;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

const DEVICE_PREFIX: &str = "mst_";
const ADMIN_PREFIX: &str = "msa_";
const KEY_BYTES: usize = 32;

/// The key that every device token is derived from.
#[derive(Clone)]
pub struct MasterKey([u8; KEY_BYTES]);

impl MasterKey {
    /// A new one from the system's random numbers.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// Reads what [`Self::to_text`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// For the key file.
    pub(crate) fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Tells this key from another without giving it away.
    pub fn fingerprint(&self) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(b"the master key of these servers");
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// A device's token: `mst_` + base64url(HMAC-SHA-256(key, device ‖ 0x00 ‖ generation as four bytes, most significant first)).
    pub(crate) fn device_token(&self, device: &DeviceId, generation: u32) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(device.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(&generation.to_be_bytes());
        format!("{DEVICE_PREFIX}{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// The token that opens `/v1/admin`.
#[derive(Clone)]
pub struct AdminToken {
    text: String,
    hash: [u8; KEY_BYTES],
}

impl AdminToken {
    /// A new one from the system's random numbers.
    pub fn generate() -> Self {
        Self::of(format!("{ADMIN_PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; KEY_BYTES]>())))
    }

    /// One that an operator chose: at least 16 printable characters without a colon (which would read as a device's credentials).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = text.len() >= 16 && text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        fits.then(|| Self::of(text.to_owned()))
    }

    fn of(text: String) -> Self {
        let hash = Self::hash_of(&text);
        Self { text, hash }
    }

    /// What the database keeps. A plain SHA-256: the token is random, so that nobody can try likely ones; an operator's own choice should be, too.
    pub(crate) fn hash_of(text: &str) -> [u8; KEY_BYTES] {
        Sha256::digest(text).into()
    }

    /// [`Self::hash_of`] this one.
    pub(crate) fn hash(&self) -> [u8; KEY_BYTES] {
        self.hash
    }

    /// The token itself, for the operator.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Compares in constant time, whatever the length.
    pub fn matches(&self, presented: &str) -> bool {
        self.hash.ct_eq(&Self::hash_of(presented)).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Compares two secrets in constant time.
pub(crate) fn same_secret(presented: &[u8], expected: &str) -> bool {
    presented.ct_eq(expected.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_depends_on_key_device_and_generation() {
        let key = MasterKey([7; KEY_BYTES]);
        let (a, b) = (DeviceId::parse("a").unwrap(), DeviceId::parse("b").unwrap());
        let token = key.device_token(&a, 1);
        assert!(token.starts_with("mst_") && token.len() == 4 + 43, "{}", token.len());
        assert_eq!(token, MasterKey::parse(&key.to_text()).unwrap().device_token(&a, 1));
        assert_ne!(token, key.device_token(&a, 2));
        assert_ne!(token, key.device_token(&b, 1));
        assert_ne!(token, MasterKey([8; KEY_BYTES]).device_token(&a, 1));
    }

    #[test]
    fn a_token_is_what_the_contract_says() {
        // HMAC-SHA-256(32 × 0x07, "a" 00 00000001), by an independent implementation.
        let token = MasterKey([7; KEY_BYTES]).device_token(&DeviceId::parse("a").unwrap(), 1);
        assert_eq!(token, "mst__EMePTXK3jKMq3zP8c922CqIZQx25LG-QgBSSUWrnyk");
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let token = AdminToken::generate();
        assert!(!format!("{token:?} {:?}", MasterKey::generate()).contains(token.reveal()));
        assert!(token.matches(token.reveal()) && !token.matches("msa_x") && !token.matches(""));
        assert!(AdminToken::parse("short").is_none() && AdminToken::parse("has:a-colon-in-it-somewhere").is_none());
    }
}
