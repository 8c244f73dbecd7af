//! Who calls, and whether it is their branch.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{FromRequestParts, Path},
    http::{header, request::Parts},
};
use mstore_protocol::{BranchKey, Code};
use mstore_store::DeviceRecord;

use super::{App, credentials::Credentials, problem::Refusal};
use crate::auth::LoginError;

enum Caller {
    Device(Arc<DeviceRecord>),
    Admin,
}

async fn caller(parts: &Parts, app: &App) -> Result<Caller, Refusal> {
    let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
        return Err(Refusal::new(Code::CredentialsMissing, "there is no Authorization header"));
    };
    let refused = |why: &str| Refusal::new(Code::CredentialsRefused, why);
    let (device, token) = match Credentials::parse(value.as_bytes()).map_err(refused)? {
        Credentials::Device { device, token } => (device, token),
        Credentials::Admin(token) if app.config.secrets.admin_token.matches(token) => return Ok(Caller::Admin),
        Credentials::Admin(_) => return Err(refused("this is neither <device_id>:<token> nor the admin token")),
    };
    match app.directory.login(device, token.as_bytes()).await {
        Ok(record) => Ok(Caller::Device(record)),
        Err(LoginError::Refused) => Err(refused("unknown device or wrong token")),
        Err(LoginError::Revoked) => Err(Refusal::new(Code::DeviceRevoked, "this device was revoked")),
        Err(LoginError::Store(error)) => Err(error.into()),
    }
}

async fn branch_of(parts: &mut Parts, app: &Arc<App>) -> Result<BranchKey, Refusal> {
    let Path(names) = Path::<HashMap<String, String>>::from_request_parts(parts, app).await?;
    let name = |name: &str| names.get(name).map_or("", String::as_str);
    BranchKey::parse(name("merchant"), name("branch")).map_err(|error| Refusal::malformed(format!("the path: {error}")))
}

/// An operator, or a merchant's backend.
pub(crate) struct Admin;

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match caller(parts, app).await? {
            Caller::Admin => Ok(Self),
            Caller::Device(record) => {
                Err(Refusal::new(Code::Forbidden, format!("device {} may not do this; it takes the admin token", record.device)))
            }
        }
    }
}

/// A device, whatever its branch.
pub(crate) struct Device(pub(crate) Arc<DeviceRecord>);

impl FromRequestParts<Arc<App>> for Device {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match caller(parts, app).await? {
            Caller::Device(record) => Ok(Self(record)),
            Caller::Admin => Err(Refusal::new(Code::Forbidden, "only a device may do this, with its own credentials")),
        }
    }
}

/// Someone who may read the branch named in the path: a device that belongs to it now, or an operator.
pub(crate) struct Reader {
    pub(crate) key: BranchKey,
    /// `None` for an operator.
    pub(crate) device: Option<Arc<DeviceRecord>>,
}

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let caller = caller(parts, app).await?;
        let key = branch_of(parts, app).await?;
        match caller {
            Caller::Admin => Ok(Self { key, device: None }),
            Caller::Device(record) if record.key == key => Ok(Self { key, device: Some(record) }),
            Caller::Device(record) => {
                Err(Refusal::new(Code::Forbidden, format!("device {} belongs to {}, not to {key}", record.device, record.key)))
            }
        }
    }
}

/// A device that may upload for the branch named in the path: it belongs to it, or once did.
pub(crate) struct Uploader {
    pub(crate) key: BranchKey,
    pub(crate) device: Arc<DeviceRecord>,
}

impl FromRequestParts<Arc<App>> for Uploader {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let Device(device) = Device::from_request_parts(parts, app).await?;
        let key = branch_of(parts, app).await?;
        let was_there = device.key == key || (device.key.merchant == key.merchant && device.branches.contains(&key.branch));
        if was_there {
            // Before the body is read.
            app.rates.upload(&device.device, (app.config.clock)())?;
            return Ok(Self { key, device });
        }
        Err(Refusal::new(Code::Forbidden, format!("device {} never belonged to {key}", device.device)))
    }
}
