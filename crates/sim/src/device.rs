//! A model of a device: the real session over a local database in memory, with what survives a crash kept apart from what does not.

use std::collections::{BTreeMap, VecDeque};

use mstore_engine::{
    ApplyFault, Ask, Effect, Input, Known, QueuedOperation, ReadyCommit, Resume, Session, SessionConfig,
    overlay::{StockChange, shown},
};
use mstore_protocol::{
    ChangeOp, Collection, Cursor, Digest, OperationId, Quantity, Row, RowHash, Timestamp, Verdict, VerdictStatus, bucket_of,
};

use crate::server::{Answer, Key};

/// A sale in a device's journal.
#[derive(Debug, Clone)]
pub(crate) struct Sale {
    pub(crate) id: OperationId,
    pub(crate) at: Timestamp,
    pub(crate) product: String,
    pub(crate) quantity: i64,
    /// The server will reject it.
    pub(crate) impossible: bool,
    pub(crate) state: SaleState,
    /// The stream contains it.
    pub(crate) shown: bool,
    /// A commit has named it, or it was handed in again because none did.
    named: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaleState {
    Queued,
    Accepted { at: Cursor },
    Rejected,
}

/// What is on the device's disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) cursor: Option<Cursor>,
    pub(crate) rows: BTreeMap<Key, Row>,
    digests: BTreeMap<Collection, Digest>,
    pub(crate) journal: Vec<Sale>,
    staged: Option<Staged>,
}

#[derive(Debug, Clone, Default)]
struct Staged {
    lines: Vec<(Key, Option<Box<str>>)>,
    ops: Vec<OperationId>,
    position: Option<String>,
    snapshot: bool,
}

/// Of a verdict that came before the first snapshot: the device knows no numbering yet.
fn no_epoch() -> mstore_protocol::Epoch {
    mstore_protocol::Epoch::from_bits(0)
}

/// Something that must never happen.
pub(crate) type Broken = String;

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) disk: Disk,
    pub(crate) session: Session,
    /// How often it was started: answers to an earlier life are for nobody.
    pub(crate) life: u32,
    fetched: Vec<(Key, Box<str>)>,
    unnamed: Vec<QueuedOperation>,
    /// A commit could not be shown: nothing that was decided on it is carried out.
    failed: bool,
}

fn known(disk: &Disk) -> Known {
    let resume = disk.staged.as_ref().and_then(|staged| Some(Resume { position: staged.position.clone()?, snapshot: staged.snapshot }));
    let queue = disk.journal.iter().filter(|sale| sale.state == SaleState::Queued).map(|sale| QueuedOperation { id: sale.id, at: sale.at });
    Known { cursor: disk.cursor, digests: disk.digests.clone(), resume, queue: queue.collect() }
}

impl Device {
    pub(crate) fn new(now: u64, seed: u64) -> Self {
        let disk = Disk::default();
        let session = Session::new(now, SessionConfig { seed, ..SessionConfig::default() }, known(&disk));
        Self { disk, session, life: 0, fetched: Vec::new(), unnamed: Vec::new(), failed: false }
    }

    /// Power off, power on: what is on disk is all that is left.
    pub(crate) fn restart(&mut self, now: u64, seed: u64) {
        self.life += 1;
        self.fetched.clear();
        self.unnamed.clear();
        self.failed = false;
        if let Some(staged) = self.disk.staged.as_mut().filter(|staged| staged.position.is_none()) {
            *staged = Staged::default();
        }
        self.session = Session::new(now, SessionConfig { seed, ..SessionConfig::default() }, known(&self.disk));
    }

    pub(crate) fn digests(&self) -> BTreeMap<Collection, Digest> {
        self.disk.digests.clone()
    }

    pub(crate) fn queued(&self) -> usize {
        self.disk.journal.iter().filter(|sale| sale.state == SaleState::Queued).count()
    }

    pub(crate) fn sell(&mut self, id: OperationId, at: Timestamp, product: String, quantity: i64, impossible: bool) -> Input {
        self.disk.journal.push(Sale { id, at, product, quantity, impossible, state: SaleState::Queued, shown: false, named: false });
        Input::OperationCommitted(QueuedOperation { id, at })
    }

    pub(crate) fn sales(&self, ids: &[OperationId]) -> Vec<Sale> {
        ids.iter().filter_map(|id| self.disk.journal.iter().find(|sale| sale.id == *id).cloned()).collect()
    }

    /// What the app shows as the stock of a product.
    pub(crate) fn stock(&self, product: &str) -> Option<Quantity> {
        let row = self.disk.rows.get(&(Collection::product(), product.to_owned()))?;
        let server = Quantity::parse(row.to_map().get("stock")?.as_str()?).ok()?;
        let pending = self.disk.journal.iter().filter(|sale| sale.product == product && !sale.shown && sale.state != SaleState::Rejected);
        Some(shown(server, pending.map(|sale| StockChange::Delta(Quantity::from_units(-sale.quantity)))))
    }

