//! The store on PostgreSQL: any server carries out writes, each branch is sequenced by one server at a time, triggers capture what any program writes.

mod admin;
mod agree;
pub mod attach;
mod changes;
mod check;
mod config;
mod connect;
mod error;
mod horizon;
mod jobs;
mod lease;
mod life;
mod migrate;
mod mirror;
mod outbox;
mod queues;
mod restore;
mod seen;
mod sequencer;
mod session;
mod shared;
mod snapshot;
mod source;
mod sweep;
mod tasks;
mod tls;
mod upkeep;
mod waiters;

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

pub use agree::Disagreement;
use async_trait::async_trait;
pub use config::PgConfig;
pub use error::PgOpenError;
use mstore_protocol::{BranchKey, Collection, DeviceId, Digest, Head, OperationId, PersonalData, SUB_DIGESTS, Seq, Timestamp, Verdict};
use tokio::sync::{Notify, broadcast, oneshot};

use self::{
    connect::Connector, jobs::Jobs, life::Xid, seen::Sequencing, sequencer::Sequencer, shared::Shared, snapshot::Shards, waiters::Wait,
};
use crate::{
    AcceptUpload, ChangesAsk, ChangesError, ChangesSummary, OutboxEntry, RowSink, Sharing, SourceWrite, StoreError, SweepReport, SyncStore,
    Written,
    cases::{self, Carrier, Case, Seen, Work},
    sql::Sql,
};

/// Marks are found by their index, also when the statistics do not know yet that there are many; plans are made once.
const OF_SEQUENCER: &str = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan";
/// How long opening waits for what was written while no server ran.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Outbox ids of a server's start begin at its number times two to this power.
const IDS_PER_START: u32 = 40;

/// Server storage in the schema `mstore` of a PostgreSQL database, which several servers may share. Dropping it without [`crate::Admin::close`] loses nothing
/// that was answered.
pub struct PgStore {
    shared: Arc<Shared>,
    jobs: Jobs<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl PgStore {
    /// Opens the database, brings the schema up to date, and sequences what was written while no server ran.
    pub async fn open(config: PgConfig) -> Result<Arc<Self>, PgOpenError> {
        let connector = Connector::new(&config)?;
        let client = check::check(&connector).await?;
        migrate::up(&client).await?;
        drop(client);
        let pool = connector.pool(config.connections, "")?;
        let mut client = pool.get().await.map_err(StoreError::from)?;
        upkeep::notice_another_cluster(&mut client).await?;
        upkeep::advance_cutoff(&mut client, &config, (config.clock)()).await?;
        let start = client.query_one("SELECT nextval('server_start')", &[]).await.map_err(StoreError::from)?;
        lease::end_earlier(&client, &config.server_name).await.map_err(StoreError::from)?;
        drop(client);
        let first_id = u64::try_from(start.get::<_, i64>(0)).unwrap_or(0) << IDS_PER_START;
        let server_id = format!("{}.{:016x}", config.server_name, rand::random::<u64>());
        let shared = Arc::new(Shared::new(config, connector, pool.clone(), server_id));
        let (ready, is_ready) = oneshot::channel();
        let sequencer = Sequencer::new(Arc::clone(&shared), shared.connector.pool(1, OF_SEQUENCER)?, first_id);
        let threads = vec![thread("mstore-sequencer", sequencer.run(ready))?, thread("mstore-lease", tasks::run(Arc::clone(&shared)))?];
        let store = Arc::new(Self { jobs: Jobs::new(pool, Arc::clone(&shared)), shared, threads: Mutex::new(threads) });
        // Whatever keeps it from beginning is in the log; devices can be served meanwhile.
        let _late = tokio::time::timeout(READY_WITHIN, is_ready).await;
        Ok(store)
    }

    fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
    }
}

/// Whoever drops it has no time to wait: the threads hand the branches over by themselves.
impl Drop for PgStore {
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn thread(name: &str, work: impl Future<Output = ()> + Send + 'static) -> Result<JoinHandle<()>, PgOpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(std::thread::Builder::new().name(name.into()).spawn(move || runtime.block_on(work))?)
}

impl Sequencing for Shared {
    fn now(&self) -> Timestamp {
        (self.config.clock)()
    }

    fn personal_data(&self) -> &PersonalData {
        &self.config.personal_data
    }

    fn owned(&self) -> Shards {
        self.held()
    }

    fn register(&self, xid: Xid, branches: BTreeSet<BranchKey>) -> Wait {
        let wait = self.waiters.register(xid, branches);
        self.waiting.notify_one();
        wait
    }

