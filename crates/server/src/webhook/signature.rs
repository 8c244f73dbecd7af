//! How a backend knows that a delivery is ours: an HMAC over the time and the body.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::WebhookSecret;

/// `v1=` and the HMAC-SHA-256, in hex, of `timestamp.body` (RFC 2104). The timestamp is in seconds since 1970, as in the header beside it.
pub(super) fn sign(secret: &WebhookSecret, timestamp_s: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes a key of any length");
    mac.update(timestamp_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold("v1=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn signatures_are_those_of_the_golden_file() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/delivery.json");
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let cases = golden["accepted"].as_array().unwrap();
        assert!(cases.len() >= 2);
        for case in cases {
            let secret = WebhookSecret(case["secret"].as_str().unwrap().into());
            let signature = sign(&secret, case["timestamp"].as_i64().unwrap(), case["text"].as_str().unwrap().as_bytes());
            assert_eq!(signature, case["signature"], "{}", case["name"]);
        }
    }

    #[test]
    fn a_short_secret_is_none() {
        assert_eq!(WebhookSecret::new(vec![b'x'; WebhookSecret::BYTES_MIN - 1]), None);
        let secret = WebhookSecret::new(vec![b'x'; WebhookSecret::BYTES_MIN]).unwrap();
        assert!(!format!("{secret:?}").contains('x'));
    }
}
