//! Who calls, and whether it is their branch, their merchant and their role.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Path},
    http::{header, request::Parts},
};
use mstore_protocol::{BranchKey, Code, DeviceId, MerchantId};
use mstore_store::{By, DeviceRecord, Presented, TokenChange, TokenHash, TokenRecord};

use super::{App, credentials::Credentials, problem::Refusal, roles};
use crate::{AdminToken, auth::LoginError, listen::Peer};

enum Caller {
    Device(Arc<DeviceRecord>),
    Admin(Admin),
}

async fn caller(parts: &Parts, app: &App) -> Result<Caller, Refusal> {
    let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
        return Err(Refusal::new(Code::CredentialsMissing, "there is no Authorization header"));
    };
    let refused = |why: &str| Refusal::new(Code::CredentialsRefused, why);
    let (device, token) = match Credentials::parse(value.as_bytes()).map_err(refused)? {
        Credentials::Device { device, token } => (device, token),
        Credentials::Admin(token) => return Admin::present(parts, app, AdminToken::hash_of(token)).await.map(Caller::Admin),
    };
    match app.directory.login(device, token.as_bytes()).await {
        Ok(record) => Ok(Caller::Device(record)),
        Err(LoginError::Refused) => Err(refused("unknown device or wrong token")),
        Err(LoginError::Revoked) => Err(Refusal::new(Code::DeviceRevoked, "this device was revoked")),
        Err(LoginError::Expired) => Err(Refusal::new(Code::TokenExpired, "this device's token is too old")),
        Err(LoginError::Store(error)) => Err(error.into()),
    }
}

async fn names_of(parts: &mut Parts, app: &Arc<App>) -> Result<HashMap<String, String>, Refusal> {
    let Path(names) = Path::<HashMap<String, String>>::from_request_parts(parts, app).await?;
    Ok(names)
}

async fn branch_of(parts: &mut Parts, app: &Arc<App>) -> Result<BranchKey, Refusal> {
    let names = names_of(parts, app).await?;
    let name = |name: &str| names.get(name).map_or("", String::as_str);
    BranchKey::parse(name("merchant"), name("branch")).map_err(|error| Refusal::malformed(format!("the path: {error}")))
}

/// An operator, or a merchant's backend, who may do what the route does, at the merchant or to the device that its path names.
pub(crate) struct Admin {
    token: TokenRecord,
    hash: TokenHash,
    address: Option<IpAddr>,
}

impl Admin {
    async fn present(parts: &Parts, app: &App, hash: TokenHash) -> Result<Self, Refusal> {
        let refused = || Refusal::new(Code::CredentialsRefused, "this is neither <device_id>:<token> nor an admin token");
        let (token, how) = app.store.presented(hash, (app.config.clock)()).await?.ok_or_else(refused)?;
        let address = parts.extensions.get::<Peer>().map(|Peer(peer)| peer.ip().to_canonical());
        let admin = Self { token, hash, address };
        match how {
            Presented::Current | Presented::Old => {}
            Presented::FirstUse => {
                app.store.change_token(&admin.token.name, TokenChange::RetireOld, &admin.by()).await?;
                tracing::info!(token = admin.token.name, "old admin token retired");
            }
            Presented::Expired => {
                return Err(Refusal::new(Code::TokenExpired, format!("the admin token {} has expired", admin.token.name)));
            }
        }
        Ok(admin)
    }

    /// For the audit log.
    pub(crate) fn by(&self) -> By {
        By::token(&self.token, self.address)
    }

    /// What is known of its token.
    pub(crate) fn token(&self) -> &TokenRecord {
        &self.token
    }

    /// The only merchant that it may see.
    pub(crate) fn only(&self) -> Option<&MerchantId> {
        self.token.merchant.as_ref()
    }

    /// Refuses another merchant than its own.
    pub(crate) fn check_merchant(&self, wanted: &str) -> Result<(), Refusal> {
        match self.only() {
            Some(own) if own.as_str() != wanted => {
                let detail = format!("the token {} is of merchant {own}, and of no other", self.token.name);
                Err(Refusal::new(Code::Forbidden, detail))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether its token is still good: for answers that last longer than a request.
    pub(crate) async fn is_still_good(&self, app: &App) -> bool {
        // A database that is away for a moment has revoked nobody.
        let presented = app.store.presented(self.hash, (app.config.clock)()).await;
        presented.map_or(true, |found| found.is_some_and(|(_, how)| how != Presented::Expired))
    }

    /// The route's role, then the merchant or the device that the path names.
    async fn check(&self, parts: &mut Parts, app: &Arc<App>) -> Result<(), Refusal> {
        let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let needs = roles::needed(&parts.method, path).ok_or_else(|| Refusal::new(Code::Forbidden, "no admin token opens this"))?;
        if !needs.allow(self.token.role) {
            let detail = format!("the token {} is {}; this takes {}", self.token.name, self.token.role.as_str(), needs.who());
            return Err(Refusal::new(Code::Forbidden, detail));
        }
        if self.only().is_none() {
            return Ok(());
        }
        let names = names_of(parts, app).await?;
        if let Some(merchant) = names.get("merchant") {
            self.check_merchant(merchant)?;
        }
        match names.get("device") {
            Some(device) => self.check_device(app, device).await,
            None => Ok(()),
        }
    }

    /// A device of another merchant is as unknown as one that does not exist.
    async fn check_device(&self, app: &App, name: &str) -> Result<(), Refusal> {
        let unknown = || Refusal::not_found(format!("there is no device {name}"));
        let device = DeviceId::parse(name).map_err(|error| Refusal::malformed(format!("the path: {error}")))?;
        let record = app.store.device(&device).await?.ok_or_else(unknown)?;
        if self.check_merchant(record.key.merchant.as_str()).is_err() { Err(unknown()) } else { Ok(()) }
    }
}

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match caller(parts, app).await? {
            Caller::Admin(admin) => {
                admin.check(parts, app).await?;
                Ok(admin)
            }
            Caller::Device(record) => {
                Err(Refusal::new(Code::Forbidden, format!("device {} may not do this; it takes an admin token", record.device)))
            }
        }
    }
}

/// A device, whatever its branch.
pub(crate) struct Device {
    pub(crate) record: Arc<DeviceRecord>,
    /// Where it calls from.
    pub(crate) address: Option<IpAddr>,
}

impl FromRequestParts<Arc<App>> for Device {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match caller(parts, app).await? {
            Caller::Device(record) => {
                let address = parts.extensions.get::<Peer>().map(|Peer(peer)| peer.ip().to_canonical());
                Ok(Self { record, address })
            }
            Caller::Admin(_) => Err(Refusal::new(Code::Forbidden, "only a device may do this, with its own credentials")),
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
            Caller::Admin(admin) => {
                admin.check(parts, app).await?;
                Ok(Self { key, device: None })
            }
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
        let Device { record: device, .. } = Device::from_request_parts(parts, app).await?;
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
