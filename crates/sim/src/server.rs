//! A model of the server: source rows, mirror and operations in memory, sequenced by the real decisions, answering like `/changes`.

use std::collections::{BTreeMap, BTreeSet};

use mstore_engine::sequence::{self, BranchState, Delivery, Difference, Stored};
use mstore_protocol::{
    ChangesFirst, Collection, Cursor, Digest, Epoch, Head, OperationId, PROTOCOL_VERSION, Position, Seq, Tag, Timestamp, Verdict,
    VerdictStatus, bucket_of,
};
use rand::{Rng as _, rngs::StdRng};

use crate::device::Sale;

pub(crate) type Key = (Collection, String);

/// One row line of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) key: Key,
    pub(crate) text: Option<Box<str>>,
    pub(crate) position: String,
}

/// A whole answer of `/changes`.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) first: ChangesFirst,
    pub(crate) lines: Vec<Line>,
    pub(crate) to: Cursor,
    pub(crate) digests: BTreeMap<Collection, Digest>,
}

#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Lines(Answer),
    Unchanged,
    SnapshotRequired,
}

/// What the broker gets.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Frame(Collection, String),
    Head(Head),
}

/// Everything that a backup holds.
#[derive(Debug, Clone)]
struct Stock {
    branch: BranchState,
    source: BTreeMap<Key, i64>,
    mirror: BTreeMap<Key, (Stored, Seq)>,
    tombs: BTreeMap<Key, Seq>,
    floor: Seq,
    tags: BTreeMap<Seq, Tag>,
    accepted: BTreeMap<OperationId, (usize, Seq)>,
    rejected: BTreeMap<OperationId, ()>,
}

#[derive(Debug)]
pub(crate) struct Server {
    now: Stock,
    backup: Option<Stock>,
    cached: Option<Answer>,
    pub(crate) restores: u32,
    /// The highest number of a commit that a restore lost.
    highest: Seq,
    /// Digests that were true at some time, by cursor.
    pub(crate) history: BTreeMap<String, BTreeMap<Collection, Digest>>,
}

