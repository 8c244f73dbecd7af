//! The public face of a device's sync.

mod dead_letters;

use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicI64},
    time::{Duration, Instant},
};

use mstore_engine::{Known, QueuedOperation, Session, SessionConfig};
use mstore_protocol::{
    ClaimLink, Code, Collection, Cursor, Digest, EnrolRequest, Enrolment, Operation, OperationId, OperationKind, Row, Timestamp,
};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::{
    chance::Chance,
    db::{self, DbError, Journalled, LocalDb, NewOperation},
    driver::{Command, Driver, renew, with_db},
    error::{CommitError, NotDrained, OpenError},
    http::{self, Api},
    journal::checked,
    mqtt::{BrokerAddress, CLOSE_TIMEOUT, Way},
    options::Options,
    sale::{self, Committed, NewReceipt},
    shared::{Shared, Status, held, wall},
    stats::{AppliedCommit, Freshness, Stats},
    views::{InventoryItem, Product, Query, Transaction},
};

pub use dead_letters::NotWiped;

/// Applied commits that a slow listener may be behind before it misses some.
const APPLIED_MAX: usize = 1_024;
const COMMANDS_MAX: usize = 32;

/// A rejected operation that somebody must look at.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// What was sent.
    pub operation: Operation,
    /// Why it was rejected.
    pub code: Option<Code>,
    /// The same for people.
    pub detail: Option<String>,
}

impl From<Journalled> for DeadLetter {
    fn from(held: Journalled) -> Self {
        Self { operation: held.operation, code: held.code, detail: held.detail }
    }
}

/// A device's synced copy of its branch, and its journal of operations.
///
/// Opening starts a task on the current tokio runtime that keeps the copy true; dropping or [`Client::close`] ends it.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    server_url: String,
    seed: u64,
    options: Options,
    commands: mpsc::Sender<Command>,
}

impl Client {
    /// Redeems a claim code at the server and opens the file for the device that it made. Repeating it after a lost reply burns nothing. Instead of the code it
    /// takes the whole text of its QR code ([`mstore_protocol::ClaimLink`]), which names the server: that one is used then.
    pub async fn enrol(path: impl AsRef<Path>, server_url: &str, claim_code: &str, options: Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let link = ClaimLink::parse(claim_code);
        let (server_url, claim_code) = link.as_ref().map_or((server_url, claim_code), |link| (&*link.server, &*link.code));
        // Before anything is sent: whoever reads the claim code on its way could use it first.
        options.check_url(server_url)?;
        let nonce = {
            let db = LocalDb::open(path)?;
            db.state_or(&format!("nonce:{claim_code}"), || random_hex(16))?
        };
        let request = EnrolRequest { code: claim_code.to_owned(), nonce };
        let enrolment = http::enrol(&options.trust()?.http_client(server_url)?, server_url, &request).await?;
        Self::open_with(path, server_url, enrolment, options).await
    }

