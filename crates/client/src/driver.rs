//! The task that carries out what the engine decides: MQTT, HTTP and the local database on one side, the session on the other.

mod dead_letters;
mod effects;
mod repair;
mod report;
mod rotation;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use mstore_engine::{CatchUpOutcome, Comparison, Counters, Fault, Input, ReadyCommit, Session, UploadOutcome};
use mstore_protocol::{Collection, Cursor, Enrolment, Head, Verdict};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

use crate::{
    chance::Chance,
    db::{FetchedRange, LocalDb},
    http::Api,
    mqtt::{Link, LinkEvent, Way},
    options::Options,
    shared::{Shared, Status, held, wall},
    staged::Staged,
};

pub(crate) use rotation::{Renewed, renew};

/// What the app asks of the task.
#[derive(Debug)]
pub(crate) enum Command {
    Sync,
    Resync,
    Online(bool),
    Report,
    DeadLetters,
    Credentials(Box<Renewed>),
    Close(oneshot::Sender<()>),
}

/// A call that came to an end.
enum Done {
    CaughtUp(CatchUpOutcome, Box<Staged>),
    Head(Result<Head, Fault>),
    Compared(Result<Comparison, Fault>),
    Rows(Result<(Cursor, FetchedRange), Fault>),
    Recounted(Option<(Cursor, Vec<Collection>)>),
    Uploaded(UploadOutcome),
    /// Whether the server was told what was decided here, and heard.
    Settled(bool),
    /// Whether the server wants this device to get another token.
    Reported(bool),
    Rotated(Option<Box<Renewed>>),
}

/// Commits shown in one local transaction at most, so that a sale never waits long.
const BATCH_COMMITS_MAX: usize = 64;
/// Messages taken up before the local database is written.
const DRAIN_MAX: usize = 256;
/// The write-ahead log is moved into the file after this much silence.
const IDLE_BEFORE_CHECKPOINT: Duration = Duration::from_secs(2);
/// The same when it is never silent; about 8 MB. SQLite itself would do it later, and make a commit wait for it.
const LOG_PAGES_MAX: usize = 2_000;
/// Changes that fall on one page, about.
const CHANGES_PER_PAGE: usize = 4;

/// Everything the task owns.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    session: Session,
    enrolment: Enrolment,
    broker: Way,
    api: Arc<Api>,
    options: Options,
    seed: u64,
    commands: mpsc::Receiver<Command>,
    link: Option<Link>,
    links_opened: u64,
    calls: JoinSet<Done>,
    inputs: VecDeque<Input>,
    /// Commits to be shown in the next local transaction.
    ready: Vec<ReadyCommit>,
    staged: Option<Box<Staged>>,
    staged_is_snapshot: bool,
    /// One per collection, not yet in their place.
    fetched: Vec<FetchedRange>,
    last_unchanged: bool,
    dead_letters: u64,
    /// Verdicts that the disk did not take, and when it is given them again.
    unsettled: Vec<Verdict>,
    settle_at: Option<Instant>,
    journal_id: String,
    clock: ServerClock,
    counters: Counters,
    report_at: Option<Instant>,
    reporting: bool,
    settling: bool,
    /// Somebody asked for another meanwhile: what the running one has heard may be older.
    settle_again: bool,
    clock_kept_ms: i64,
    closing: Option<oneshot::Sender<()>>,
    dirty: bool,
    /// About so many pages went to the write-ahead log since it was last moved into the file.
    log_pages: usize,
    recount: bool,
    wrote_ahead: bool,
    /// The last local transaction showed several commits.
    in_a_row: bool,
}

/// Server clock against this device's, learnt from frames: the fastest one tells most.
#[derive(Debug, Default)]
struct ServerClock {
    /// Server milliseconds when this client's own clock showed 0; as late as any message proves.
    zero_ms: Option<i64>,
}

impl ServerClock {
    fn saw(&mut self, server_ms: i64, moment: u64) {
        let zero = server_ms - i64::try_from(moment).unwrap_or(i64::MAX);
        self.zero_ms = Some(self.zero_ms.map_or(zero, |held| held.max(zero)));
    }

