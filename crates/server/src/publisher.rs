//! Carries durable commits to the broker: frames in order, then the head. It makes nothing up and skips nothing: what the broker did not
//! take stays in the outbox and is tried again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use mstore_broker::{Message, PublishError};
use mstore_protocol::{BranchKey, Collection, Env, Scope, Topic};
use mstore_store::{OutboxEntry, OutboxMessage, Store, StoreError, failpoint};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

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
    /// The last entry that the broker took.
    last_id: u64,
    /// The outbox holds entries that were not seen in memory.
    read_outbox: bool,
    /// Waits after a failure.
    retry: Option<(Instant, Duration)>,
    /// Devices per branch, and when they were counted.
    devices: HashMap<BranchKey, (u64, Instant)>,
}

/// Why publishing paused; everything is still in the outbox.
enum Paused {
    Broker,
    Store(StoreError),
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
        loop {
            let mut woken = std::pin::pin!(wake.notified());
            woken.as_mut().enable();
            if Instant::now() >= look {
                look = Instant::now() + LOOK_INTERVAL;
                self.look().await;
            }
            self.round().await;
            let next = [Some(look), self.place.retry.map(|(at, _)| at), self.next_head()].into_iter().flatten().min();
            tokio::select! {
                () = woken => {}
                () = sleep_until(next.unwrap_or(look)) => {}
                changed = starts.changed() => {
                    if changed.is_ok() {
                        tracing::info!("broker restarted, sending all heads");
                        self.heads.all_due(Instant::now());
                        self.place.retry = None;
                    }
                }
                () = stop.cancelled() => break,
            }
        }
        if timeout(DRAIN_TIMEOUT, self.round()).await.is_err() {
            tracing::warn!("publisher stopped with a backlog; it stays in the outbox");
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
            Ok(heads) => heads.into_iter().for_each(|(key, _)| self.heads.known(key, Instant::now())),
            Err(error) => tracing::warn!(%error, "cannot read the heads"),
        }
    }

    async fn round(&mut self) {
        if self.place.retry.is_some_and(|(at, _)| Instant::now() < at) {
            return;
        }
        let outcome = match self.frames().await {
            Ok(()) => self.due_heads().await,
            paused => paused,
        };
        let Err(paused) = outcome else {
            self.place.retry = None;
            return;
        };
        let wait = self.place.retry.map_or(RETRY_MIN, |(_, wait)| (wait * 2).min(RETRY_MAX));
        self.place.retry = Some((Instant::now() + wait, wait));
        self.place.read_outbox = true;
        match paused {
            Paused::Broker => tracing::warn!(wait_ms = wait.as_millis(), "broker away, backlog kept"),
            Paused::Store(error) => tracing::warn!(%error, wait_ms = wait.as_millis(), "outbox not readable, trying again"),
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
        for entry in entries {
            // Read from the outbox a moment ago, and once more from memory.
            if entry.id <= self.place.last_id {
                continue;
            }
            match entry.message {
                OutboxMessage::Frame { ref collection, ref payload } => {
                    let topic = Topic::updates(&self.scope(&entry.key), collection).to_string();
                    let key = entry.key.clone();
                    self.hand_over(&key, topic, Bytes::from_owner(Shared(payload.clone())), false, Some(collection.clone())).await?;
                    let age_ms = (self.clock)().as_ms().saturating_sub(entry.at.as_ms()).max(0);
                    let age = Duration::from_millis(age_ms.unsigned_abs());
                    self.meters.branch(&key).publish.record(age.as_secs_f64());
                    tracing::debug!(branch = %key, seq = entry.seq, id = entry.id, "frame published");
                    self.heads.changed(&key, Instant::now());
                }
                OutboxMessage::HeadOnly => {
                    let within = self.pull_within_ms(&entry.key).await?;
                    tracing::info!(branch = %entry.key, seq = entry.seq, pull_within_ms = within, "commit without frames, devices pull");
                    self.send_head(&entry.key, Some(within)).await?;
                }
            }
            failpoint::point("frame_published");
            self.place.last_id = entry.id;
            // Full only when the store is far behind: then it is right to wait. Closed only at the end.
            let _ = self.acknowledgements.send(entry.id).await;
        }
        Ok(())
    }

    async fn due_heads(&mut self) -> Result<(), Paused> {
        for key in self.heads.due(Instant::now()) {
            self.send_head(&key, None).await?;
        }
        Ok(())
    }

    async fn send_head(&mut self, key: &BranchKey, pull_within_ms: Option<u64>) -> Result<(), Paused> {
        let Some(mut head) = self.store.head(key).await? else { return Ok(()) };
        head.pull_within_ms = pull_within_ms;
        head.at = (self.clock)();
        let topic = Topic::head(&self.scope(key)).to_string();
        self.hand_over(key, topic, Bytes::from(head.to_json()), true, None).await?;
        tracing::debug!(branch = %key, seq = head.seq, "head published");
        self.heads.sent(key, Instant::now());
        Ok(())
    }

    async fn hand_over(
        &self,
        key: &BranchKey,
        topic: String,
        payload: Bytes,
        retain: bool,
        collection: Option<Collection>,
    ) -> Result<(), Paused> {
        let meters = self.meters.branch(key);
        let frame = !retain;
        if frame {
            meters.attempted.increment(1);
        }
        match self.broker.publish(Message { topic: topic.clone(), payload: payload.clone(), retain }).await {
            Ok(()) => {}
            Err(PublishError::Stopped) => return Err(Paused::Broker),
            Err(error @ PublishError::Refused { .. }) => {
                // Trying again changes nothing; the head tells the devices to pull.
                tracing::error!(branch = %key, %error, "broker refuses a topic, devices will pull");
                return Ok(());
            }
        }
        if frame {
            meters.acknowledged.increment(1);
        }
        meters.bytes.increment(u64::try_from(payload.len()).unwrap_or(0));
        self.tail.tell(|| Published { key: key.clone(), collection, topic: topic.into(), payload });
        Ok(())
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
