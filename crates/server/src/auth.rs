//! Who a device is: tokens checked against the registry, with a small cache, for HTTP and for the broker alike.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use mstore_broker::{Account, AccountBook, AccountPage, DeviceAuth, Principal, RegistrarError};
use mstore_protocol::{Collection, DeviceId, Env, Scope, Timestamp};
use mstore_store::{By, DeviceChange, DeviceRecord, DeviceStatus, NewClaim, Store, StoreError};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};

use crate::{Clock, MasterKey, tokens::same_secret};

/// A record is read again after this, so that a change made beside this server is noticed.
const CACHE_LIFETIME: Duration = Duration::from_secs(10);
/// About 300 bytes each.
const CACHE_DEVICES_MAX: usize = 50_000;
/// How many generations back a revoked device is still told that it was revoked, rather than just refused.
const REVOKED_GENERATIONS: u32 = 8;
/// Changes that somebody who follows them may be behind with.
const CHANGES_MAX: usize = 1_024;
/// Of a token's greatest age: from then on its device rotates it. A till that is switched on once in the third that is left never comes too late.
const ROTATE_AT: f64 = 2.0 / 3.0;
/// Devices read at once.
const ACCOUNTS_PER_PAGE: usize = 500;

/// The device registry as the rest of the server sees it: every change goes through here, so that the cache never outlives one.
pub(crate) struct Directory {
    store: Arc<dyn Store>,
    master_key: MasterKey,
    env: Env,
    clock: Clock,
    cache: Mutex<Cache>,
    changes: broadcast::Sender<DeviceId>,
    /// A device's token is refused when it is older.
    max_age: Option<Duration>,
}

#[derive(Default)]
struct Cache {
    /// Counts invalidations: a read that began before one may not fill the cache after it.
    version: u64,
    devices: HashMap<DeviceId, (Arc<DeviceRecord>, Instant)>,
}