    /// Server minus device, milliseconds; 0 while nothing is known.
    fn offset_ms(&self, wall_ms: i64, moment: u64) -> i64 {
        self.zero_ms.map_or(0, |zero| zero.saturating_add(i64::try_from(moment).unwrap_or(i64::MAX)) - wall_ms)
    }
}

impl Driver {
    #[expect(clippy::too_many_arguments, reason = "made in one place, from what Client::start has just put together")]
    pub(crate) fn new(
        shared: Arc<Shared>,
        session: Session,
        enrolment: Enrolment,
        broker: Way,
        api: Arc<Api>,
        options: Options,
        seed: u64,
        journal_id: String,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let staged = { held(&shared.db).staged().ok().flatten() };
        let staged_is_snapshot = staged.as_ref().is_some_and(|(resume, _)| resume.snapshot);
        let staged = staged.map(|(_, ops)| Box::new(Staged::on_disk(ops)));
        let dead_letters = held(&shared.db).dead_letter_count().unwrap_or(0);
        Self {
            // The first copy comes first.
            report_at: options.report_interval.map(|_| Instant::now() + report::DEBOUNCE),
            shared,
            session,
            enrolment,
            broker,
            api,
            options,
            seed,
            commands,
            link: None,
            links_opened: 0,
            calls: JoinSet::new(),
            inputs: VecDeque::new(),
            ready: Vec::new(),
            staged,
            staged_is_snapshot,
            fetched: Vec::new(),
            last_unchanged: false,
            dead_letters,
            unsettled: Vec::new(),
            settle_at: None,
            journal_id,
            clock: ServerClock::default(),
            counters: Counters::default(),
            reporting: false,
            settling: false,
            settle_again: false,
            clock_kept_ms: 0,
            closing: None,
            dirty: false,
            log_pages: 0,
            recount: false,
            wrote_ahead: false,
            in_a_row: false,
        }
    }

    /// Runs until it is closed or the client is dropped.
    pub(crate) async fn run(mut self) {
        self.inputs.push_back(Input::Woken);
        self.settle().await;
        while self.closing.is_none() {
            self.wait().await;
            self.drain().await;
            if std::mem::take(&mut self.in_a_row) {
                // More are on their way: whoever brings them goes first, so that one local transaction shows them all.
                tokio::task::yield_now().await;
                self.drain().await;
            }
            self.settle().await;
        }
        self.link = None;
        self.calls.shutdown().await;
        self.with_db(true, |db| db.checkpoint()).await;
        if let Some(closing) = self.closing.take() {
            // Whoever asked may have stopped waiting.
            let _ = closing.send(());
        }
    }

