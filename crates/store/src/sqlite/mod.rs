//! The store on SQLite: one thread writes and sequences, a pool reads, triggers capture what any other program writes.

mod admin;
mod backup;
mod changes;
mod checkpoint;
mod config;
mod connection;
mod error;
mod job;
mod mirror;
mod outbox;
mod readers;
mod restore;
mod seam;
mod sequencer;
mod shared;
mod source;
mod sweep;
mod upkeep;
mod writer;

use std::sync::{
    Arc, Mutex, PoisonError,
    mpsc::{SyncSender, sync_channel},
};

use async_trait::async_trait;
pub use backup::{BackupError, Copied, backup, check};
pub use config::{Clock, SqliteConfig};
pub use error::OpenError;
use mstore_protocol::{BranchKey, Collection, DeviceId, Digest, Head, OperationId, PersonalData, SUB_DIGESTS, Seq, Verdict};
use tokio::sync::{Notify, Semaphore};

use self::{
    job::{Task, Work},
    outbox::Outbox,
    readers::Readers,
    sequencer::Sequencer,
    shared::Shared,
    writer::{Command, Writer},
};
use crate::{
    AcceptUpload, ChangesAsk, ChangesError, ChangesSummary, OutboxEntry, RowSink, Sharing, SourceWrite, StoreError, SweepReport, SyncStore,
    Written,
    cases::{self, Carrier, Case, Seen, Size},
    sql::Sql,
};

/// Writes that may wait in the queue; further callers wait before they enter it.
const QUEUE_MAX: usize = 1_024;

/// Server storage in one SQLite file. Dropping it without [`crate::Admin::close`] loses nothing that was answered.
pub struct SqliteStore {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    queue: SyncSender<Command>,
    permits: Semaphore,
    personal: Arc<PersonalData>,
    ledger_keep_days: u32,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens or makes the database and sequences what other programs changed while no server ran.
    pub fn open(config: SqliteConfig) -> Result<Arc<Self>, OpenError> {
        let conn = connection::writer(&config)?;
        let read = |source| OpenError::Read { path: config.path.clone(), source };
        let sequencer = Sequencer::load(&conn).map_err(read)?;
        let shared = Arc::new(Shared::new(Outbox::new(config.fresh_max, outbox::newest(&conn).map_err(read)?)));
        let (queue, commands) = sync_channel(2 * QUEUE_MAX);
        let writer = Writer::new(conn, config.clone(), Arc::clone(&shared), sequencer, commands).map_err(read)?;
        let threads = vec![
            std::thread::Builder::new().name("mstore-writer".into()).spawn(move || writer.run())?,
            checkpoint::spawn(config.path.clone(), Arc::clone(&shared))?,
        ];
        let readers = Readers::new(config.path.clone(), config.readers);
        let personal = Arc::new(config.personal_data);
        let (permits, ledger_keep_days) = (Semaphore::new(QUEUE_MAX), config.ledger_keep_days);
        Ok(Arc::new(Self { shared, readers, queue, permits, personal, ledger_keep_days, threads: Mutex::new(threads) }))
    }