    /// Carries out what needs no network; gives the input that answers it.
    pub(crate) fn perform(&mut self, effect: Effect) -> Result<Option<Input>, Broken> {
        if self.failed && matches!(effect, Effect::Apply(_) | Effect::Show { .. } | Effect::Adopt(_) | Effect::ReplaceRanges { .. }) {
            return Ok(None);
        }
        match effect {
            Effect::Apply(commit) => self.apply(&commit),
            Effect::Show { to, snapshot, .. } => self.show(to, snapshot),
            Effect::DropStaged => {
                self.disk.staged = None;
                Ok(None)
            }
            Effect::Adopt(cursor) => {
                self.became(cursor, &[]);
                Ok(Some(self.applied(cursor)))
            }
            Effect::ReplaceRanges { collection, ranges } => self.replace(&collection, &ranges),
            Effect::Settle(verdicts) => {
                self.settle(&verdicts);
                Ok(None)
            }
            Effect::Requeue => Ok(Some(self.requeue())),
            Effect::Connect { .. }
            | Effect::Subscribe(_)
            | Effect::Disconnect
            | Effect::CatchUp(_)
            | Effect::FetchHead
            | Effect::FetchSubDigests(_)
            | Effect::FetchRows { .. }
            | Effect::Upload(_) => Err("an effect of the network was given to the disk".into()),
        }
    }

    fn applied(&self, cursor: Cursor) -> Input {
        Input::Applied { cursor, digests: self.disk.digests.clone() }
    }

    fn moves_forward(&self, to: Cursor) -> Result<(), Broken> {
        match self.disk.cursor {
            Some(from) if from.epoch == to.epoch && to.seq < from.seq => Err(format!("the cursor went back from {from} to {to}")),
            Some(_) | None => Ok(()),
        }
    }

    fn apply(&mut self, commit: &ReadyCommit) -> Result<Option<Input>, Broken> {
        let before = self.disk.cursor;
        if before.is_none_or(|before| before.epoch != commit.cursor.epoch || before.seq + 1 != commit.cursor.seq) {
            return Err(format!("commit {} after {before:?}", commit.cursor));
        }
        let parts = commit.frames.first().map_or(0, |(_, frame)| frame.parts as usize);
        if parts != commit.frames.len() {
            return Err(format!("{} of {parts} parts of {}", commit.frames.len(), commit.cursor));
        }
        let mut rows = Vec::new();
        for (collection, frame) in &commit.frames {
            for change in &frame.changes {
                let key = (collection.clone(), change.id.clone());
                let row = match change.op {
                    ChangeOp::Put => Some(change.row().map_err(|error| error.to_string())?),
                    ChangeOp::Delete => None,
                    ChangeOp::Patch => {
                        let Some(base) = self.disk.rows.get(&key) else {
                            self.failed = true;
                            return Ok(Some(Input::ApplyFailed { cursor: before, fault: ApplyFault::BaseMissing }));
                        };
                        let patch = change.patch().map_err(|error| error.to_string())?;
                        Some(base.patched(&patch).map_err(|error| error.to_string())?)
                    }
                };
                rows.push((key, row));
            }
        }
        rows.into_iter().for_each(|(key, row)| self.put(key, row));
        self.became(commit.cursor, &commit.ops);
        Ok(Some(self.applied(commit.cursor)))
    }

    fn put(&mut self, key: Key, row: Option<Row>) {
        let hash = |row: &Row| RowHash::of(&key.0, &key.1, row.as_str());
        let new = row.as_ref().map(hash);
        let old = self.disk.rows.get(&key).map(hash);
        let digest = self.disk.digests.entry(key.0.clone()).or_default();
        *digest = digest.replacing(old, new);
        match row {
            Some(row) => self.disk.rows.insert(key, row),
            None => self.disk.rows.remove(&key),
        };
    }

    /// The end of a local transaction: cursor and overlay move with the rows.
    fn became(&mut self, cursor: Cursor, ops: &[OperationId]) {
        let renumbered = self.disk.cursor.replace(cursor).is_some_and(|from| from.epoch != cursor.epoch);
        self.leave_overlay(cursor, ops);
        if renumbered {
            self.queue_accepted();
        }
    }

    fn leave_overlay(&mut self, cursor: Cursor, ops: &[OperationId]) {
        for sale in &mut self.disk.journal {
            sale.named |= ops.contains(&sale.id);
            let passed = matches!(sale.state, SaleState::Accepted { at } if (at.epoch == cursor.epoch || at.epoch == no_epoch()) && at.seq <= cursor.seq);
            sale.shown |= passed || ops.contains(&sale.id);
            if passed && !std::mem::replace(&mut sale.named, true) {
                // Its commit went by without naming it: the server may have lost it since.
                sale.state = SaleState::Queued;
                self.unnamed.push(QueuedOperation { id: sale.id, at: sale.at });
            }
        }
    }

