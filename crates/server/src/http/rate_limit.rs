//! How often a device or an address may do what costs the server something, and what they hear when it was too often.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use mstore_broker::{Allowance, Network};
use mstore_protocol::{Code, DeviceId, Timestamp};

use super::{App, problem::Refusal};
use crate::{ServerLimits, listen::Peer};

/// One bucket per address or device for each.
pub(crate) struct Rates {
    /// Guessing claim codes is slowed down; a hundred right ones in a row are not.
    wrong_claims: Allowance<Network>,
    /// Wrong tokens. A right one is let in whatever came before: nobody can lock a till out.
    wrong_logins: Allowance<Network>,
    uploads: Allowance<DeviceId>,
    snapshots: Allowance<DeviceId>,
}

impl Rates {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        Self {
            wrong_claims: Allowance::new(limits.wrong_claims),
            wrong_logins: Allowance::new(limits.wrong_logins),
            uploads: Allowance::new(limits.uploads),
            snapshots: Allowance::new(limits.snapshots),
        }
    }

    /// Whether the address may try a claim code.
    pub(super) fn claim(&self, address: IpAddr, now: Timestamp) -> Result<(), Refusal> {
        limited("too many wrong claim codes from this address", self.wrong_claims.check(&address.into(), now))
    }

    /// It was a wrong one.
    pub(super) fn wrong_claim(&self, address: IpAddr, now: Timestamp) {
        self.wrong_claims.count(address.into(), now);
    }

    /// Whether the device may upload.
    pub(super) fn upload(&self, device: &DeviceId, now: Timestamp) -> Result<(), Refusal> {
        limited("too many uploads of this device; send more operations at once", self.uploads.take(device.clone(), now))
    }

    /// Whether the device may have everything once more.
    pub(super) fn snapshot(&self, device: &DeviceId, now: Timestamp) -> Result<(), Refusal> {
        limited("too many snapshots of this device; go on from its cursor", self.snapshots.take(device.clone(), now))
    }
}

fn limited(why: &str, allowed: Result<(), u32>) -> Result<(), Refusal> {
    allowed.map_err(|wait_s| Refusal::new(Code::RateLimited, why).retry_after_s(wait_s))
}

/// Wrong credentials are answered 429 when there were too many from this address.
pub(super) async fn wrong_logins(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let response = next.run(request).await;
    let is_wrong = response.extensions().get::<Code>().is_some_and(|code| *code == Code::CredentialsRefused);
    let Some(Peer(peer)) = peer.filter(|_| is_wrong) else { return response };
    let allowed = app.rates.wrong_logins.take(peer.ip().into(), (app.config.clock)());
    match limited("too many wrong credentials from this address", allowed) {
        Ok(()) => response,
        Err(refusal) => refusal.into_response(),
    }
}
