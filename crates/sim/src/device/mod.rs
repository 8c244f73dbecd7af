//! A device: the real session, a driver that carries out its effects as the client's does, and a disk of which a part may be lost.

pub(crate) mod db;
pub(crate) mod journal;

use std::collections::VecDeque;

use mstore_engine::{ApplyFault, Ask, Effect, Input, Known, QueuedOperation, ReadyCommit, Resume, Session, SessionConfig};
use mstore_protocol::{Cursor, OperationId, OperationKind, Timestamp, Verdict};

use self::db::{Db, Fetched, NotShown};
use crate::{
    bug::Bug,
    promise::{Kept, Promise, broken},
    server::{Answer, Login},
};

/// A device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) db: Db,
    /// What a power cut leaves.
    synced: Box<Db>,
    backup: Option<Box<Db>>,
    pub(crate) session: Session,
    /// How often it was started: answers to an earlier life are for nobody.
    pub(crate) life: u32,
    /// Commits to be shown in the next local transaction.
    ready: Vec<ReadyCommit>,
    fetched: Vec<Fetched>,
    /// Verdicts that could not be written down.
    unsettled: Vec<Verdict>,
    pub(crate) is_on: bool,
    pub(crate) disk_full: bool,
    /// Effects until it dies.
    pub(crate) fuse: Option<u32>,
    /// Milliseconds that its clock is ahead.
    pub(crate) skew_ms: i64,
    /// Server milliseconds when the device's own moments were 0, as late as any frame proves.
    zero_ms: Option<i64>,
    /// A row was altered by hand and nobody has mended it yet.
    pub(crate) is_rotten: bool,
    /// So it was when the disk was synced last, and when it was backed up.
    was_rotten: (bool, bool),
    /// The best cursor shown since the disk was last put back.
    pub(crate) best: Option<Cursor>,
    pub(crate) rots: u32,
    pub(crate) calls: VecDeque<u64>,
    bug: Option<Bug>,
}

impl Device {
    pub(crate) fn new(n: usize, branch: usize, seed: u64, bug: Option<Bug>) -> Self {
        let db = Db::new(format!("journal-{n}"), Login { generation: 1, branch });
        Self {
            name: format!("till-{n}"),
            session: session(0, seed, bug, &db),
            synced: Box::new(db.clone()),
            db,
            backup: None,
            life: 0,
            ready: Vec::new(),
            fetched: Vec::new(),
            unsettled: Vec::new(),
            is_on: true,
            disk_full: false,
            fuse: None,
            skew_ms: 0,
            zero_ms: None,
            is_rotten: false,
            was_rotten: (false, false),
            best: None,
            rots: 0,
            calls: VecDeque::new(),
            bug,
        }
    }

    /// Power off: what is in memory is gone.
    pub(crate) fn stop(&mut self) {
        self.is_on = false;
        self.life += 1;
        self.ready.clear();
        self.fetched.clear();
        self.unsettled.clear();
        self.fuse = None;
        self.db.staged = self.db.staged.take().filter(|staged| staged.position.is_some());
    }

    /// Power on: what is on disk is all there is.
    pub(crate) fn start(&mut self, now: u64, seed: u64) {
        self.is_on = true;
        self.zero_ms = None;
        self.db.queue_unshown();
        self.session = session(now, seed, self.bug, &self.db);
    }

    /// What was written since the last sync is gone.
    pub(crate) fn lose_unsynced(&mut self) {
        self.db = (*self.synced).clone();
        self.is_rotten = self.was_rotten.0;
        self.best = self.db.cursor;
    }

    /// Everything written so far is on the disk for good.
    pub(crate) fn sync(&mut self) {
        *self.synced = self.db.clone();
        self.was_rotten.0 = self.is_rotten;
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = Some(Box::new(self.db.clone()));
        self.was_rotten.1 = self.is_rotten;
    }

