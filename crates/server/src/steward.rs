//! Keeps an external broker's accounts in step with the device registry: tells it every change, and compares all of them whenever the broker came
//! back, and now and then.
//!
//! It decides nothing: an account is what the registry says at the moment when it is told. What could not be told is told again until it could.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mstore_broker::{AccountBook as _, Kicked, Registrar, RegistrarError, Settled};
use mstore_protocol::DeviceId;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

use crate::auth::Directory;

/// A revocation's answer does not wait longer for the broker; what is left to do is done afterwards.
const KICK_WITHIN: Duration = Duration::from_secs(2);
/// A pause as long as the change took, within these: a broker that rewrites all its accounts at each change has its hands free half of the time.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// After a change that could not be told.
const RETRY: Duration = Duration::from_secs(1);
/// After a comparison that could not be made.
const SURVEY_RETRY: Duration = Duration::from_secs(5);

/// What stands between the registry and a broker's accounts.
pub(crate) struct Steward {
    registrar: Arc<dyn Registrar>,
    directory: Arc<Directory>,
    surveys_every: Duration,
    /// One account at a time is read and told: what is told last is what the registry said last.
    telling: tokio::sync::Mutex<()>,
    differing: Mutex<Differing>,
    changed: AtomicU64,
}

/// Accounts that are known to be out of step.
#[derive(Default)]
struct Differing {
    /// To be told, each not before its time.
    open: BTreeMap<DeviceId, Instant>,
    /// Nobody is told before this.
    next: Option<Instant>,
    /// The broker does not take them; until the next survey.
    refused: BTreeSet<DeviceId>,
}

/// How the accounts are doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Drift {
    /// Accounts that differ from the registry, as far as is known.
    pub(crate) differing: usize,
    /// Accounts changed at the broker since the start.
    pub(crate) changed: u64,
}

impl Steward {
    pub(crate) fn new(registrar: Arc<dyn Registrar>, directory: Arc<Directory>, surveys_every: Duration) -> Self {
        Self {
            registrar,
            directory,
            surveys_every,
            telling: tokio::sync::Mutex::default(),
            differing: Mutex::default(),
            changed: AtomicU64::default(),
        }
    }

    pub(crate) fn drift(&self) -> Drift {
        let differing = self.lock();
        Drift { differing: differing.open.len() + differing.refused.len(), changed: self.changed.load(Ordering::Relaxed) }
    }

    /// Tells the broker what a device may do from now on and ends its session. Where the broker cannot be told, that is done once it can.
    pub(crate) async fn kick(&self, device: &DeviceId) -> Kicked {
        // First of all, so that it is done even if this is cut off in the middle; and not by two at a time: the second one would end the session
        // that the device has begun meanwhile.
        self.lock().open.insert(device.clone(), Instant::now() + KICK_WITHIN);
        match timeout(KICK_WITHIN, self.put_right(device)).await {
            Ok(kicked) => kicked.unwrap_or(Kicked::Absent),
            Err(_late) => {
                tracing::warn!(device = device.as_str(), "the broker has not yet taken a change of this device");
                Kicked::Closing
            }
        }
    }

    /// Follows the registry until told otherwise.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut changes = self.directory.changes();
        let mut reached = self.registrar.reached();
        reached.mark_changed();
        let mut surveys = interval(self.surveys_every);
        surveys.set_missed_tick_behavior(MissedTickBehavior::Delay);
        surveys.reset();
        loop {
            let mend_at = self.next_mend();
            let is_due = tokio::select! {
                biased;
                change = changes.recv() => match change {
                    Ok(device) => {
                        self.tell(&device).await;
                        false
                    }
                    Err(RecvError::Lagged(_)) => true,
                    Err(RecvError::Closed) => return,
                },
                _ = reached.changed() => *reached.borrow_and_update() > 0,
                _ = surveys.tick() => true,
                () = sleep_until(mend_at.unwrap_or_else(Instant::now)), if mend_at.is_some() => {
                    self.mend().await;
                    false
                }
            };
            if is_due && !self.survey().await {
                surveys.reset_after(SURVEY_RETRY);
            }
        }
    }

    /// A change of the registry, told at once; a session that it ends is ended by whoever made it.
    async fn tell(&self, device: &DeviceId) {
        if let Err(error) = self.settle(device).await {
            self.keep(device, &error);
        }
    }

    async fn settle(&self, device: &DeviceId) -> Result<Settled, RegistrarError> {
        let _telling = self.telling.lock().await;
        let account = self.directory.account(device).await?;
        let settled = self.registrar.settle(device, account.as_ref()).await?;
        if settled == Settled::Changed {
            self.changed.fetch_add(1, Ordering::Relaxed);
            tracing::info!(device = device.as_str(), may_work = account.is_some(), "the broker knows the device as it is now");
        }
        Ok(settled)
    }

    /// The account as it should be, and nobody left who was let in by what it was.
    async fn put_right(&self, device: &DeviceId) -> Result<Kicked, RegistrarError> {
        let outcome = match self.settle(device).await {
            Ok(_settled) => self.registrar.end_session(device).await,
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(_kicked) => {
                let mut differing = self.lock();
                differing.open.remove(device);
                differing.refused.remove(device);
            }
            Err(error) => self.keep(device, error),
        }
        outcome
    }

    fn keep(&self, device: &DeviceId, error: &RegistrarError) {
        let mut differing = self.lock();
        match error {
            RegistrarError::Away(_) | RegistrarError::Registry(_) => {
                tracing::warn!(device = device.as_str(), %error, "an account at the broker is not in step");
                differing.open.insert(device.clone(), Instant::now() + RETRY);
            }
            RegistrarError::Refused(_) | RegistrarError::Foreign(_) => {
                tracing::error!(device = device.as_str(), %error, "an account at the broker cannot be brought in step");
                differing.open.remove(device);
                differing.refused.insert(device.clone());
            }
        }
    }

    fn next_mend(&self) -> Option<Instant> {
        let differing = self.lock();
        let first = differing.open.values().min().copied()?;
        Some(differing.next.map_or(first, |next| next.max(first)))
    }

    /// Mends one account that differs.
    async fn mend(&self) {
        let begun = Instant::now();
        let due = self.lock().open.iter().find(|(_, due)| **due <= begun).map(|(device, _)| device.clone());
        let Some(device) = due else { return };
        if self.put_right(&device).await.is_ok() {
            self.lock().next = Some(Instant::now() + begun.elapsed().clamp(PAUSE_MIN, PAUSE_MAX));
        }
    }

    /// Compares everything; what differs is mended one by one. Whether it could be compared.
    async fn survey(&self) -> bool {
        match self.registrar.survey(&*self.directory).await {
            Ok(found) => {
                let mut differing = self.lock();
                differing.refused.clear();
                differing.next = None;
                if !found.is_empty() {
                    tracing::warn!(accounts = found.len(), "the broker knows devices otherwise than the registry does");
                }
                for device in found {
                    differing.open.entry(device).or_insert_with(Instant::now);
                }
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the broker's accounts were not compared");
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Differing> {
        self.differing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
