//! A till in small: what it shows, what it did, and which frames it may show next.

use crate::{
    rules::{Rule, Rules},
    server::{Answer, Cursor, Frame, Question, Rows, bit},
};

/// The one sale that a till makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sale {
    NotYet,
    /// In the journal, without a verdict.
    Queued,
    /// In the commit with this number, the server says.
    Accepted {
        epoch: u8,
        seq: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Till {
    /// Its operation's id.
    pub(crate) op: u8,
    // On disk; each step below changes it in one local transaction.
    pub(crate) cursor: Cursor,
    pub(crate) rows: Rows,
    pub(crate) sale: Sale,
    /// The sale is added to what the rows say.
    pub(crate) overlay: bool,
    /// A commit has named the sale, or it was handed in again because none did.
    named: bool,
    // In memory.
    pub(crate) subscribed: bool,
    /// The server has said lately that the cursor is one of its own.
    pub(crate) confirmed: bool,
    /// Frames that cannot be shown yet.
    pub(crate) buffer: Vec<Frame>,
    /// An answer on its way.
    pub(crate) answer: Option<Answer>,
    /// The cursor went back within an epoch, at some time: must never be.
    pub(crate) went_back: bool,
}

impl Till {
    pub(crate) fn new(op: u8, cursor: Cursor) -> Self {
        Self {
            op,
            cursor,
            rows: Rows::FIRST,
            sale: Sale::NotYet,
            overlay: false,
            named: false,
            subscribed: true,
            confirmed: true,
            buffer: Vec::new(),
            answer: None,
            went_back: false,
        }
    }

    /// The journal has it before the customer has the receipt.
    pub(crate) fn sell(&mut self) {
        self.sale = Sale::Queued;
        self.overlay = true;
    }

    /// Power off, power on. What has a verdict but is not shown is handed in again: nobody remembers what the verdict was worth.
    pub(crate) fn restart(&mut self) {
        self.subscribed = false;
        self.confirmed = false;
        self.buffer.clear();
        self.answer = None;
        if matches!(self.sale, Sale::Accepted { .. }) && self.overlay {
            self.sale = Sale::Queued;
        }
    }

    pub(crate) fn question(&self) -> Question {
        let verdict = match self.sale {
            Sale::Accepted { seq, .. } if self.overlay => Some(seq),
            Sale::Accepted { .. } | Sale::Queued | Sale::NotYet => None,
        };
        Question { after: self.cursor, held: self.buffer.clone(), verdict }
    }

    /// From here on no frame is missed; what was missed before, only the server can say.
    pub(crate) fn subscribe(&mut self, rules: Rules) {
        self.subscribed = true;
        self.confirmed = !rules.hold(Rule::Confirm);
    }

    /// So much time went by that a server could have been restored in it.
    pub(crate) fn doubt(&mut self, rules: Rules) {
        self.answer = None;
        self.confirmed = !rules.hold(Rule::Confirm);
    }

    pub(crate) fn frame_arrived(&mut self, rules: Rules, frame: Frame) {
        if frame.epoch == self.cursor.epoch && frame.seq <= self.cursor.seq {
            if frame.seq == self.cursor.seq && frame.tag != self.cursor.tag && rules.hold(Rule::Confirm) {
                self.confirmed = false;
            }
            return;
        }
        // Another commit with the same number: the server was restored, and the later one stays.
        self.buffer.retain(|held| (held.epoch, held.seq) != (frame.epoch, frame.seq) || held.tag == frame.tag);
        if let Err(at) = self.buffer.binary_search(&frame) {
            self.buffer.insert(at, frame);
        }
        self.advance(rules);
    }

    /// Shows every commit that is next in line.
    fn advance(&mut self, rules: Rules) {
        while self.confirmed
            && let Some(commit) = self.next_commit(rules)
        {
            let last = commit[commit.len() - 1];
            commit.iter().for_each(|frame| self.rows.apply(frame.change));
            self.buffer.retain(|held| !commit.contains(held));
            let names_own = commit.iter().any(|frame| frame.op == Some(self.op));
            self.moved_to(rules, Cursor { epoch: last.epoch, seq: last.seq, tag: last.tag }, names_own);
        }
    }

    fn next_commit(&self, rules: Rules) -> Option<Vec<Frame>> {
        let above = |frame: &&Frame| frame.epoch == self.cursor.epoch && frame.seq > self.cursor.seq;
        let first = *self.buffer.iter().find(above)?;
        let frames: Vec<Frame> = self.buffer.iter().filter(|frame| (frame.epoch, frame.seq) == (first.epoch, first.seq)).copied().collect();
        let is_next = first.seq == self.cursor.seq + 1 || !rules.hold(Rule::NoGap);
        let is_whole = frames.len() == usize::from(first.parts) || !rules.hold(Rule::AllParts);
        (is_next && is_whole).then_some(frames)
    }

    pub(crate) fn answer_arrived(&mut self, rules: Rules, answer: Answer) {
        let is_stale = self.cursor.epoch == answer.to.epoch && answer.to.seq < self.cursor.seq;
        if is_stale && rules.hold(Rule::NoStaleAnswer) {
            return;
        }
        if rules.hold(Rule::ForgetOlderFrames) {
            self.buffer.retain(|frame| !answer.question.held.contains(frame));
        }
        if answer.to != self.cursor {
            if answer.snapshot {
                self.rows = Rows::FIRST;
            }
            answer.changes.iter().for_each(|change| self.rows.apply(*change));
            let renumbered = answer.to.epoch != self.cursor.epoch;
            self.moved_to(rules, answer.to, answer.ops & bit(self.op) != 0);
            self.buffer.retain(|frame| frame.epoch == answer.to.epoch && frame.seq > answer.to.seq);
            if renumbered && rules.hold(Rule::HandInAgain) && matches!(self.sale, Sale::Accepted { .. }) {
                self.sale = Sale::Queued;
            }
        }
        // The server gave the sale a number that it has not come to: it has lost the commit since.
        let is_lost = answer.question.verdict.is_some_and(|seq| seq > answer.to.seq);
        if is_lost && rules.hold(Rule::HeadPassesVerdict) && matches!(self.sale, Sale::Accepted { .. }) {
            self.sale = Sale::Queued;
        }
        if self.cursor == answer.to && rules.hold(Rule::Digest) {
            // Repair: the ranges that differ are fetched again.
            self.rows = answer.digest;
        }
        self.confirmed = true;
        self.advance(rules);
    }

    /// The end of a local transaction: rows, cursor and overlay move together.
    fn moved_to(&mut self, rules: Rules, to: Cursor, names_own: bool) {
        self.went_back |= to.epoch == self.cursor.epoch && to.seq < self.cursor.seq;
        self.cursor = to;
        self.named |= names_own;
        self.overlay &= !names_own;
        self.look_at_verdict(rules);
    }

    /// The verdict gives a number; the numbering is the one that the till knows.
    pub(crate) fn judged(&mut self, rules: Rules, seq: u8) {
        self.sale = Sale::Accepted { epoch: self.cursor.epoch, seq };
        self.overlay &= rules.hold(Rule::OverlayUntilShown);
        self.look_at_verdict(rules);
    }

    /// The commit of the verdict is shown: if it did not name the sale, the server may have lost it since, and resending is safe.
    fn look_at_verdict(&mut self, rules: Rules) {
        let Sale::Accepted { epoch, seq } = self.sale else { return };
        if epoch != self.cursor.epoch || seq > self.cursor.seq {
            return;
        }
        self.overlay = false;
        if !self.named && rules.hold(Rule::HandInAgain) {
            self.named = true;
            self.sale = Sale::Queued;
        }
    }
}
