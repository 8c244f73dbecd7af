//! What the parts of the store share: connections, heads in memory, the outbox, which shards are ours and until when.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use deadpool_postgres::{Object, Pool};
use mstore_protocol::{BranchKey, DeviceId, Head};
use tokio::sync::{Notify, broadcast, oneshot};

use super::{PgConfig, attach::Live, connect::Connector, snapshot::Shards, waiters::Waiters};
use crate::{StoreError, fresh::Outbox};

/// Changes of devices that a listener may be behind.
const DEVICES_MAX: usize = 256;

/// Shared state.
pub(super) struct Shared {
    /// Settings.
    pub(super) config: PgConfig,
    /// How to connect.
    pub(super) connector: Connector,
    /// Tables of others that are collections.
    pub(super) attached: Live,
    /// Connections for reads.
    pub(super) pool: Pool,
    /// This server, as other servers know it; another one after every start.
    pub(super) server_id: String,
    /// On its way to the broker.
    pub(super) outbox: Outbox,
    /// Who waits to be sequenced.
    pub(super) waiters: Arc<Waiters>,
    /// Wakes the sequencer: there are marks.
    pub(super) wake: Arc<Notify>,
    /// Woken when somebody begins to wait to be sequenced.
    pub(super) waiting: Notify,
    /// Devices that were changed, by whichever server.
    pub(super) devices: broadcast::Sender<DeviceId>,
    ended: Notify,
    closed: Notify,
    barriers: Mutex<Vec<oneshot::Sender<()>>>,
    takeovers: AtomicU64,
    heads: RwLock<HashMap<BranchKey, Head>>,
    shards: AtomicU64,
    lease_until: Mutex<Option<Instant>>,
    is_committing: AtomicBool,
    is_closed: AtomicBool,
    has_ended: AtomicBool,
}

impl Shared {
    /// At the beginning: nothing is ours.
    pub(super) fn new(config: PgConfig, connector: Connector, pool: Pool, server_id: String) -> Self {
        let outbox = Outbox::new(config.fresh_max, 1);
        Self {
            connector,
            attached: Live::new(config.personal_data.clone()),
            config,
            pool,
            server_id,
            outbox,
            waiters: Arc::default(),
            wake: Arc::default(),
            waiting: Notify::new(),
            devices: broadcast::channel(DEVICES_MAX).0,
            ended: Notify::new(),
            closed: Notify::new(),
            barriers: Mutex::default(),
            takeovers: AtomicU64::new(0),
            heads: RwLock::default(),
            shards: AtomicU64::new(0),
            lease_until: Mutex::new(None),
            is_committing: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }
    }

    /// A connection for a read.
    pub(super) async fn reader(&self) -> Result<Object, StoreError> {
        if self.is_closed() {
            return Err(StoreError::Closed);
        }
        Ok(self.pool.get().await?)
    }

    /// The shards that this server sequences and publishes: none when its lease may be over.
    pub(super) fn owned(&self) -> Shards {
        let until = *self.lease_until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| Instant::now() < until) { self.held() } else { Shards::default() }
    }

    /// The shards that the database gave us, lease or no lease.
    pub(super) fn held(&self) -> Shards {
        Shards(self.shards.load(Ordering::Acquire))
    }

    /// Other shards are ours now.
    pub(super) fn set_held(&self, shards: Shards) {
        self.shards.store(shards.0, Ordering::Release);
        self.heads.write().unwrap_or_else(PoisonError::into_inner).retain(|key, _| shards.have(key));
    }

    /// The lease was renewed, or is lost.
    pub(super) fn set_lease(&self, until: Option<Instant>) {
        let before = std::mem::replace(&mut *self.lease_until.lock().unwrap_or_else(PoisonError::into_inner), until);
        if until.is_some() && before.is_none_or(|before| before < Instant::now()) {
            // What was not published meanwhile.
            self.outbox.wake.notify_one();
        }
    }

    /// The database knew nothing of our lease when it was asked at that time; it may have been given since.
    pub(super) fn no_lease_at(&self, asked: Instant) {
        let mut until = self.lease_until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| until <= asked + self.config.lease) {
            *until = None;
        }
    }

    /// The head of a branch that is ours, from memory; not while that may be older than what another server can read already.
    pub(super) fn own_head(&self, key: &BranchKey) -> Option<Head> {
        if self.is_committing() {
            return None;
        }
        self.heads.read().unwrap_or_else(PoisonError::into_inner).get(key).filter(|_| self.owned().have(key)).cloned()
    }

    /// All heads in memory.
    pub(super) fn heads(&self) -> Vec<(BranchKey, Head)> {
        let heads = self.heads.read().unwrap_or_else(PoisonError::into_inner);
        heads.iter().map(|(key, head)| (key.clone(), head.clone())).collect()
    }

    /// A round is about to commit, or what it did is in memory now.
    pub(super) fn set_committing(&self, is_committing: bool) {
        self.is_committing.store(is_committing, Ordering::SeqCst);
    }

    /// Whether heads in the database may be newer than those in memory.
    pub(super) fn is_committing(&self) -> bool {
        self.is_committing.load(Ordering::SeqCst)
    }

    /// The head is this now, durably.
    pub(super) fn set_head(&self, key: BranchKey, head: Head) {
        self.heads.write().unwrap_or_else(PoisonError::into_inner).insert(key, head);
    }

    /// Nothing more is accepted.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.wake.notify_one();
        self.waiting.notify_one();
        self.closed.notify_waiters();
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Until it is closed.
    pub(super) async fn until_closed(&self) {
        let closed = self.closed.notified();
        tokio::pin!(closed);
        closed.as_mut().enable();
        if !self.is_closed() {
            closed.await;
        }
    }

    /// Until everything of this server's branches is sequenced that is there now.
    pub(super) async fn sequenced(&self) {
        let (done, wait) = oneshot::channel();
        self.barriers.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        self.wake.notify_one();
        // An error means that there is nobody to do it here.
        let _nothing = wait.await;
    }

    /// Who waits for that.
    pub(super) fn take_barriers(&self) -> Vec<oneshot::Sender<()>> {
        std::mem::take(&mut self.barriers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Branches came to this server.
    pub(super) fn took_over(&self) {
        self.takeovers.fetch_add(1, Ordering::Release);
        self.outbox.wake.notify_one();
    }

    /// How often that was.
    pub(super) fn takeovers(&self) -> u64 {
        self.takeovers.load(Ordering::Acquire)
    }

    /// The sequencer has ended.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.waiters.close();
        drop(self.take_barriers());
        self.ended.notify_waiters();
        self.outbox.wake.notify_waiters();
    }

    /// Until the sequencer has ended.
    pub(super) async fn until_ended(&self) {
        let ended = self.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        if !self.has_ended.load(Ordering::Acquire) {
            ended.await;
        }
    }
}