    /// Hands a job to the writer and waits for its answer.
    async fn submit<T: Send + 'static, R: Send + 'static>(
        &self,
        size: Size,
        run: impl FnOnce(&mut Work<'_>) -> Result<T, StoreError> + Send + 'static,
        finish: impl FnOnce(T, &Seen) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let _permit = self.permits.acquire().await.map_err(|_| StoreError::Closed)?;
        let (job, answer) = Task::boxed(size == Size::Large, run, finish);
        // The queue is larger than the permits: it is full only when many callers gave up waiting.
        self.queue.try_send(Command::Job(job)).map_err(|error| match error {
            std::sync::mpsc::TrySendError::Full(_) => {
                StoreError::Busy { code: mstore_protocol::Code::Unavailable, detail: "too many writes are waiting".into() }
            }
            std::sync::mpsc::TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        answer.await.map_err(|_| match self.shared.is_closed() {
            true => StoreError::Closed,
            false => StoreError::Failed("the write went down with an error of the server; see the log".into()),
        })?
    }

    fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
    }
}

impl Carrier for SqliteStore {
    async fn carry<T: Send + 'static, R: Send + 'static>(
        &self,
        case: impl Into<Case> + Send,
        mut run: impl FnMut(&mut cases::Work<'_>) -> Result<T, StoreError> + Send + 'static,
        finish: impl FnOnce(T, &Seen) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        self.submit(case.into().size, move |work| run(&mut work.case), finish).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.read(|conn| read(conn)).await
    }
}

/// A file has one server: its data directory is locked.
impl Sharing for SqliteStore {}

#[async_trait]
impl SyncStore for SqliteStore {
    async fn write(&self, write: SourceWrite) -> Result<Written, StoreError> {
        cases::write(self, write).await
    }

    async fn accept(&self, upload: AcceptUpload) -> Result<Vec<Verdict>, StoreError> {
        cases::accept(self, upload).await
    }

    async fn head(&self, key: &BranchKey) -> Result<Option<Head>, StoreError> {
        if self.shared.is_closed() { Err(StoreError::Closed) } else { Ok(self.shared.head(key)) }
    }

    async fn changes(&self, ask: ChangesAsk, sink: Box<dyn RowSink>) -> Result<(ChangesSummary, Box<dyn RowSink>), ChangesError> {
        let key = ask.key.clone();
        let epoch = ask.after.map(|cursor| cursor.epoch);
        let read = move |conn: &rusqlite::Connection| {
            let mut sink = sink;
            changes::changes(conn, &ask, &mut *sink).map(|summary| (summary, sink))
        };
        let error = match self.readers.read(read).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let (ChangesError::Restored { cursor }, Some(epoch)) = (&error, epoch) else { return Err(error) };
        let cursor = *cursor;
        let restarted =
            self.submit(Size::Small, move |work| restore::new_epoch(work, &key, epoch, cursor), |restarted, _| restarted).await?;
        if restarted { Err(error) } else { Err(ChangesError::SnapshotRequired(format!("this server does not remember {cursor}"))) }
    }

    async fn own_operations(&self, key: &BranchKey, device: &DeviceId, from: Seq, to: Seq) -> Result<Vec<OperationId>, StoreError> {
        let (key, device) = (key.clone(), device.clone());
        self.readers.read(move |conn| changes::own_operations(conn, &key, &device, from, to)).await
    }

    async fn digests(&self, key: &BranchKey, collection: &Collection) -> Result<(Head, Box<[Digest; SUB_DIGESTS]>), StoreError> {
        let read = |key: BranchKey, collection: Collection| self.readers.read(move |conn| changes::digests(conn, &key, &collection));
        let found = read(key.clone(), collection.clone()).await?;
        if found.add_up {
            return Ok((found.head, found.sums));
        }
        // A device has noticed it before the sweep did.
        let (of, name, personal) = (key.clone(), collection.clone(), Arc::clone(&self.personal));
        let differing = self.readers.read(move |conn| sweep::collection(conn, &personal, &of, &name)).await?;
        if differing.needs_writing() {
            self.submit(Size::Large, move |work| sweep::mend(work, differing), |report, _| report).await?;
        }
        let mended = read(key.clone(), collection.clone()).await?;
        Ok((mended.head, mended.sums))
    }

    async fn rows(&self, key: &BranchKey, collection: &Collection, ranges: &[u8]) -> Result<(Head, Vec<(String, Seq)>), StoreError> {
        let (key, collection, ranges) = (key.clone(), collection.clone(), ranges.to_vec());
        self.readers.read(move |conn| changes::rows(conn, &key, &collection, &ranges)).await
    }

    async fn outbox(&self, after: u64, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.readers.read(move |conn| shared.outbox.read(conn, after, limit)).await
    }

    async fn acknowledged(&self, ids: Vec<u64>) -> Result<(), StoreError> {
        self.shared.outbox.acknowledge(ids);
        Ok(())
    }

    fn outbox_wake(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.outbox.wake)
    }

    fn take_fresh(&self) -> Vec<OutboxEntry> {
        self.shared.outbox.take()
    }

    async fn sweep(&self, from: Option<String>, rows_max: usize) -> Result<SweepReport, StoreError> {
        let personal = Arc::clone(&self.personal);
        let found = self.readers.read(move |conn| sweep::slice(conn, &personal, from.as_deref(), rows_max)).await?;
        if found.needs_writing() {
            return self.submit(Size::Large, move |work| sweep::mend(work, found), |report, _| report).await;
        }
        Ok(found.report)
    }
}
