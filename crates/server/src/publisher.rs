//! Carries durable commits to the broker: frames in order, then the head. It makes nothing up and skips nothing: what the broker did not
//! acknowledge stays in the outbox and is published again, from the oldest on, so that the order of a branch survives a broken connection.

mod window;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use mstore_broker::{Message, PublishError};
use mstore_protocol::{BranchKey, Collection, Env, Scope, Timestamp, Topic};
use mstore_store::{OutboxEntry, OutboxMessage, Store, StoreError, failpoint};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::window::{Flying, Landed, Window};
use crate::{
    Clock,
    broker_slot::BrokerSlot,
    heads::HeadSchedule,
    meters::Meters,
    tail::{Published, Tail},
};

/// Entries read from the outbox at once.
const OUTBOX_PAGE: usize = 512;
/// Acknowledgements waiting to be written.
pub(crate) const ACKNOWLEDGEMENTS_MAX: usize = 16 * 1024;
/// Waits between two tries while the broker or the store is away: doubled from the first to the second.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long the last frames may take at shutdown; what is left is in the outbox.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// New branches are looked for, and the outbox read for anything missed, this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// The time that one device's pull of a shared answer is given.
const PULL_MS_PER_DEVICE: u64 = 5;
const PULL_WITHIN_MS_MAX: u64 = 60_000;
const DEVICES_COUNTED_MAX: usize = 20_000;

/// What the publisher works with.
pub(crate) struct Publisher {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) broker: Arc<BrokerSlot>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) env: Env,
    pub(crate) clock: Clock,
    pub(crate) heads: HeadSchedule,
    pub(crate) acknowledgements: mpsc::Sender<u64>,
    pub(crate) place: Place,
}

/// How far the publisher has come.
#[derive(Default)]
pub(crate) struct Place {
    /// The last entry that was handed to the broker.
    last_id: u64,
    /// What it has not acknowledged yet.
    window: Window,
    /// The start of the broker, or the connection to it, that this was handed to.
    start: u64,
    /// The outbox holds entries that were not seen in memory.
    read_outbox: bool,
    /// Waits after a failure.
    retry: Option<(Instant, Duration)>,
    /// Branches that came to this server, as often as that was looked at.
    takeovers: u64,
    /// Devices per branch, and when they were counted.
    devices: HashMap<BranchKey, (u64, Instant)>,
}

/// Why publishing paused; everything is still in the outbox.
enum Paused {
    Broker,
    Store(StoreError),
}

/// What ended a wait.
enum Woken {
    /// There is something to publish, or it is time to look.
    Work,
    Landed(Landed),
    Stop,
}

/// Where a message comes from.
struct Origin {
    entry: Option<u64>,
    key: BranchKey,
    collection: Option<Collection>,
    committed: Option<Timestamp>,
}