fn text_of(id: &str, stock: i64) -> Box<str> {
    format!(r#"{{"id":"{id}","name":"{id} as the catalogue has it","stock":"{stock}"}}"#).into()
}

impl Server {
    pub(crate) fn new(dice: &mut StdRng) -> Self {
        let branch = BranchState::new(Epoch::from_bits(dice.random()), Timestamp::from_ms(0));
        let now = Stock {
            branch,
            source: BTreeMap::new(),
            mirror: BTreeMap::new(),
            tombs: BTreeMap::new(),
            floor: 0,
            tags: BTreeMap::from([(0, Tag::NONE)]),
            accepted: BTreeMap::new(),
            rejected: BTreeMap::new(),
        };
        let mut server = Self { now, backup: None, cached: None, restores: 0, highest: 0, history: BTreeMap::new() };
        server.remember();
        server
    }

    /// A restored server that has not come as far again as it once was.
    pub(crate) fn is_below_its_past(&self) -> bool {
        self.now.branch.seq <= self.highest
    }

    pub(crate) fn cursor(&self) -> Cursor {
        let branch = &self.now.branch;
        Cursor { epoch: branch.epoch, seq: branch.seq, tag: branch.tag }
    }

    pub(crate) fn digests(&self) -> BTreeMap<Collection, Digest> {
        self.now.branch.collections.iter().map(|(name, of)| (name.clone(), of.digest)).collect()
    }

    pub(crate) fn head(&self, pull_within_ms: Option<u64>) -> Head {
        let cursor = self.cursor();
        Head {
            v: PROTOCOL_VERSION,
            epoch: cursor.epoch,
            seq: cursor.seq,
            tag: cursor.tag,
            at: self.now.branch.at,
            digests: self.digests(),
            pull_within_ms,
        }
    }

    fn remember(&mut self) {
        self.history.insert(self.cursor().to_string(), self.digests());
    }

    /// Sequences the marked rows where source and mirror differ.
    fn sequence(&mut self, dice: &mut StdRng, at: u64, marks: &BTreeSet<Key>, ops: &[OperationId], devices: usize) -> Vec<Message> {
        let at = Timestamp::from_ms(i64::try_from(at).unwrap_or(i64::MAX));
        let differences: Vec<Difference> = marks
            .iter()
            .filter_map(|key| {
                let new = self.now.source.get(key).map(|stock| text_of(&key.1, *stock));
                Difference::between(&key.0, &key.1, self.now.mirror.get(key).map(|(stored, _)| stored.clone()), new)
            })
            .collect();
        let Some(commit) = sequence::commit(&self.now.branch, &differences, ops, Tag::from_bits(dice.random()), at) else {
            return Vec::new();
        };
        let seq = commit.state.seq;
        for difference in differences {
            let key = (difference.collection, difference.id.to_string());
            match difference.new {
                Some(new) => {
                    self.now.tombs.remove(&key);
                    self.now.mirror.insert(key, (new, seq));
                }
                None => {
                    self.now.mirror.remove(&key);
                    self.now.tombs.insert(key, seq);
                }
            }
        }
        self.now.branch = commit.state;
        self.now.tags.insert(seq, self.now.branch.tag);
        self.remember();
        match commit.delivery {
            Delivery::Frames(frames) => frames.into_iter().map(|(collection, payload)| Message::Frame(collection, payload)).collect(),
            Delivery::HeadOnly => vec![Message::Head(self.head(Some(sequence::pull_within_ms(devices))))],
        }
    }

    /// Somebody in the back office changes some rows at once.
    pub(crate) fn write(&mut self, dice: &mut StdRng, at: u64, devices: usize) -> Vec<Message> {
        let bulk = dice.random_bool(0.02);
        let count = if bulk { 600 } else { dice.random_range(1..5) };
        let mut marks = BTreeSet::new();
        for n in 0..count {
            let collection = if dice.random_bool(0.7) { Collection::product() } else { Collection::inventory() };
            let id = if bulk { format!("bulk-{n:03}") } else { format!("item-{}", dice.random_range(0..12)) };
            let key = (collection, id);
            marks.insert(key.clone());
            if !bulk && dice.random_bool(0.15) {
                self.now.source.remove(&key);
            } else {
                let delta = dice.random_range(-3..9);
                *self.now.source.entry(key).or_default() += delta;
            }
        }
        self.sequence(dice, at, &marks, &[], devices)
    }

    /// Judges operations one by one; their effects are one commit.
    pub(crate) fn accept(
        &mut self,
        dice: &mut StdRng,
        at: u64,
        device: usize,
        sales: &[Sale],
        devices: usize,
    ) -> (Vec<Verdict>, Vec<Message>) {
        let mut fresh = Vec::new();
        let marks = sales.iter().map(|sale| (Collection::product(), sale.product.clone())).collect();
        let mut verdicts: Vec<Verdict> = sales.iter().map(|sale| self.judge(device, sale, &mut fresh)).collect();
        let messages = self.sequence(dice, at, &marks, &fresh, devices);
        let seq = self.now.branch.seq;
        for id in &fresh {
            self.now.accepted.insert(*id, (device, seq));
        }
        for verdict in verdicts.iter_mut().filter(|verdict| verdict.status == VerdictStatus::Accepted) {
            verdict.seq = Some(seq);
        }
        (verdicts, messages)
    }

    fn judge(&mut self, device: usize, sale: &Sale, fresh: &mut Vec<OperationId>) -> Verdict {
        let mut verdict = Verdict { id: sale.id.to_string(), status: VerdictStatus::Rejected, seq: None, code: None, detail: None };
        if let Some((_, seq)) = self.now.accepted.get(&sale.id) {
            verdict.status = VerdictStatus::Duplicate;
            verdict.seq = Some(*seq);
        } else if sale.impossible || self.now.rejected.contains_key(&sale.id) {
            self.now.rejected.insert(sale.id, ());
        } else {
            *self.now.source.entry((Collection::product(), sale.product.clone())).or_default() -= sale.quantity;
            self.now.accepted.insert(sale.id, (device, 0));
            fresh.push(sale.id);
            verdict.status = VerdictStatus::Accepted;
        }
        verdict
    }

    pub(crate) fn has_accepted(&self, id: OperationId) -> bool {
        self.now.accepted.contains_key(&id)
    }

    pub(crate) fn accepted_count(&self) -> usize {
        self.now.accepted.len()
    }

    pub(crate) fn contained(&self, id: OperationId, cursor: Cursor) -> bool {
        self.now.accepted.get(&id).is_some_and(|(_, seq)| *seq > 0 && *seq <= cursor.seq)
    }

    pub(crate) fn rows(&self) -> BTreeMap<Key, Box<str>> {
        self.now.mirror.iter().map(|(key, (stored, _))| (key.clone(), stored.text.clone())).collect()
    }

    /// `GET /changes`.
    pub(crate) fn changes(&mut self, dice: &mut StdRng, device: usize, after: Option<Cursor>, resume: Option<&str>) -> Reply {
        if let Some(position) = resume {
            let position = Position::parse(position).expect("devices send back what they got");
            if position.epoch != self.now.branch.epoch || position.to < self.now.floor || position.to > self.now.branch.seq {
                return Reply::SnapshotRequired;
            }
            return Reply::Lines(self.answer(device, position.seq, Some((position.collection, position.id))));
        }
        let Some(after) = after else {
            if let Some(cached) = self.cached.clone().filter(|cached| cached.to.epoch == self.now.branch.epoch && dice.random_bool(0.5)) {
                let ops = self.own_operations(device, 0, cached.to.seq);
                return Reply::Lines(Answer { first: ChangesFirst { ops, ..cached.first.clone() }, ..cached });
            }
            let answer = self.answer(device, 0, None);
            self.cached = Some(answer.clone());
            return Reply::Lines(Answer { lines: answer.lines.iter().filter(|line| line.text.is_some()).cloned().collect(), ..answer });
        };
        if after.epoch != self.now.branch.epoch || after.seq < self.now.floor {
            return Reply::SnapshotRequired;
        }
        if self.now.tags.get(&after.seq) != Some(&after.tag) {
            self.renumber(dice);
            return Reply::SnapshotRequired;
        }
        if after.seq == self.now.branch.seq { Reply::Unchanged } else { Reply::Lines(self.answer(device, after.seq, None)) }
    }

    /// Lines after a place: everything with a higher seq, and of the same seq what comes later.
    fn answer(&self, device: usize, from: Seq, within: Option<Key>) -> Answer {
        let to = self.cursor();
        let puts = self.now.mirror.iter().map(|(key, (stored, seq))| (*seq, key, Some(stored.text.clone())));
        let gone = self.now.tombs.iter().map(|(key, seq)| (*seq, key, None));
        let place = within.as_ref();
        let mut lines: Vec<_> =
            puts.chain(gone).filter(|(seq, key, _)| place.map_or(*seq > from, |place| (*seq, *key) > (from, place))).collect();
        lines.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let line = |(seq, key, text): (Seq, &Key, Option<Box<str>>)| {
            let position = Position { epoch: to.epoch, to: to.seq, seq, collection: key.0.clone(), id: key.1.clone() }.to_string();
            Line { key: key.clone(), text, position }
        };
        let lines: Vec<Line> = lines.into_iter().map(line).collect();
        let ops = self.own_operations(device, if within.is_some() { 0 } else { from }, to.seq);
        let first = ChangesFirst { epoch: to.epoch, from, to: to.seq, rows: lines.len() as u64, ops };
        Answer { first, lines, to, digests: self.digests() }
    }

    fn own_operations(&self, device: usize, from: Seq, to: Seq) -> Vec<OperationId> {
        let own = self.now.accepted.iter().filter(|(_, (of, seq))| *of == device && *seq > from && *seq <= to);
        own.map(|(id, _)| *id).collect()
    }

    pub(crate) fn sub_digest_ranges(&self, collection: &Collection, theirs: &[Digest; 256]) -> Vec<u8> {
        let mut ours = [Digest::EMPTY; 256];
        for ((_, id), (stored, _)) in self.now.mirror.iter().filter(|((of, _), _)| of == collection) {
            let sum = &mut ours[usize::from(bucket_of(id))];
            *sum = sum.with(stored.hash);
        }
        (0..=u8::MAX).filter(|range| ours[usize::from(*range)] != theirs[usize::from(*range)]).collect()
    }

    pub(crate) fn range_rows(&self, collection: &Collection, ranges: &[u8]) -> Vec<(Key, Box<str>)> {
        let wanted = |key: &&Key| key.0 == *collection && ranges.contains(&bucket_of(&key.1));
        self.now.mirror.iter().filter(|(key, _)| wanted(key)).map(|(key, (stored, _))| (key.clone(), stored.text.clone())).collect()
    }

    /// Forgets deletions: whoever is older needs a snapshot.
    pub(crate) fn raise_floor(&mut self) {
        self.now.floor = self.now.branch.seq.saturating_sub(2);
        let floor = self.now.floor;
        self.now.tombs.retain(|_, seq| *seq > floor);
        self.now.tags.retain(|seq, _| *seq >= floor);
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.now.clone());
    }

    /// The server's disk was lost and the backup put in its place; nobody tells it so.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = self.backup.take() else { return false };
        self.highest = self.highest.max(self.now.branch.seq);
        self.now = backup;
        self.cached = None;
        self.restores += 1;
        true
    }

    fn renumber(&mut self, dice: &mut StdRng) {
        self.now.branch.epoch = Epoch::from_bits(dice.random());
        self.cached = None;
        self.remember();
    }
}
