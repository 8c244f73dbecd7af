//! The seam to an external broker that decides for itself: what it should know of each device, told by whoever holds the registry.
//!
//! It decides nothing: an account is what the registry says, written out for a broker.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use mstore_protocol::{Collection, DeviceId, Scope, Topic};
use tokio::sync::watch;

use crate::{broker::Kicked, policy};

/// What a broker should know of one device that may work now.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id, which is its user name and its client id too.
    pub device: DeviceId,
    /// The branch it belongs to.
    pub scope: Scope,
    /// The collections it may follow.
    pub collections: Vec<Collection>,
    /// Its password. A broker that can hold one only has the old one until the new one was used: a lost answer locks nobody out.
    pub token: Arc<str>,
}

impl Account {
    /// The topics that it receives.
    pub(crate) fn topics(&self) -> Vec<String> {
        policy::own_topics(&self.scope, &self.collections).collect()
    }

    /// The filters that it may use, to be compared as strings.
    pub(crate) fn filters(&self) -> Vec<String> {
        let mut filters = self.topics();
        filters.push(Topic::updates_filter(&self.scope));
        filters
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}, {}, {:?}, …)", self.device, self.scope, self.collections)
    }
}

/// A page of accounts, and the device to go on behind.
pub type AccountPage = (Vec<Account>, Option<DeviceId>);

/// The device registry, as far as accounts are concerned.
#[async_trait]
pub trait AccountBook: Send + Sync {
    /// The account of a device now; `None` when it may nothing.
    async fn account(&self, device: &DeviceId) -> Result<Option<Account>, RegistrarError>;

    /// The accounts there are, by id.
    async fn accounts(&self, after: Option<&DeviceId>) -> Result<AccountPage, RegistrarError>;
}

/// What it took to bring an account in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Nothing: it was.
    Unchanged,
    /// The broker has it now, and has ended the device's connection if it knew the device before.
    Changed,
}

/// Why an account is not in step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrarError {
    /// The broker, or the part of it that keeps accounts, does not answer.
    #[error("the broker's accounts cannot be reached: {0}")]
    Away(String),
    /// It answers, and does not do it.
    #[error("the broker refuses: {0}")]
    Refused(String),
    /// There is an account of that name which is not ours to change.
    #[error("the broker has an account {0} that was not made by this server; rename or remove it there")]
    Foreign(DeviceId),
    /// The registry could not be read.
    #[error("the device registry: {0}")]
    Registry(String),
}

/// Keeps the accounts of one external broker. Everything may be asked for again: what is in step already stays as it is.
#[async_trait]
pub trait Registrar: Send + Sync {
    /// Counts the times that the broker came within reach: after each, it may have forgotten or remembered things.
    fn reached(&self) -> watch::Receiver<u64>;

    /// Brings one account in step; `None` takes it away. Returns when the broker acts by it.
    async fn settle(&self, device: &DeviceId, wanted: Option<&Account>) -> Result<Settled, RegistrarError>;

    /// Ends a device's connection and what is kept for it, where that does not come with [`Self::settle`].
    async fn end_session(&self, device: &DeviceId) -> Result<Kicked, RegistrarError>;

    /// The devices that the broker knows otherwise than the registry does. Mends nothing of theirs.
    async fn survey(&self, book: &dyn AccountBook) -> Result<Vec<DeviceId>, RegistrarError>;
}
