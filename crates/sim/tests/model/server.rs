//! The server in small: a list of commits, the rows that follow from it, and what it answers.

use crate::rules::{Rule, Rules};

/// What a till has: a number, whose numbering it is, and the tag that tells two commits of the same number apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cursor {
    pub(crate) epoch: u8,
    pub(crate) seq: u8,
    pub(crate) tag: u8,
}

/// How much tea the shop opens with.
pub(crate) const OPENING: i8 = 5;

/// All rows of the branch: a product with its stock and price, and the receipts, one bit for each operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Rows {
    pub(crate) stock: i8,
    pub(crate) price: u8,
    pub(crate) receipts: u8,
}

impl Rows {
    pub(crate) const FIRST: Self = Self { stock: OPENING, price: 0, receipts: 0 };

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Stock(stock) => self.stock = stock,
            Change::Price(price) => self.price = price,
            Change::Receipt(op) => self.receipts |= bit(op),
        }
    }
}

pub(crate) fn bit(op: u8) -> u8 {
    1 << op
}

/// New values, not differences: showing one twice changes nothing, showing one without those before it makes a state that never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Change {
    Stock(i8),
    Price(u8),
    Receipt(u8),
}

/// One MQTT message. A sale makes two: the stock and the receipt are in different collections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Frame {
    pub(crate) epoch: u8,
    pub(crate) seq: u8,
    pub(crate) tag: u8,
    pub(crate) part: u8,
    pub(crate) parts: u8,
    pub(crate) change: Change,
    /// The operation that the commit contains, on the first part.
    pub(crate) op: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Commit {
    tag: u8,
    changes: Vec<Change>,
    op: Option<u8>,
}

/// What a till asks with, and what it remembers of that moment when the answer comes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) after: Cursor,
    /// The frames that it held.
    pub(crate) held: Vec<Frame>,
    /// The number of the verdict that it had, if the commit was not shown yet.
    pub(crate) verdict: Option<u8>,
}

/// An answer of `/changes`: the rows changed since the cursor as they are at `to`, or all of them.
///
/// A `410` and the snapshot that the till fetches then are one answer here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Answer {
    pub(crate) question: Question,
    pub(crate) to: Cursor,
    pub(crate) changes: Vec<Change>,
    /// Everything else goes: the changes are all there is.
    pub(crate) snapshot: bool,
    /// The operations that it contains, a bit each.
    pub(crate) ops: u8,
    /// What the rows must be at `to`; a digest on the wire.
    pub(crate) digest: Rows,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    epoch: u8,
    commits: Vec<Commit>,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self { epoch: 0, commits: Vec::new() }
    }

    pub(crate) fn head(&self) -> Cursor {
        Cursor { epoch: self.epoch, seq: self.len(), tag: self.commits.last().map_or(0, |commit| commit.tag) }
    }

    pub(crate) fn len(&self) -> u8 {
        u8::try_from(self.commits.len()).expect("a handful of commits")
    }

    pub(crate) fn rows(&self) -> Rows {
        let mut rows = Rows::FIRST;
        self.commits.iter().flat_map(|commit| &commit.changes).for_each(|change| rows.apply(*change));
        rows
    }

    /// The backend changes the price. Tags are random on the wire; here they are a number that never comes again.
    pub(crate) fn reprice(&mut self, tag: u8) -> Vec<Frame> {
        self.commit(tag, vec![Change::Price(tag)], None)
    }

    /// Judges an operation: the number of the commit that contains it, and the frames if it is a new one.
    pub(crate) fn accept(&mut self, rules: Rules, op: u8, tag: u8) -> (u8, Vec<Frame>) {
        if rules.hold(Rule::DedupeById)
            && let Some(n) = self.commits.iter().position(|commit| commit.op == Some(op))
        {
            return (u8::try_from(n + 1).expect("a handful of commits"), Vec::new());
        }
        let stock = self.rows().stock - 1;
        let frames = self.commit(tag, vec![Change::Stock(stock), Change::Receipt(op)], Some(op));
        (self.len(), frames)
    }

    fn commit(&mut self, tag: u8, changes: Vec<Change>, op: Option<u8>) -> Vec<Frame> {
        let (seq, parts) = (self.len() + 1, u8::try_from(changes.len()).expect("two collections"));
        let numbered = (1..=parts).zip(&changes);
        let frames = numbered
            .map(|(part, change)| Frame { epoch: self.epoch, seq, tag, part, parts, change: *change, op: op.filter(|_| part == 1) })
            .collect();
        self.commits.push(Commit { tag, changes, op });
        frames
    }

    /// Answers `/changes`, and starts a new epoch when it meets a cursor that it cannot have given out.
    pub(crate) fn answer(&mut self, rules: Rules, question: Question) -> Answer {
        let after = question.after;
        let is_known = self.remembers(rules, after);
        if !is_known && after.epoch == self.epoch && rules.hold(Rule::NewEpoch) {
            self.epoch += 1;
        }
        let from = if is_known { usize::from(after.seq) } else { 0 };
        let since = &self.commits[from..];
        let now = self.rows();
        let mut changes: Vec<Change> = since.iter().flat_map(|commit| &commit.changes).map(|change| as_it_is_now(*change, now)).collect();
        changes.sort_unstable();
        changes.dedup();
        let named = since.iter().filter(|_| rules.hold(Rule::AnswerNamesOps)).filter_map(|commit| commit.op);
        let ops = named.fold(0, |ops, op| ops | bit(op));
        Answer { question, to: self.head(), changes, snapshot: !is_known, ops, digest: now }
    }

    fn remembers(&self, rules: Rules, cursor: Cursor) -> bool {
        let tag = |seq: u8| if seq == 0 { Some(0) } else { self.commits.get(usize::from(seq) - 1).map(|commit| commit.tag) };
        let fits = |tag: u8| tag == cursor.tag || !rules.hold(Rule::Tags);
        cursor.epoch == self.epoch && tag(cursor.seq).is_some_and(fits)
    }

    /// Put back to a backup: the last commits were never made, and the server does not know it.
    pub(crate) fn forget(&mut self, commits: u8) {
        self.commits.truncate(self.commits.len() - usize::from(commits));
    }
}

fn as_it_is_now(change: Change, now: Rows) -> Change {
    match change {
        Change::Stock(_) => Change::Stock(now.stock),
        Change::Price(_) => Change::Price(now.price),
        Change::Receipt(op) => Change::Receipt(op),
    }
}
