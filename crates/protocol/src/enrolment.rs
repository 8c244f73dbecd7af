//! Enrolment: a one-time claim code becomes a device with a token.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{BranchId, Collection, DeviceId, Env, MerchantId};

/// The body of `POST /v1/devices/enrol`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolRequest {
    /// The one-time claim code.
    pub code: String,
    /// Random text chosen by the device: repeating it gives the same answer, so a lost reply burns nothing.
    pub nonce: String,
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolRequest(…)")
    }
}

/// What a device needs for the rest of its life.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolment {
    /// Its id, MQTT client id and user name.
    pub device_id: DeviceId,
    /// Its secret.
    pub token: String,
    /// The deployment.
    pub env: Env,
    /// Its merchant.
    pub merchant: MerchantId,
    /// Its branch.
    pub branch: BranchId,
    /// `mqtt://host:port` or `mqtts://…`; `mqtt://host:port,host:port` where the operator named the nodes of a cluster.
    pub mqtt_url: String,
    /// `ws://host:port/mqtt` or `wss://…`.
    pub ws_url: String,
    /// The collections it syncs.
    pub collections: Vec<Collection>,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Enrolment({} in {}/{}/{}, token …)", self.device_id, self.env, self.merchant, self.branch)
    }
}

/// The answer to a rotation: the new token works at once, the old one until the new one's first use.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rotation {
    /// The new secret.
    pub token: String,
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rotation(token …)")
    }
}