/// Why a device was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// Unknown device or wrong token.
    #[error("unknown device or wrong token")]
    Refused,
    /// The token was right once.
    #[error("the device was revoked")]
    Revoked,
    /// The token is right, and too old.
    #[error("the device's token has expired")]
    Expired,
    /// The registry could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Directory {
    pub(crate) fn new(store: Arc<dyn Store>, master_key: MasterKey, env: Env, clock: Clock) -> Self {
        Self { store, master_key, env, clock, cache: Mutex::default(), changes: broadcast::channel(CHANGES_MAX).0, max_age: None }
    }

    /// Refuses tokens of devices that are older.
    pub(crate) fn with_max_age(self, max_age: Option<Duration>) -> Self {
        Self { max_age, ..self }
    }

    /// How old a device's newest token is, if that matters: as a share of the age at which it ends.
    fn age(&self, record: &DeviceRecord) -> Option<f64> {
        let (max_age, made_at) = (self.max_age?, record.token_at?);
        let age = Duration::from_millis(u64::try_from((self.clock)().as_ms() - made_at.as_ms()).unwrap_or(0));
        Some(age.as_secs_f64() / max_age.as_secs_f64())
    }

    fn is_expired(&self, record: &DeviceRecord) -> bool {
        self.age(record).is_some_and(|age| age >= 1.0)
    }

    /// Active devices whose token ended after one time and not after another: their connections were opened with it.
    pub(crate) async fn expired_between(&self, from: Timestamp, to: Timestamp) -> Result<Vec<DeviceId>, StoreError> {
        let Some(max_age) = self.max_age else { return Ok(Vec::new()) };
        let max_age_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        let ended = |record: &DeviceRecord| record.token_at.is_some_and(|made| (from..to).contains(&made.plus_ms(max_age_ms)));
        let (mut expired, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.devices(None, after.as_deref(), ACCOUNTS_PER_PAGE).await?;
            after = page.last().map(|record| record.device.to_string());
            let is_last = page.len() < ACCOUNTS_PER_PAGE;
            expired.extend(
                page.into_iter().filter(|record| record.status == DeviceStatus::Active && ended(record)).map(|record| record.device),
            );
            if is_last {
                return Ok(expired);
            }
        }
    }

    /// Whether a device should get another token now, while the old one works.
    pub(crate) fn wants_rotation(&self, record: &DeviceRecord) -> bool {
        self.age(record).is_some_and(|age| age >= ROTATE_AT)
    }

    /// Checks a device's token. The first use of a rotated token ends the one before.
    pub(crate) async fn login(&self, device: &str, token: &[u8]) -> Result<Arc<DeviceRecord>, LoginError> {
        let device = DeviceId::parse(device).map_err(|_| LoginError::Refused)?;
        let record = self.record(&device).await?.ok_or(LoginError::Refused)?;
        let fits = |generation: u32| same_secret(token, &self.master_key.device_token(&device, generation));
        match record.status {
            DeviceStatus::Claimed => Err(LoginError::Refused),
            DeviceStatus::Revoked => {
                let past = record.generation.saturating_sub(REVOKED_GENERATIONS)..=record.generation;
                Err(if past.into_iter().any(fits) { LoginError::Revoked } else { LoginError::Refused })
            }
            DeviceStatus::Active if self.is_expired(&record) => {
                let is_right = fits(record.generation) || record.previous_generation.is_some_and(fits);
                Err(if is_right { LoginError::Expired } else { LoginError::Refused })
            }
            DeviceStatus::Active if fits(record.generation) => {
                if record.previous_generation.is_none() {
                    return Ok(record);
                }
                let retired = self.change(&device, DeviceChange::RetireOld, &By::device(&device, None)).await?;
                tracing::info!(device = device.as_str(), "old device token retired");
                Ok(Arc::new(retired))
            }
            DeviceStatus::Active if record.previous_generation.is_some_and(fits) => Ok(record),
            DeviceStatus::Active => Err(LoginError::Refused),
        }
    }

    /// The token of a device as it is now.
    pub(crate) fn token(&self, record: &DeviceRecord) -> String {
        self.master_key.device_token(&record.device, record.generation)
    }

    /// Changes a device; nothing answers from before afterwards.
    pub(crate) async fn change(&self, device: &DeviceId, change: DeviceChange, by: &By) -> Result<DeviceRecord, StoreError> {
        let silent = matches!(change, DeviceChange::Report(_));
        let changed = self.store.change_device(device, change, by, (self.clock)()).await;
        // Reports are not cached, and come from every device every minute.
        if !silent {
            self.forget(device);
        }
        changed
    }

    /// Makes a claim.
    pub(crate) async fn claim(&self, claim: NewClaim) -> Result<DeviceRecord, StoreError> {
        let device = claim.device.clone();
        let claimed = self.store.claim(claim).await;
        self.forget(&device);
        claimed
    }

    /// Redeems a claim.
    pub(crate) async fn redeem(&self, code_hash: [u8; 32], nonce: &str, from: Option<IpAddr>) -> Result<DeviceRecord, StoreError> {
        let record = self.store.redeem(code_hash, nonce, from, (self.clock)()).await?;
        self.forget(&record.device);
        Ok(record)
    }

    /// The collections that a device follows.
    pub(crate) fn collections() -> Vec<Collection> {
        Collection::built_in().into()
    }

    async fn record(&self, device: &DeviceId) -> Result<Option<Arc<DeviceRecord>>, StoreError> {
        let version = {
            let cache = self.lock();
            if let Some((record, until)) = cache.devices.get(device)
                && Instant::now() < *until
            {
                return Ok(Some(record.clone()));
            }
            cache.version
        };
        let Some(mut record) = self.store.device(device).await? else { return Ok(None) };
        record.report = None;
        let record = Arc::new(record);
        let mut cache = self.lock();
        if cache.version == version {
            if cache.devices.len() >= CACHE_DEVICES_MAX {
                cache.devices.clear();
            }
            cache.devices.insert(device.clone(), (record.clone(), Instant::now() + CACHE_LIFETIME));
        }
        Ok(Some(record))
    }

    /// Forgets what other servers change, as long as there may be others.
    pub(crate) async fn follow(self: Arc<Self>) {
        let Some(mut changes) = self.store.devices_changed_elsewhere() else { return };
        loop {
            match changes.recv().await {
                Ok(device) => self.forget(&device),
                Err(RecvError::Lagged(_)) => self.forget_all(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Every device that changes from now on, on whichever server.
    pub(crate) fn changes(&self) -> broadcast::Receiver<DeviceId> {
        self.changes.subscribe()
    }

    fn forget_all(&self) {
        let mut cache = self.lock();
        cache.version += 1;
        cache.devices.clear();
    }

    fn forget(&self, device: &DeviceId) {
        let mut cache = self.lock();
        cache.version += 1;
        cache.devices.remove(device);
        // Nobody may follow them.
        let _followed = self.changes.send(device.clone());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a broker that decides for itself should know of a device; nothing of one that may not work. The token is the one that the device is
    /// known to have: during a rotation the old one, until it used the new one.
    fn to_account(&self, record: &DeviceRecord) -> Option<Account> {
        let generation = record.previous_generation.unwrap_or(record.generation);
        (record.status == DeviceStatus::Active && !self.is_expired(record)).then(|| Account {
            device: record.device.clone(),
            scope: Scope::new(self.env.clone(), record.key.clone()),
            collections: Self::collections(),
            token: self.master_key.device_token(&record.device, generation).into(),
        })
    }

    fn to_principal(&self, record: &DeviceRecord) -> Principal {
        let scope = Scope::new(self.env.clone(), record.key.clone());
        Principal::Device { device: record.device.clone(), scope, collections: Self::collections() }
    }
}

#[async_trait]
impl DeviceAuth for Directory {
    async fn authenticate(&self, username: &str, password: &[u8]) -> Option<Principal> {
        match self.login(username, password).await {
            Ok(record) => Some(self.to_principal(&record)),
            Err(error) => {
                tracing::info!(device = username, reason = %error, "mqtt login refused");
                None
            }
        }
    }

    async fn principal(&self, username: &str) -> Option<Principal> {
        let device = DeviceId::parse(username).ok()?;
        let record = self.record(&device).await.ok()??;
        (record.status == DeviceStatus::Active && !self.is_expired(&record)).then(|| self.to_principal(&record))
    }
}

/// Past the cache: a broker must not be told what another server has changed since.
#[async_trait]
impl AccountBook for Directory {
    async fn account(&self, device: &DeviceId) -> Result<Option<Account>, RegistrarError> {
        let record = self.store.device(device).await.map_err(unreadable)?;
        Ok(record.and_then(|record| self.to_account(&record)))
    }

    async fn accounts(&self, after: Option<&DeviceId>) -> Result<AccountPage, RegistrarError> {
        let records = self.store.devices(None, after.map(DeviceId::as_str), ACCOUNTS_PER_PAGE).await.map_err(unreadable)?;
        let next = (records.len() == ACCOUNTS_PER_PAGE).then(|| records.last().map(|record| record.device.clone())).flatten();
        Ok((records.iter().filter_map(|record| self.to_account(record)).collect(), next))
    }
}

fn unreadable(error: StoreError) -> RegistrarError {
    RegistrarError::Registry(error.to_string())
}
