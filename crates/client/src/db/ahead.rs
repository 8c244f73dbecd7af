//! Rows of a first snapshot written before its last line is there, in a transaction that stays open: nobody sees them. Whoever else needs the
//! database ends that transaction; then the rows are written when they are shown, as those of any other answer.

use std::{collections::BTreeMap, sync::Arc};

use mstore_protocol::{Collection, Digest};

use super::{DbError, LocalDb, rows::Rows, show::show_row};
use crate::staged::{Segment, Staged};

/// What the open transaction holds.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    written: Vec<Arc<Segment>>,
    pub(super) digests: BTreeMap<Collection, Digest>,
    pub(super) changes: u64,
}

impl Ahead {
    /// How many segments were written.
    pub(super) fn segments(&self) -> usize {
        self.written.len()
    }

    fn begins(&self, staged: &Staged) -> bool {
        let same = |(ours, theirs): (&Arc<Segment>, &Arc<Segment>)| Arc::ptr_eq(ours, theirs);
        self.written.len() <= staged.full().len() && self.written.iter().zip(staged.full()).all(same)
    }
}

impl LocalDb {
    /// Opens the transaction; false if something is shown already.
    pub(crate) fn begin_ahead(&mut self) -> Result<bool, DbError> {
        self.end_ahead()?;
        if self.cursor.is_some() {
            return Ok(false);
        }
        self.ahead = Some(Ahead::default());
        self.conn.execute_batch("PRAGMA cache_size = -16384; BEGIN IMMEDIATE; DELETE FROM row")?;
        Ok(true)
    }

    /// Writes the next segment; false when somebody has ended the transaction.
    pub(crate) fn write_ahead(&mut self, segment: &Arc<Segment>) -> Result<bool, DbError> {
        let is_open = !self.conn.is_autocommit();
        let Some(ahead) = self.ahead.as_mut().filter(|_| is_open) else { return Ok(false) };
        let mut rows = Rows::of(&self.conn);
        for row in segment.rows() {
            ahead.changes += 1;
            show_row(&mut rows, row, true, &mut ahead.digests)?;
        }
        ahead.written.push(Arc::clone(segment));
        Ok(true)
    }

    /// What was written ahead of these rows, if it is wanted and its transaction still open; anything else is undone.
    pub(super) fn take_ahead(&mut self, staged: &Staged, wanted: bool) -> Result<Option<Ahead>, DbError> {
        let is_open = wanted && !self.conn.is_autocommit();
        let ahead = self.ahead.take().filter(|ahead| is_open && ahead.begins(staged));
        if ahead.is_none() {
            self.end_ahead()?;
        }
        Ok(ahead)
    }

    /// Undoes what was written ahead.
    pub(crate) fn end_ahead(&mut self) -> Result<(), DbError> {
        Self::end_open_transaction(&self.conn)?;
        if self.ahead.take().is_some() {
            self.conn.execute_batch("PRAGMA cache_size = -2000")?;
        }
        Ok(())
    }
}