    fn wake(&self) {
        self.wake.notify_one();
    }
}

impl Carrier for PgStore {
    async fn carry<T: Send + 'static, R: Send + 'static>(
        &self,
        case: impl Into<Case> + Send,
        run: impl FnMut(&mut Work<'_>) -> Result<T, StoreError> + Send + 'static,
        finish: impl FnOnce(T, &Seen) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        if self.shared.is_closed() {
            return Err(StoreError::Closed);
        }
        self.jobs.carry(case.into(), run, finish).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.shared.is_closed() {
            return Err(StoreError::Closed);
        }
        self.jobs.read(read).await
    }
}

impl Sharing for PgStore {
    fn owns(&self, key: &BranchKey) -> bool {
        self.shared.owned().have(key)
    }

    fn takeovers(&self) -> u64 {
        self.shared.takeovers()
    }

    fn devices_changed_elsewhere(&self) -> Option<broadcast::Receiver<DeviceId>> {
        Some(self.shared.devices.subscribe())
    }
}

#[async_trait]
impl SyncStore for PgStore {
    async fn write(&self, write: SourceWrite) -> Result<Written, StoreError> {
        cases::write(self, write).await
    }

    async fn accept(&self, upload: AcceptUpload) -> Result<Vec<Verdict>, StoreError> {
        cases::accept(self, upload).await
    }

    /// Of branches that this server sequences, from memory; of others, and while a round is being committed, it is read from the database each time: whatever a
    /// device has heard from another server was committed before, so no answer is older than that.
    async fn head(&self, key: &BranchKey) -> Result<Option<Head>, StoreError> {
        if self.shared.is_closed() {
            return Err(StoreError::Closed);
        }
        if let Some(head) = self.shared.own_head(key) {
            return Ok(Some(head));
        }
        let client = self.shared.reader().await?;
        Ok(mirror::head(&client, key).await?.map(|entry| entry.head()))
    }

    async fn changes(&self, ask: ChangesAsk, sink: Box<dyn RowSink>) -> Result<(ChangesSummary, Box<dyn RowSink>), ChangesError> {
        let mut sink = sink;
        let mut client = self.shared.reader().await?;
        let error = match changes::changes(&mut client, &ask, &mut *sink).await {
            Ok(summary) => return Ok((summary, sink)),
            Err(error) => error,
        };
        drop(client);
        let (ChangesError::Restored { cursor }, Some(epoch)) = (&error, ask.after.map(|cursor| cursor.epoch)) else { return Err(error) };
        let restarted = restore::new_epoch(self, &ask.key, epoch, *cursor).await?;
        if restarted { Err(error) } else { Err(ChangesError::SnapshotRequired(format!("this server does not remember {cursor}"))) }
    }

    async fn own_operations(&self, key: &BranchKey, device: &DeviceId, from: Seq, to: Seq) -> Result<Vec<OperationId>, StoreError> {
        changes::own_operations(&self.shared.reader().await?, key, device, from, to).await
    }

    async fn digests(&self, key: &BranchKey, collection: &Collection) -> Result<(Head, Box<[Digest; SUB_DIGESTS]>), StoreError> {
        let mut client = self.shared.reader().await?;
        let found = changes::digests(&mut client, key, collection).await?;
        if found.add_up {
            return Ok((found.head, found.sums));
        }
        drop(client);
        // A device has noticed it before the sweep did.
        sweep::collection(self, key, collection).await?;
        let mut client = self.shared.reader().await?;
        let mended = changes::digests(&mut client, key, collection).await?;
        Ok((mended.head, mended.sums))
    }

    async fn rows(&self, key: &BranchKey, collection: &Collection, ranges: &[u8]) -> Result<(Head, Vec<(String, Seq)>), StoreError> {
        changes::rows(&mut self.shared.reader().await?, key, collection, ranges).await
    }

    async fn outbox(&self, after: u64, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        let client = self.shared.reader().await?;
        let known = self.shared.outbox.known();
        let entries = outbox::read(&client, self.shared.owned(), after, limit).await?;
        Ok(self.shared.outbox.joined(known, entries, limit))
    }

    async fn acknowledged(&self, ids: Vec<u64>) -> Result<(), StoreError> {
        self.shared.outbox.acknowledge(ids);
        Ok(())
    }

    fn outbox_wake(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.outbox.wake)
    }

    /// Nothing while the lease may be over: somebody else may be publishing already.
    fn take_fresh(&self) -> Vec<OutboxEntry> {
        let owned = self.shared.owned();
        if owned.count() == 0 {
            return Vec::new();
        }
        self.shared.outbox.take().into_iter().filter(|entry| owned.have(&entry.key)).collect()
    }

    async fn sweep(&self, from: Option<String>, rows_max: usize) -> Result<SweepReport, StoreError> {
        sweep::slice(self, from.as_deref(), rows_max).await
    }
}