    /// Opens the file of an enrolled device.
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let db = LocalDb::open(path.as_ref())?;
        let (Some(enrolment), Some(server_url)) = (db.state("enrolment")?, db.state("server_url")?) else {
            return Err(OpenError::NotEnrolled);
        };
        let enrolment =
            serde_json::from_str(&enrolment).map_err(|error| DbError::Damaged { what: "an enrolment", detail: error.to_string() })?;
        Self::start(path.as_ref(), db, server_url, enrolment, options)
    }

    /// Opens a file with an enrolment from elsewhere, and keeps it there for [`Client::open`].
    pub async fn open_with(path: impl AsRef<Path>, server_url: &str, enrolment: Enrolment, options: Options) -> Result<Self, OpenError> {
        // A refused address is not kept either.
        options.check_urls(server_url, &enrolment)?;
        let mut db = LocalDb::open(path.as_ref())?;
        if let Some(held) = db.state("enrolment")? {
            let held: Enrolment =
                serde_json::from_str(&held).map_err(|error| DbError::Damaged { what: "an enrolment", detail: error.to_string() })?;
            if held.device_id != enrolment.device_id {
                return Err(OpenError::OtherDevice { found: held.device_id.to_string(), wanted: enrolment.device_id.to_string() });
            }
            let moved = held.branch != enrolment.branch;
            let waiting = if moved { db.queue()?.len() } else { 0 };
            if waiting > 0 {
                let branch = held.branch.clone();
                let sender = Enrolment { token: enrolment.token, ..held };
                db.set_state("enrolment", &serde_json::to_string(&sender).expect("an enrolment is always JSON"))?;
                return Err(OpenError::UnsentWork { waiting, branch });
            }
            if moved {
                db.leave_branch()?;
            }
        }
        db.set_state("enrolment", &serde_json::to_string(&enrolment).expect("an enrolment is always JSON"))?;
        db.set_state("server_url", server_url)?;
        Self::start(path.as_ref(), db, server_url.to_owned(), enrolment, options)
    }

    fn start(path: &Path, mut db: LocalDb, server_url: String, enrolment: Enrolment, options: Options) -> Result<Self, OpenError> {
        options.check_urls(&server_url, &enrolment)?;
        let broker = Way { address: BrokerAddress::parse(options.broker_url(&enrolment))?, trust: options.trust()? };
        let journal_id = db.state_or("journal_id", || random_hex(16))?;
        db.prune(wall())?;
        db.queue_unshown()?;
        let seed = options.seed.unwrap_or_else(rand::random);
        let known = Known {
            cursor: db.cursor(),
            digests: db.digests().clone(),
            resume: db.staged()?.map(|(resume, _)| resume),
            queue: db.queue()?,
        };
        let (status, applied) = first_status(&known, db.dead_letter_count()?);
        let reader = db::open_reader(path)?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            db: Arc::new(Mutex::new(db)),
            reader: Mutex::new(reader),
            fresh: Mutex::default(),
            fresh_wake: Notify::new(),
            status,
            applied,
            stats: Arc::default(),
            freshness: Mutex::new(Freshness::new()),
            online: watch::channel(options.online).0,
            enrolment: Mutex::new(enrolment.clone()),
            as_of_ms: AtomicI64::new(i64::MIN),
            started: Instant::now(),
            started_at: wall(),
        });
        held(&shared.freshness).online(wall().as_ms(), options.online);
        let config = SessionConfig {
            collections: enrolment.collections.clone(),
            seed,
            poll_interval_ms: millis(options.poll_interval),
            reorder_window_ms: millis(options.reorder_window),
            ..SessionConfig::default()
        };
        let api = Arc::new(make_api(&shared, &server_url, &enrolment, &options, seed)?);
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let session = Session::new(0, config, known);
        let driver = Driver::new(Arc::clone(&shared), session, enrolment, broker, api, options.clone(), seed, journal_id, receiver);
        tokio::spawn(driver.run());
        Ok(Self { shared, server_url, seed, options, commands })
    }

    /// Who this device is.
    pub fn enrolment(&self) -> Enrolment {
        held(&self.shared.enrolment).clone()
    }

    /// Where its database is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    // ---- reading ----

    /// One product, its stock with the effect of own pending operations.
    pub fn product(&self, id: &str) -> Result<Option<Product>, DbError> {
        held(&self.shared.reader).product(id)
    }

    /// The product with this barcode.
    pub fn product_by_barcode(&self, barcode: &str) -> Result<Option<Product>, DbError> {
        held(&self.shared.reader).product_by_barcode(barcode)
    }

    /// Products by id.
    pub fn products(&self, query: &Query) -> Result<Vec<Product>, DbError> {
        held(&self.shared.reader).products(query)
    }

    /// Inventory items by id, their quantities with the effect of own pending operations.
    pub fn inventory(&self, query: &Query) -> Result<Vec<InventoryItem>, DbError> {
        held(&self.shared.reader).inventory(query)
    }

    /// One inventory item.
    pub fn inventory_item(&self, id: &str) -> Result<Option<InventoryItem>, DbError> {
        held(&self.shared.reader).inventory_item(id)
    }

    /// Transactions of the branch by id (which is by time), own pending ones at the end.
    pub fn transactions(&self, query: &Query) -> Result<Vec<Transaction>, DbError> {
        held(&self.shared.reader).transactions(query)
    }

    /// A row of any collection as the server sent it.
    pub fn row(&self, collection: &Collection, id: &str) -> Result<Option<Row>, DbError> {
        held(&self.shared.reader).row(collection, id)
    }

    /// All rows of a collection as the server sent them: canonical texts by id.
    pub fn rows(&self, collection: &Collection) -> Result<Vec<String>, DbError> {
        held(&self.shared.reader).rows(collection)
    }

    /// What is shown: the cursor, and the digests there, of one moment.
    pub fn digests(&self) -> (Option<Cursor>, std::collections::BTreeMap<Collection, Digest>) {
        let db = held(&self.shared.db);
        (db.cursor(), db.digests().clone())
    }

    // ---- operations ----

    /// Records a sale. When this returns `Ok` it is on disk and will reach the server exactly once; print the receipt then, not before.
    pub async fn commit_sale(&self, receipt: NewReceipt) -> Result<Committed, CommitError> {
        self.commit_receipt(receipt, OperationKind::Sale).await
    }

    /// Records goods taken back; quantities are positive here too.
    pub async fn commit_return(&self, receipt: NewReceipt) -> Result<Committed, CommitError> {
        self.commit_receipt(receipt, OperationKind::Return).await
    }

    async fn commit_receipt(
        &self,
        receipt: NewReceipt,
        kind: fn(mstore_protocol::Receipt) -> OperationKind,
    ) -> Result<Committed, CommitError> {
        let occurred_at = receipt.occurred_at.unwrap_or_else(wall);
        let device = held(&self.shared.enrolment).device_id.clone();
        self.write(occurred_at, None, move |device_seq, product| {
            let default_no = format!("{device}-{device_seq:06}");
            sale::complete(receipt, default_no, occurred_at, product).map(kind)
        })
        .await
    }

    /// Records any operation: receipts as they are, goods received, adjusted, counted, transferred.
    pub async fn commit(&self, kind: OperationKind) -> Result<Committed, CommitError> {
        self.write(wall(), None, move |_, _| Ok(kind)).await
    }

    async fn write(
        &self,
        occurred_at: Timestamp,
        replaces: Option<OperationId>,
        make: impl FnOnce(u64, &dyn Fn(&str) -> Option<Row>) -> Result<OperationKind, CommitError> + Send + 'static,
    ) -> Result<Committed, CommitError> {
        let id = OperationId::from_parts(wall(), rand::random());
        let new = NewOperation { id, occurred_at, replaces };
        // Always on a thread that may wait: it ends with an fsync.
        let operation = with_db(&self.shared.db, true, move |db| db.commit(&new, make, checked)).await?;
        held(&self.shared.fresh).push(QueuedOperation { id, at: occurred_at });
        self.shared.fresh_wake.notify_one();
        Ok(Committed::of(&operation))
    }

    // ---- sync ----

    /// The state now.
    pub fn status(&self) -> Status {
        // Held over both looks: the task publishes under the same lock.
        let fresh = held(&self.shared.fresh);
        let status = self.shared.status.borrow().clone();
        // What was committed a moment ago counts before the task has taken notice: a queue is never said to be shorter than it is.
        let queue_depth = status.queue_depth + fresh.count();
        drop(fresh);
        let as_of = if status.state == mstore_protocol::DeviceState::Live { Some(wall()) } else { self.shared.as_of() };
        Status { as_of, queue_depth, ..status }
    }

    /// The state whenever anything but the clock changes.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Everything that becomes visible from now on. A listener more than 1,024 behind misses the oldest.
    pub fn applied(&self) -> broadcast::Receiver<AppliedCommit> {
        self.shared.applied.subscribe()
    }

    /// Asks the server now, whatever the timers say.
    pub async fn sync_now(&self) {
        self.tell(Command::Sync).await;
    }

    /// Fetches everything anew. What is shown stays until all is there; the queue stays in any case.
    pub async fn resync(&self) {
        self.tell(Command::Resync).await;
    }

    /// Sends a report now.
    pub async fn report_now(&self) {
        self.tell(Command::Report).await;
    }

    /// Switches this client's network off or on: connections are closed, calls fail. For tests, demos and "flight mode".
    pub async fn set_online(&self, online: bool) {
        let changed = self.shared.online.send_if_modified(|held| std::mem::replace(held, online) != online);
        if changed {
            self.tell(Command::Online(online)).await;
        }
    }

    /// Whether the network is switched on.
    pub fn is_online(&self) -> bool {
        *self.shared.online.borrow()
    }

    /// Waits until the server has judged every operation: before a shift is closed, or the app logs out.
    pub async fn drain(&self, timeout: Duration) -> Result<(), NotDrained> {
        let deadline = tokio::time::Instant::now() + timeout;
        let mut status = self.watch_status();
        loop {
            status.borrow_and_update();
            let waiting = with_db(&self.shared.db, true, |db| db.queue()).await.map_or(u64::MAX, |queue| queue.len() as u64);
            if waiting == 0 {
                return Ok(());
            }
            match tokio::time::timeout_at(deadline, status.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(NotDrained { waiting }),
            }
        }
    }

    /// Figures since the client was opened.
    pub fn stats(&self) -> Stats {
        let mut stats = held(&self.shared.stats).clone();
        (stats.online_s, stats.fresh_s) = held(&self.shared.freshness).seconds(wall().as_ms());
        stats
    }

    /// Gets a new token; the old one ends at the first use of the new one.
    pub async fn rotate(&self) -> Result<(), OpenError> {
        let api = make_api(&self.shared, &self.server_url, &self.enrolment(), &self.options, self.seed)?;
        let renewed = renew(&self.shared, &self.server_url, &api).await?;
        self.tell(Command::Credentials(Box::new(renewed))).await;
        Ok(())
    }

    /// Ends the task and writes everything into the file. Operations not yet sent are sent after the next start.
    pub async fn close(self) {
        let (done, ended) = oneshot::channel();
        self.tell(Command::Close(done)).await;
        // A task that does not end in time ends with the runtime; everything that matters is on disk already.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
    }

    /// The task lives as long as the client does, unless it panicked: then its panic was reported already.
    async fn tell(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}

fn first_status(known: &Known, dead_letters: u64) -> (watch::Sender<Status>, broadcast::Sender<AppliedCommit>) {
    let status = Status {
        state: mstore_protocol::DeviceState::Starting,
        cursor: known.cursor,
        as_of: None,
        queue_depth: known.queue.len() as u64,
        oldest_pending: known.queue.first().map(|operation| operation.at),
        dead_letters,
        upload_refused: false,
        digest_mismatches: 0,
    };
    (watch::channel(status).0, broadcast::channel(APPLIED_MAX).0)
}

fn make_api(shared: &Shared, server_url: &str, enrolment: &Enrolment, options: &Options, seed: u64) -> Result<Api, OpenError> {
    let chance = Chance::new(options.faults, seed ^ 0x5bd1_e995);
    let http = options.trust()?.http_client(server_url)?;
    Api::new(http, server_url, enrolment, shared.online.subscribe(), chance, Arc::clone(&shared.stats))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn random_hex(bytes: usize) -> String {
    (0..bytes).map(|_| format!("{:02x}", rand::random::<u8>())).collect()
}