/// The outbox's own bytes, not a copy.
struct Shared(Arc<str>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<StoreError> for Paused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Publisher {
    /// Publishes until told to stop, then what is left, for a short time.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let wake = self.store.outbox_wake();
        let mut starts = self.broker.starts();
        let mut look = Instant::now();
        self.place.read_outbox = true;
        'work: loop {
            let mut woken = std::pin::pin!(wake.notified());
            woken.as_mut().enable();
            let takeovers = self.store.takeovers();
            if Instant::now() >= look || takeovers != self.place.takeovers {
                look = Instant::now() + LOOK_INTERVAL;
                self.place.takeovers = takeovers;
                self.look().await;
            }
            let start = *starts.borrow_and_update();
            self.round(start).await;
            loop {
                let next = [Some(look), self.place.retry.map(|(at, _)| at), self.next_head()].into_iter().flatten().min();
                let what = tokio::select! {
                    landed = self.place.window.landed() => Woken::Landed(landed),
                    () = woken.as_mut() => Woken::Work,
                    () = sleep_until(next.unwrap_or(look)) => Woken::Work,
                    _ = starts.changed() => Woken::Work,
                    () = stop.cancelled() => Woken::Stop,
                };
                match what {
                    Woken::Work => break,
                    Woken::Landed(landed) => self.land(landed).await,
                    Woken::Stop => break 'work,
                }
            }
        }
        let start = *starts.borrow_and_update();
        if timeout(DRAIN_TIMEOUT, self.drain(start)).await.is_err() {
            tracing::warn!("publisher stopped with a backlog; it stays in the outbox");
        }
    }

    async fn drain(&mut self, start: u64) {
        self.round(start).await;
        while !self.place.window.is_empty() {
            let landed = self.place.window.landed().await;
            self.land(landed).await;
        }
    }

    /// A head that failed waits as long as the frames do.
    fn next_head(&self) -> Option<Instant> {
        let next = self.heads.next()?;
        Some(self.place.retry.map_or(next, |(at, _)| next.max(at)))
    }

    async fn look(&mut self) {
        self.place.read_outbox = true;
        match self.store.heads().await {
            Ok(heads) => {
                let own = heads.into_iter().filter(|(key, _)| self.store.owns(key));
                own.for_each(|(key, _)| self.heads.known(key, Instant::now()));
            }
            Err(error) => tracing::warn!(%error, "cannot read the heads"),
        }
    }

    async fn round(&mut self, start: u64) {
        if start != self.place.start {
            self.begin_again(start).await;
        }
        if self.place.retry.is_some_and(|(at, _)| Instant::now() < at) {
            return;
        }
        let outcome = match self.frames().await {
            Ok(()) => self.due_heads().await,
            paused => paused,
        };
        match outcome {
            Ok(()) => self.place.retry = None,
            Err(paused) => self.pause(&paused),
        }
    }

    /// The broker came up, or another connection to it: retained heads may be gone, and what was in flight goes first.
    async fn begin_again(&mut self, start: u64) {
        while let Some(landed) = self.place.window.landed_already() {
            self.land(landed).await;
        }
        self.rewind(None);
        if self.place.start > 0 {
            tracing::info!("broker came up again, sending all heads");
        }
        self.place.start = start;
        self.place.retry = None;
        self.heads.all_due(Instant::now());
    }

    fn pause(&mut self, paused: &Paused) {
        let wait = self.place.retry.map_or(RETRY_MIN, |(_, wait)| (wait * 2).min(RETRY_MAX));
        self.place.retry = Some((Instant::now() + wait, wait));
        self.place.read_outbox = true;
        match paused {
            Paused::Broker => tracing::warn!(wait_ms = wait.as_millis(), "broker away, backlog kept"),
            Paused::Store(error) => tracing::warn!(%error, wait_ms = wait.as_millis(), "outbox not readable, trying again"),
        }
    }

    /// Everything in flight is lost, beginning with `first` if that was an entry: it will be read from the outbox again.
    fn rewind(&mut self, first: Option<u64>) {
        let (next, others) = self.place.window.clear();
        if let Some(first) = first.or(next) {
            tracing::info!(first, others, "not acknowledged: to be published again");
            self.place.last_id = first - 1;
            self.place.read_outbox = true;
        }
    }

    /// Everything that is ready to go. Memory first; the outbox when memory has a hole or gave nothing.
    async fn frames(&mut self) -> Result<(), Paused> {
        let mut fed = false;
        loop {
            let fresh = self.store.take_fresh();
            let follows = fresh.first().is_some_and(|entry| entry.id == self.place.last_id + 1);
            if follows && !self.place.read_outbox {
                fed = true;
                self.send_all(fresh).await?;
                continue;
            }
            if fresh.is_empty() && fed && !self.place.read_outbox {
                return Ok(());
            }
            let page = self.store.outbox(self.place.last_id, OUTBOX_PAGE).await?;
            self.place.read_outbox = !page.is_empty();
            fed = true;
            self.send_all(page).await?;
        }
    }

    async fn send_all(&mut self, entries: Vec<OutboxEntry>) -> Result<(), Paused> {
        for OutboxEntry { id, key, seq, at, message } in entries {
            // Read from the outbox a moment ago, and once more from memory.
            if id <= self.place.last_id {
                continue;
            }
            // This server may have stood still since: somebody else may be publishing. What is still ours is in the outbox.
            if !self.store.owns(&key) {
                self.place.read_outbox = true;
                return Ok(());
            }
            match message {
                OutboxMessage::Frame { collection, payload } => {
                    let topic = Topic::updates(&self.scope(&key), &collection).to_string();
                    let origin = Origin { entry: Some(id), key: key.clone(), collection: Some(collection), committed: Some(at) };
                    self.hand_over(origin, topic, Bytes::from_owner(Shared(payload))).await?;
                    tracing::debug!(branch = %key, seq, id, "frame published");
                    self.heads.changed(&key, Instant::now());
                }
                OutboxMessage::HeadOnly => {
                    let within = self.pull_within_ms(&key).await?;
                    tracing::info!(branch = %key, seq, pull_within_ms = within, "commit without frames, devices pull");
                    self.meters.branch(&key).head_only.increment(1);
                    self.send_head(&key, Some(id), Some(within)).await?;
                }
            }
            self.place.last_id = id;
            while let Some(landed) = self.place.window.landed_already() {
                self.land(landed).await;
            }
        }
        Ok(())
    }

    async fn due_heads(&mut self) -> Result<(), Paused> {
        for key in self.heads.due(Instant::now()) {
            if self.store.owns(&key) {
                self.send_head(&key, None, None).await?;
            } else {
                self.heads.forget(&key);
            }
        }
        Ok(())
    }

    async fn send_head(&mut self, key: &BranchKey, entry: Option<u64>, pull_within_ms: Option<u64>) -> Result<(), Paused> {
        let Some(mut head) = self.store.head(key).await? else { return Ok(()) };
        head.pull_within_ms = pull_within_ms;
        head.at = (self.clock)();
        let topic = Topic::head(&self.scope(key)).to_string();
        let origin = Origin { entry, key: key.clone(), collection: None, committed: None };
        self.hand_over(origin, topic, Bytes::from(head.to_json())).await?;
        tracing::debug!(branch = %key, seq = head.seq, "head published");
        self.heads.sent(key, Instant::now());
        Ok(())
    }

    /// Hands a message to the broker, waiting while it has no room. Heads are retained, frames never.
    async fn hand_over(&mut self, origin: Origin, topic: String, payload: Bytes) -> Result<(), Paused> {
        let Origin { entry, key, collection, committed } = origin;
        if committed.is_some() {
            self.meters.branch(&key).attempt();
        }
        let message = Message { topic: topic.clone(), payload: payload.clone(), retain: collection.is_none() };
        let flying = Flying { entry, key, collection, committed, topic, payload, handed_over: Instant::now() };
        match self.broker.send(self.place.start, message).await {
            Ok(receipt) => self.place.window.push(flying, receipt),
            Err(error @ PublishError::Refused { .. }) => self.land((flying, Err(error))).await,
            Err(PublishError::Stopped | PublishError::Lost) => return Err(Paused::Broker),
        }
        Ok(())
    }

    /// The broker has spoken about a message.
    async fn land(&mut self, (flying, said): Landed) {
        match said {
            Ok(()) => self.count(&flying),
            // Trying again changes nothing; the head tells the devices to pull.
            Err(error @ PublishError::Refused { .. }) => {
                tracing::error!(branch = %flying.key, %error, "broker refuses a topic, devices will pull");
            }
            Err(PublishError::Lost | PublishError::Stopped) => {
                self.meters.branch(&flying.key).lost.increment(1);
                self.rewind(flying.entry);
                self.pause(&Paused::Broker);
                return;
            }
        }
        let Flying { entry, key, collection, topic, payload, .. } = flying;
        self.tail.tell(|| Published { key, collection, topic: topic.into(), payload });
        if let Some(id) = entry {
            failpoint::point("frame_published");
            // Full only when the store is far behind: then it is right to wait. Closed only at the end.
            let _ = self.acknowledgements.send(id).await;
        }
    }

    fn count(&self, flying: &Flying) {
        let meters = self.meters.branch(&flying.key);
        if let Some(committed) = flying.committed {
            meters.acknowledge();
            meters.round_trip.record(flying.round_trip().as_secs_f64());
            let age_ms = (self.clock)().as_ms().saturating_sub(committed.as_ms()).max(0);
            meters.publish.record(Duration::from_millis(age_ms.unsigned_abs()).as_secs_f64());
        }
        meters.bytes.increment(u64::try_from(flying.payload.len()).unwrap_or(0));
    }

    async fn pull_within_ms(&mut self, key: &BranchKey) -> Result<u64, StoreError> {
        let now = Instant::now();
        let devices = match self.place.devices.get(key) {
            Some((count, at)) if now.duration_since(*at) < LOOK_INTERVAL => *count,
            _ => {
                let count = self.store.devices(Some(key), None, DEVICES_COUNTED_MAX).await?.len();
                let count = u64::try_from(count).unwrap_or(0);
                self.place.devices.insert(key.clone(), (count, now));
                count
            }
        };
        Ok((devices.saturating_sub(1) * PULL_MS_PER_DEVICE).min(PULL_WITHIN_MS_MAX))
    }

    fn scope(&self, key: &BranchKey) -> Scope {
        Scope::new(self.env.clone(), key.clone())
    }
}

/// Writes acknowledgements in batches, off the way of the frames. Ends when the publisher is gone and all are written.
pub(crate) async fn acknowledge(store: Arc<dyn Store>, mut ids: mpsc::Receiver<u64>) {
    const BATCH: usize = 1_024;
    const PAUSE: Duration = Duration::from_millis(100);
    let mut batch = Vec::with_capacity(BATCH);
    while ids.recv_many(&mut batch, BATCH).await > 0 {
        match store.acknowledged(batch.clone()).await {
            Ok(()) => {
                failpoint::point("frame_acknowledged");
                batch.clear();
            }
            Err(StoreError::Closed) => return,
            // They are sent with the next batch; a crash before that sends their frames twice, which devices drop.
            Err(error) => tracing::warn!(%error, "acknowledgements not written, trying again"),
        }
        if !ids.is_closed() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