    /// Operations that wait again because no commit named them.
    pub(crate) fn take_unnamed(&mut self) -> Option<Input> {
        let unnamed = std::mem::take(&mut self.unnamed);
        (!unnamed.is_empty()).then_some(Input::Requeued(unnamed))
    }

    /// Takes an answer in, or the part of it that came.
    pub(crate) fn stage(&mut self, ask: &Ask, answer: &Answer, lines: usize) {
        let mut staged =
            self.disk.staged.take().filter(|_| ask.keep_staged).unwrap_or(Staged { snapshot: ask.after.is_none(), ..Staged::default() });
        staged.ops.extend(&answer.first.ops);
        for line in answer.lines.iter().take(lines) {
            staged.lines.push((line.key.clone(), line.text.clone()));
            staged.position = Some(line.position.clone());
        }
        self.disk.staged = Some(staged);
    }

    pub(crate) fn position(&self) -> Option<String> {
        self.disk.staged.as_ref()?.position.clone()
    }

    fn show(&mut self, to: Cursor, snapshot: bool) -> Result<Option<Input>, Broken> {
        self.moves_forward(to)?;
        let staged = self.disk.staged.take().unwrap_or_default();
        if staged.snapshot != snapshot {
            return Err(format!("shown as a snapshot: {snapshot}; staged as one: {}", staged.snapshot));
        }
        if snapshot {
            self.disk.rows.clear();
            self.disk.digests.clear();
        }
        for (key, text) in staged.lines {
            let row = text.map(|text| Row::parse(&text)).transpose().map_err(|error| error.to_string())?;
            self.put(key, row);
        }
        let had_rows = self.disk.cursor.is_some();
        self.became(to, &staged.ops);
        if snapshot && had_rows {
            self.queue_accepted();
        }
        Ok(Some(self.applied(to)))
    }

    pub(crate) fn sub_digests(&self, collection: &Collection) -> [Digest; 256] {
        let mut sums = [Digest::EMPTY; 256];
        for ((of, id), row) in &self.disk.rows {
            if of == collection {
                let sum = &mut sums[usize::from(bucket_of(id))];
                *sum = sum.with(RowHash::of(of, id, row.as_str()));
            }
        }
        sums
    }

    pub(crate) fn fetched(&mut self, rows: Vec<(Key, Box<str>)>) {
        self.fetched = rows;
    }

    fn replace(&mut self, collection: &Collection, ranges: &[u8]) -> Result<Option<Input>, Broken> {
        let Some(cursor) = self.disk.cursor else { return Err("a repair before the first snapshot".into()) };
        let old = self.disk.rows.keys().filter(|(of, id)| of == collection && ranges.contains(&bucket_of(id)));
        for key in old.cloned().collect::<Vec<_>>() {
            self.put(key, None);
        }
        for (key, text) in std::mem::take(&mut self.fetched) {
            let row = Row::parse(&text).map_err(|error| error.to_string())?;
            self.put(key, Some(row));
        }
        self.became(cursor, &[]);
        Ok(Some(self.applied(cursor)))
    }

    /// A bit flips on the disk: the digest must find it.
    pub(crate) fn rot(&mut self, n: usize) {
        let Some(key) = self.disk.rows.keys().nth(n % self.disk.rows.len().max(1)).cloned() else { return };
        let rotten = format!(r#"{{"id":"{}","stock":"666"}}"#, key.1);
        self.put(key, Some(Row::parse(&rotten).expect("it is a row")));
    }

    fn settle(&mut self, verdicts: &[Verdict]) {
        let Some(cursor) = self.disk.cursor.or(Some(Cursor { epoch: no_epoch(), seq: 0, tag: mstore_protocol::Tag::NONE })) else {
            return;
        };
        for verdict in verdicts {
            let mut waiting = self.disk.journal.iter_mut().filter(|sale| sale.state == SaleState::Queued);
            let Some(sale) = waiting.find(|sale| sale.id.to_string() == verdict.id) else { continue };
            sale.state = match verdict.status {
                VerdictStatus::Accepted | VerdictStatus::Duplicate => {
                    SaleState::Accepted { at: Cursor { seq: verdict.seq.unwrap_or(0), ..cursor } }
                }
                VerdictStatus::Rejected => SaleState::Rejected,
            };
        }
        self.leave_overlay(cursor, &[]);
    }

    fn queue_accepted(&mut self) {
        for sale in self.disk.journal.iter_mut().filter(|sale| matches!(sale.state, SaleState::Accepted { .. })) {
            sale.state = SaleState::Queued;
        }
    }

    fn requeue(&self) -> Input {
        let queue = self.disk.journal.iter().filter(|sale| sale.state == SaleState::Queued);
        Input::Requeued(queue.map(|sale| QueuedOperation { id: sale.id, at: sale.at }).collect())
    }

    /// Takes all effects out: a crash comes between them.
    pub(crate) fn take_effects(&mut self) -> VecDeque<Effect> {
        self.failed = false;
        std::iter::from_fn(|| self.session.poll()).collect()
    }
}
