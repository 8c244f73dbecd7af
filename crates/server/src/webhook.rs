//! The webhook: brings operations to the backend of a merchant that decides, in the order of each branch, and its verdicts back.
//!
//! What is to be delivered and what became of it is in the store's inbox; nothing is remembered here that a restart could lose. A delivery may arrive more
//! than once (the answer was lost, the server died before it could write it down): its idempotency key is the operation's id.

mod answer;
mod caller;
mod deliverer;
mod signature;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mstore_protocol::{BranchKey, Code, OperationId, Profile, Verdict, VerdictStatus};
use mstore_store::Store;
use tokio::{
    sync::{Notify, Semaphore, broadcast},
    time::timeout,
};

use self::caller::Caller;
pub(crate) use self::deliverer::run;

/// Attempts remembered for uploads that wait to hear of them.
const HEARD_MAX: usize = 4_096;
/// Uploads that may wait for verdicts at one time; further ones are answered at once, with `awaits_backend`.
const WAITING_MAX: usize = 256;

/// Where operations are delivered, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// The backend's address. Plain HTTP only to this machine, or in the development profile.
    pub url: String,
    /// What deliveries are signed with.
    pub secret: WebhookSecret,
    /// One attempt, from connecting to the end of the answer, default 10 s.
    pub timeout: Duration,
    /// How long an upload waits for verdicts, default 2 s; 0: it does not. Longer makes a slow backend felt at the till.
    pub answer_wait: Duration,
    /// After the first failure, default 1 s; doubled with each further one, up to `retry_max`, half of it at random.
    pub retry_min: Duration,
    /// Between two attempts at most, default 60 s. What the backend refuses waits up to 60 times as long.
    pub retry_max: Duration,
    /// Deliveries under way at one time, default 16; of a branch one.
    pub in_flight_max: usize,
}

impl WebhookConfig {
    /// With defaults.
    pub fn new(url: impl Into<String>, secret: WebhookSecret) -> Self {
        Self {
            url: url.into(),
            secret,
            timeout: Duration::from_secs(10),
            answer_wait: Duration::from_secs(2),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(60),
            in_flight_max: 16,
        }
    }
}

impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may hold credentials.
        let host = self.url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).and_then(|host| host.rsplit('@').next());
        write!(f, "WebhookConfig({}, secret …, timeout {:?})", host.unwrap_or("?"), self.timeout)
    }
}

/// What deliveries are signed with; both sides know it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// Shortest secret, in bytes.
    pub const BYTES_MIN: usize = 16;

    /// A secret of at least [`Self::BYTES_MIN`] bytes.
    pub fn new(secret: impl Into<Vec<u8>>) -> Option<Self> {
        let secret = secret.into();
        (secret.len() >= Self::BYTES_MIN).then_some(Self(secret))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// What those who wait hear.
#[derive(Debug, Clone)]
enum Heard {
    /// This operation was delivered, or refused.
    Attempted(OperationId),
    /// Nothing gets through from this branch now.
    Stuck(BranchKey),
}

/// The webhook of a server.
pub(crate) struct Webhook {
    config: WebhookConfig,
    caller: Caller,
    wake: Notify,
    heard: broadcast::Sender<Heard>,
    stuck: Mutex<BTreeSet<BranchKey>>,
    waiting: Semaphore,
}

impl Webhook {
    /// Checks the address and makes the HTTP client; tells why it cannot.
    pub(crate) fn new(config: WebhookConfig, profile: Profile) -> Result<Self, String> {
        if !profile.allows(&config.url) {
            return Err("its URL would take sales across a network in the clear; use https://, or the development profile".into());
        }
        let caller = Caller::new(&config)?;
        let (heard, _) = broadcast::channel(HEARD_MAX);
        Ok(Self { config, caller, wake: Notify::new(), heard, stuck: Mutex::default(), waiting: Semaphore::new(WAITING_MAX) })
    }

    /// Listens to attempts from now on.
    pub(crate) fn listen(&self) -> Listener<'_> {
        Listener { webhook: self, heard: self.heard.subscribe() }
    }

    fn set_stuck(&self, key: &BranchKey, is_stuck: bool) {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        if is_stuck {
            stuck.insert(key.clone())
        } else {
            stuck.remove(key)
        };
    }

    fn is_stuck(&self, key: &BranchKey) -> bool {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }
}

/// Hears of attempts since it was made.
pub(crate) struct Listener<'a> {
    webhook: &'a Webhook,
    heard: broadcast::Receiver<Heard>,
}

impl Listener<'_> {
    /// Waits, for a short time, until the backend has said something to every operation of an upload; gives the verdicts as they are then.
    pub(crate) async fn settled(mut self, store: &dyn Store, key: &BranchKey, verdicts: Vec<Verdict>) -> Vec<Verdict> {
        let awaits = |verdict: &&Verdict| verdict.status != VerdictStatus::Rejected && verdict.code == Some(Code::AwaitsBackend);
        let ids: Vec<OperationId> = verdicts.iter().filter(awaits).filter_map(|verdict| OperationId::parse(&verdict.id)).collect();
        if ids.is_empty() {
            return verdicts;
        }
        self.webhook.wake.notify_one();
        let Ok(_permit) = self.webhook.waiting.try_acquire() else { return verdicts };
        if self.webhook.is_stuck(key) {
            return verdicts;
        }
        let wait = self.webhook.config.answer_wait;
        let _too_long = timeout(wait, self.all_attempted(key, ids.iter().copied().collect())).await;
        match store.verdicts(&key.merchant, ids).await {
            Ok(standing) => verdicts.into_iter().map(|verdict| as_it_stands(verdict, &standing)).collect(),
            Err(error) => {
                tracing::warn!(%error, "verdicts of a backend not read; the till asks again");
                verdicts
            }
        }
    }

    async fn all_attempted(&mut self, key: &BranchKey, mut open: BTreeSet<OperationId>) {
        while !open.is_empty() {
            match self.heard.recv().await {
                Ok(Heard::Attempted(id)) => {
                    open.remove(&id);
                }
                Ok(Heard::Stuck(stuck)) if stuck == *key => return,
                Ok(Heard::Stuck(_)) => {}
                // What was missed may have been what is waited for.
                Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

/// A verdict with what the backend has said meanwhile. Whether the operation came for the first time is not the backend's business.
fn as_it_stands(verdict: Verdict, standing: &[Verdict]) -> Verdict {
    match standing.iter().find(|standing| standing.id == verdict.id) {
        Some(now) if now.status == VerdictStatus::Rejected => now.clone(),
        Some(now) => Verdict { status: verdict.status, ..now.clone() },
        None => verdict,
    }
}