    /// The backup is put in the place of the database; false if there is none.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = &self.backup else { return false };
        self.db = (**backup).clone();
        self.is_rotten = self.was_rotten.1;
        self.best = self.db.cursor;
        self.sync();
        true
    }

    pub(crate) fn rot(&mut self, n: usize) {
        self.db.rot(n);
        self.is_rotten = true;
        self.rots += 1;
        self.sync();
    }

    /// Its clock.
    pub(crate) fn clock(&self, now: u64) -> Timestamp {
        Timestamp::from_ms(i64::try_from(now).unwrap_or(i64::MAX)).plus_ms(self.skew_ms)
    }

    /// A frame tells what the server's clock showed.
    pub(crate) fn saw(&mut self, now: u64, server: Timestamp) {
        let zero = server.as_ms() - i64::try_from(now).unwrap_or(i64::MAX);
        self.zero_ms = Some(self.zero_ms.map_or(zero, |held| held.max(zero)));
    }

    /// Server clock minus device clock, as well as the device knows.
    pub(crate) fn clock_offset_ms(&self) -> i64 {
        self.zero_ms.map_or(0, |zero| zero - self.skew_ms)
    }

    /// Writes an operation, synced before anybody is told; `None`: there was no room, and nothing happened.
    pub(crate) fn operate(&mut self, now: u64, id: OperationId, make: impl FnOnce(u64) -> OperationKind) -> Option<QueuedOperation> {
        if self.disk_full {
            return None;
        }
        let at = self.clock(now);
        self.db.commit(id, at, make);
        if self.bug != Some(Bug::SaleNotSynced) {
            self.sync();
        }
        Some(QueuedOperation { id, at })
    }

    /// Takes in an answer, or as many of its lines as came; gives the place to go on from.
    pub(crate) fn stage(&mut self, ask: &Ask, answer: &Answer, lines: usize, restores: u32) -> Option<String> {
        self.db.stage(ask, answer, lines, restores);
        self.db.staged.as_ref()?.position.clone()
    }

    pub(crate) fn fetched(&mut self, fetched: Fetched) {
        self.fetched.retain(|held| held.collection != fetched.collection);
        self.fetched.push(fetched);
    }

    /// A claim was redeemed. Unsent work goes to the old branch first, with the new token.
    pub(crate) fn enrol(&mut self, login: Login) {
        if login.branch == self.db.login.branch || self.db.queue().is_empty() {
            if login.branch != self.db.login.branch {
                self.db.leave_branch(self.bug);
                self.best = None;
            }
            self.db.login = login;
        } else {
            self.db.login.generation = login.generation;
        }
        self.sync();
    }

    /// Carries out an effect that needs no network; the inputs that answer it go to the front or the back of `inputs`.
    pub(crate) fn perform(&mut self, effect: Effect, inputs: &mut VecDeque<Input>) -> Kept {
        match effect {
            Effect::Apply(commit) => self.ready.push(commit),
            Effect::Show { to, snapshot, .. } => return self.show(to, snapshot, inputs),
            Effect::DropStaged => {
                self.db.staged = None;
                self.fetched.clear();
            }
            Effect::Renumber { to } => {
                let fetched = std::mem::take(&mut self.fetched);
                let done = self.write(|db, bug| db.renumber(to, fetched, bug)).transpose()?;
                if done == Some(true) {
                    inputs.push_back(Input::Requeued(self.db.queue()));
                }
                self.answer(done, inputs);
            }
            Effect::Recount => inputs.push_back(Input::Recounted(self.db.cursor.map(|cursor| (cursor, self.db.altered())))),
            Effect::Adopt(to) => {
                let done = self.write(|db, bug| db.adopt(to, bug));
                self.answer(done, inputs);
            }
            Effect::ReplaceRanges { collection, ranges } => {
                let place = self.fetched.iter().position(|held| held.collection == collection && held.ranges == ranges);
                let fetched = place.map(|place| self.fetched.swap_remove(place));
                let done = self.write(|db, _| fetched.map_or(Ok(()), |fetched| db.replace(&fetched))).transpose()?;
                self.answer(done, inputs);
            }
            Effect::Settle(verdicts) => {
                self.unsettled.extend(verdicts);
                inputs.extend(self.settle());
            }
            Effect::Requeue => {
                if self.write(|db, _| db.queue_accepted()).is_some() {
                    inputs.push_back(Input::Requeued(self.db.queue()));
                }
            }
            Effect::Connect { .. }
            | Effect::Subscribe(_)
            | Effect::Disconnect
            | Effect::CatchUp(_)
            | Effect::FetchHead
            | Effect::FetchSubDigests(_)
            | Effect::FetchRows { .. }
            | Effect::Upload(_) => return broken(Promise::Assertion, "an effect of the network was given to the disk"),
        }
        Ok(())
    }

    /// Writes verdicts down; where there is no room they are kept for the next try.
    pub(crate) fn settle(&mut self) -> Option<Input> {
        if self.disk_full {
            return None;
        }
        let verdicts = std::mem::take(&mut self.unsettled);
        self.db.settle(&verdicts, self.bug).then(|| Input::Requeued(self.db.queue()))
    }

    pub(crate) fn has_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// One local transaction, if there is room.
    fn write<T>(&mut self, work: impl FnOnce(&mut Db, Option<Bug>) -> T) -> Option<T> {
        (!self.disk_full).then(|| work(&mut self.db, self.bug))
    }

    fn answer<T>(&self, done: Option<T>, inputs: &mut VecDeque<Input>) {
        let input = match (done, self.db.cursor) {
            (Some(_), Some(cursor)) => Input::Applied { cursor, digests: self.db.digests.clone() },
            (_, cursor) => Input::ApplyFailed { cursor, fault: ApplyFault::Storage },
        };
        inputs.push_back(input);
    }

    fn show(&mut self, to: Cursor, snapshot: bool, inputs: &mut VecDeque<Input>) -> Kept {
        if self.disk_full {
            self.db.staged = None;
        }
        let is_mixed = self.db.staged.as_ref().is_some_and(|staged| staged.is_mixed);
        let done = self.write(|db, bug| db.show(to, snapshot, bug)).transpose()?;
        if is_mixed && done.is_some() {
            // Known, and mended by the digests of the last line: see the page about the simulation.
            self.is_rotten = true;
            self.rots += 1;
        }
        if done == Some(true) {
            inputs.push_back(Input::Requeued(self.db.queue()));
        }
        self.answer(done, inputs);
        Ok(())
    }

    /// Shows the commits that are ready, in one local transaction; false if that failed.
    pub(crate) fn flush(&mut self, inputs: &mut VecDeque<Input>) -> Kept<bool> {
        if self.ready.is_empty() {
            return Ok(true);
        }
        let commits = std::mem::take(&mut self.ready);
        let fails = |fault| Input::ApplyFailed { cursor: self.db.cursor, fault };
        if self.disk_full {
            inputs.push_front(fails(ApplyFault::Storage));
            return Ok(false);
        }
        let dies = self.bug == Some(Bug::CursorBeforeRows) && self.fuse.is_some_and(|left| left < 3);
        match self.db.apply(&commits, self.bug, dies)? {
            Ok(requeued) => {
                if requeued {
                    inputs.push_back(Input::Requeued(self.db.queue()));
                }
                let cursor = commits.last().expect("it was not empty").cursor;
                inputs.push_back(Input::Applied { cursor, digests: self.db.digests.clone() });
                Ok(true)
            }
            Err(NotShown::BaseMissing) => {
                inputs.push_front(Input::ApplyFailed { cursor: self.db.cursor, fault: ApplyFault::BaseMissing });
                Ok(false)
            }
            Err(NotShown::Died) => {
                self.fuse = Some(0);
                Ok(false)
            }
        }
    }
}

fn session(now: u64, seed: u64, bug: Option<Bug>, db: &Db) -> Session {
    let planted = bug.map(Bug::in_engine).unwrap_or_default();
    let resume = db.staged.as_ref().and_then(|staged| Some(Resume { position: staged.position.clone()?, snapshot: staged.snapshot }));
    let known = Known { cursor: db.cursor, digests: db.digests.clone(), resume, queue: db.queue() };
    Session::new(now, SessionConfig { seed, planted, ..SessionConfig::default() }, known)
}
