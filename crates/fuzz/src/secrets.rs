//! Credentials as they arrive: read without a panic, never repeated in a refusal.

use crate::{
    claim::ClaimCode,
    credentials::Credentials,
    tokens::{AdminToken, MasterKey},
};

/// The value of an `Authorization` header, and the texts of keys and tokens.
pub fn authorization(bytes: &[u8]) {
    match Credentials::parse(bytes) {
        Ok(Credentials::Device { device, token }) => {
            assert!(!device.contains(':'), "the first colon ends the device's id");
            assert_eq!((device.trim_start(), token.trim_end()), (device, token), "no space comes along");
        }
        Ok(Credentials::Admin(token)) => assert!(!token.contains(':') && token.trim() == token),
        Err(reason) => assert!(!reason.is_empty()),
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(token) = AdminToken::parse(text) {
        let shown = token.reveal();
        assert!(AdminToken::parse(shown).is_some_and(|again| again.matches(shown)) && token.matches(shown));
        let header = format!("Bearer {shown}");
        assert!(
            matches!(Credentials::parse(header.as_bytes()), Ok(Credentials::Admin(same)) if same == shown),
            "a token that nobody can present"
        );
        assert_eq!(format!("{token:?}"), "AdminToken(…)");
    }
    if let Some(key) = MasterKey::parse(text) {
        assert_eq!(MasterKey::parse(&key.to_text()).map(|again| again.to_text()), Some(key.to_text()));
        assert_eq!(format!("{key:?}"), "MasterKey(…)");
    }
}

/// A claim code as somebody types it.
pub fn claim_code(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(code) = ClaimCode::parse(text) else { return };
    let shown = code.reveal();
    assert_eq!(shown.len(), 14);
    assert_eq!(ClaimCode::parse(&shown).as_ref(), Some(&code), "what is shown can be typed");
    assert_eq!(ClaimCode::parse(&shown.to_lowercase()).map(|again| again.hash()), Some(code.hash()));
    assert_eq!(format!("{code:?}"), "ClaimCode(…)");
}
