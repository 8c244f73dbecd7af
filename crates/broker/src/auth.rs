//! The seam to the device registry: the broker asks who is calling, the server knows.

use async_trait::async_trait;

use crate::policy::Principal;

/// Knows the devices and the backend's own account; the server implements it over its store.
///
/// Called on the broker's own threads, so an implementation must not block them: a cached answer or an awaited channel.
#[async_trait]
pub trait DeviceAuth: Send + Sync {
    /// Who logs in with this user name and password; `None` for anyone unknown, revoked, or with a wrong password.
    ///
    /// Compares secrets in constant time. Also the place where a rotated token ends: the broker asks once per connection.
    async fn authenticate(&self, username: &str, password: &[u8]) -> Option<Principal>;

    /// What this user may do now; `None` once it is revoked.
    ///
    /// Only asked when a connection's own answer from [`Self::authenticate`] was dropped by a kick, so it must not be older than the kick.
    async fn principal(&self, username: &str) -> Option<Principal>;
}
