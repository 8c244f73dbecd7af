//! What an `Authorization` header says, before anybody looks whether it is true.

/// Who a caller says that they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentials<'a> {
    /// `Bearer <device_id>:<token>`.
    Device { device: &'a str, token: &'a str },
    /// `Bearer <admin token>`.
    Admin(&'a str),
}

impl<'a> Credentials<'a> {
    /// Reads the header's value; what is wrong with it is said without repeating any of it.
    pub(crate) fn parse(header: &'a [u8]) -> Result<Self, &'static str> {
        let plain = header.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        let text = std::str::from_utf8(header).ok().filter(|_| plain).ok_or("the Authorization header is not plain text")?;
        let (scheme, secret) = text.split_once(' ').ok_or("the Authorization header is not `Bearer …`")?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err("the Authorization scheme is not Bearer");
        }
        let secret = secret.trim();
        Ok(secret.split_once(':').map_or(Self::Admin(secret), |(device, token)| Self::Device { device, token }))
    }
}