    /// Waits for the next thing to happen and turns it into inputs.
    async fn wait(&mut self) {
        let deadline = self.deadline();
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            command = self.commands.recv() => self.command(command),
            () = shared.fresh_wake.notified() => self.take_fresh(),
            event = next_event(&mut self.link) => self.link_event(event),
            Some(done) = self.calls.join_next(), if !self.calls.is_empty() => self.done(done),
            () = tokio::time::sleep_until(deadline) => self.woken(),
        }
    }

    fn deadline(&self) -> Instant {
        let session = self.session.next_deadline().map(|at| Instant::from_std(self.shared.started + Duration::from_millis(at)));
        let report = self.report_at.filter(|_| !self.reporting);
        let idle = self.dirty.then(|| Instant::now() + IDLE_BEFORE_CHECKPOINT);
        let far = Instant::now() + Duration::from_secs(3600);
        [session, report, idle, self.settle_at].into_iter().flatten().min().unwrap_or(far)
    }

    fn woken(&mut self) {
        self.inputs.push_back(Input::Woken);
        let engine_is_due = self.session.next_deadline().is_some_and(|at| at <= self.shared.moment());
        if self.dirty && !engine_is_due && self.report_at.is_none_or(|at| at > Instant::now()) {
            self.checkpoint_aside();
        }
        self.report_if_due();
    }

    /// Moves the write-ahead log into the file on a thread that may wait for the disk.
    fn checkpoint_aside(&mut self) {
        self.dirty = false;
        self.log_pages = 0;
        let db = Arc::clone(&self.shared.db);
        self.calls.spawn(async move {
            let work = tokio::task::spawn_blocking(move || held(&db).checkpoint());
            // A checkpoint that does not come about is made up for by the next.
            let _ = work.await;
            Done::Reported(false)
        });
    }

    /// Takes up whatever else has come already, so that one local transaction can show it all.
    async fn drain(&mut self) {
        for _ in 0..DRAIN_MAX {
            self.feed().await;
            let event = match &mut self.link {
                Some(link) => link.events.try_recv().ok(),
                None => None,
            };
            let Some(event) = event else { break };
            self.link_event(Some(event));
        }
    }

    /// Feeds the engine until it has nothing more to do, then shows what is ready.
    async fn settle(&mut self) {
        if self.settle_at.is_some_and(|at| at <= Instant::now()) {
            self.write_verdicts().await;
        }
        loop {
            self.feed().await;
            self.flush().await;
            if self.inputs.is_empty() {
                break;
            }
        }
        if std::mem::take(&mut self.wrote_ahead) {
            // Nothing to do unless the engine had no use for the answer.
            if let Err(error) = self.with_db(false, LocalDb::end_ahead).await {
                tracing::warn!(device = %self.enrolment.device_id, %error, "rows written ahead could not be undone");
            }
        }
        if std::mem::take(&mut self.recount) {
            let count = self.with_db(false, |db| db.dead_letter_count()).await;
            self.dead_letters = count.unwrap_or(self.dead_letters);
        }
        self.publish();
    }

    async fn feed(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            self.session.handle(self.shared.moment(), input);
            while let Some(effect) = self.session.poll() {
                self.perform(effect).await;
            }
            if self.ready.len() >= BATCH_COMMITS_MAX {
                self.flush().await;
            }
        }
    }

    fn command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Sync) => self.inputs.push_back(Input::SyncRequested),
            Some(Command::Resync) => self.inputs.push_back(Input::ResyncRequested),
            Some(Command::Report) => {
                self.report_at = Some(Instant::now());
                self.report_if_due();
            }
            Some(Command::Online(online)) => self.switch(online),
            Some(Command::DeadLetters) => {
                self.recount = true;
                self.settle_dead_letters();
            }
            Some(Command::Credentials(renewed)) => self.renew(Some(renewed)),
            Some(Command::Close(done)) => self.closing = Some(done),
            // The client was dropped: nobody is there to be told.
            None => self.closing = Some(oneshot::channel().0),
        }
    }

    fn switch(&mut self, online: bool) {
        held(&self.shared.freshness).online(wall().as_ms(), online);
        self.inputs.push_back(Input::NetworkChanged { available: online });
        if !online && self.link.take().is_some() {
            self.inputs.push_back(Input::Disconnected);
        }
    }

    fn take_fresh(&mut self) {
        let fresh = held(&self.shared.fresh).take();
        self.inputs.extend(fresh.into_iter().map(Input::OperationCommitted));
    }

    fn link_event(&mut self, event: Option<LinkEvent>) {
        let input = match event {
            Some(LinkEvent::Subscribed) => {
                tracing::info!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, "subscribe delta sync topics");
                Input::Subscribed
            }
            Some(LinkEvent::Refused(code)) => {
                tracing::warn!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, %code, "MQTT refused this device");
                self.link = None;
                Input::ConnectionRefused(code)
            }
            Some(LinkEvent::Frame(collection, frame, bytes)) => {
                tracing::debug!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, seq = frame.seq, %collection, "MQTT message received");
                self.clock.saw(frame.at.as_ms(), self.shared.moment());
                held(&self.shared.stats).mqtt_bytes += bytes as u64;
                Input::FrameArrived(collection, *frame)
            }
            Some(LinkEvent::Head(head, bytes)) => {
                tracing::debug!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, seq = head.seq, "MQTT message received");
                held(&self.shared.stats).mqtt_bytes += bytes as u64;
                Input::HeadArrived(*head)
            }
            Some(LinkEvent::Malformed(what)) => {
                tracing::warn!(device = %self.enrolment.device_id, what, "an MQTT message that cannot be used");
                held(&self.shared.stats).malformed += 1;
                return;
            }
            Some(LinkEvent::Closed(reason)) => {
                tracing::info!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, reason, "MQTT connection lost");
                self.link = None;
                Input::Disconnected
            }
            None => {
                self.link = None;
                Input::Disconnected
            }
        };
        self.inputs.push_back(input);
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let input = match done.expect("calls do not panic") {
            Done::CaughtUp(outcome, staged) => {
                self.last_unchanged = outcome == CatchUpOutcome::Unchanged;
                self.wrote_ahead = self.staged_is_snapshot;
                self.staged = Some(staged);
                Input::CaughtUp(outcome)
            }
            Done::Head(result) => Input::HeadFetched(result),
            Done::Compared(result) => Input::Compared(result),
            Done::Rows(Ok((at, fetched))) => {
                self.fetched.retain(|held| held.collection != fetched.collection);
                self.fetched.push(fetched);
                Input::RowsFetched(Ok(at))
            }
            Done::Rows(Err(fault)) => Input::RowsFetched(Err(fault)),
            Done::Recounted(counted) => Input::Recounted(counted),
            Done::Uploaded(outcome) => Input::Uploaded(outcome),
            Done::Settled(heard) => {
                self.dead_letters_settled(heard);
                return;
            }
            Done::Reported(wants_rotation) => return self.rotate_if(wants_rotation),
            Done::Rotated(renewed) => return self.renew(renewed),
        };
        self.inputs.push_back(input);
    }

    /// Runs short work on the database here; long work, or when somebody else holds it, on a thread that may wait.
    async fn with_db<T: Send + 'static>(&self, long: bool, work: impl FnOnce(&mut LocalDb) -> T + Send + 'static) -> T {
        with_db(&self.shared.db, long, work).await
    }

    /// Tells the app what has changed.
    fn publish(&mut self) {
        let engine = self.session.status();
        let (moment, now_ms) = (self.shared.moment(), wall().as_ms());
        let is_live = engine.state == mstore_protocol::DeviceState::Live;
        if let Some(confirmed_at) = engine.confirmed_at {
            let age = if is_live { 0 } else { i64::try_from(moment.saturating_sub(confirmed_at)).unwrap_or(i64::MAX) };
            self.shared.as_of_ms.store(now_ms - age, Ordering::Relaxed);
        }
        self.counters = self.session.counters();
        held(&self.shared.stats).engine = self.counters;
        let status = Status {
            state: engine.state,
            cursor: engine.cursor,
            as_of: self.shared.as_of(),
            queue_depth: engine.queue_depth as u64,
            oldest_pending: engine.oldest_pending,
            dead_letters: self.dead_letters,
            upload_refused: engine.upload_refused,
            digest_mismatches: self.counters.digest_mismatches,
        };
        let state_before = self.shared.status.borrow().state;
        let mut fresh = held(&self.shared.fresh);
        let changed = self.shared.status.send_if_modified(|held| {
            let changed = !held.is_like(&status);
            if changed {
                *held = status.clone();
            }
            changed
        });
        fresh.published();
        drop(fresh);
        if changed && state_before != status.state {
            tracing::info!(device = %self.enrolment.device_id, branch = %self.enrolment.branch, from = state_before.as_str(), to = status.state.as_str(), "sync state changed");
            self.report_soon();
        }
    }

    fn open_link(&mut self, collections: &[Collection]) {
        if !*self.shared.online.borrow() {
            self.inputs.push_back(Input::Disconnected);
            return;
        }
        let turn = self.seed.wrapping_add(self.links_opened);
        self.links_opened += 1;
        let chance = Chance::new(self.options.faults, self.seed ^ self.links_opened.rotate_left(32));
        self.link = Some(Link::open(&self.enrolment, &self.broker, turn, collections, chance));
    }
}

async fn next_event(link: &mut Option<Link>) -> Option<LinkEvent> {
    match link {
        Some(link) => link.events.recv().await,
        None => std::future::pending().await,
    }
}

pub(crate) async fn with_db<T: Send + 'static>(
    db: &Arc<Mutex<LocalDb>>,
    long: bool,
    work: impl FnOnce(&mut LocalDb) -> T + Send + 'static,
) -> T {
    if !long && let Ok(mut db) = db.try_lock() {
        return work(&mut db);
    }
    let db = Arc::clone(db);
    match tokio::task::spawn_blocking(move || work(&mut held(&db))).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down and drops this task next; nothing half-done is on disk.
        Err(_) => std::future::pending().await,
    }
}
