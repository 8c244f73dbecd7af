//! Where an answer of `/changes` begins, and when it cannot be given: the decision, without the reading.

use mstore_engine::sequence::BranchState;
use mstore_protocol::{Collection, Cursor, Position, Seq, Tag};

use crate::{ChangesAsk, ChangesError};

/// What is known of a branch when somebody asks for its changes.
pub(crate) struct Known<'a> {
    /// Where its numbering stands.
    pub(crate) state: &'a BranchState,
    /// Deletions up to here were forgotten.
    pub(crate) floor: Seq,
    /// The tag that the log of commits has for the asker's cursor.
    pub(crate) logged: Option<Tag>,
}

/// Where an answer starts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// Rows above this seq.
    pub(crate) from: Seq,
    /// The last line already received: collection and id at `from`.
    pub(crate) after: Option<(Collection, String)>,
    /// Deletions too.
    pub(crate) with_tombstones: bool,
}

/// Decides.
pub(crate) fn start(known: &Known<'_>, ask: &ChangesAsk) -> Result<Start, ChangesError> {
    match (&ask.resume, &ask.after) {
        (Some(position), after) => resume(known, position, after.as_ref()),
        (None, Some(cursor)) => since(known, cursor),
        (None, None) => Ok(Start { from: 0, after: None, with_tombstones: false }),
    }
}

fn since(known: &Known<'_>, cursor: &Cursor) -> Result<Start, ChangesError> {
    if cursor.epoch != known.state.epoch {
        return Err(ChangesError::SnapshotRequired(format!("the branch has another epoch than {cursor}")));
    }
    if cursor.seq == 0 && cursor.tag != Tag::NONE {
        // Nothing was given out there, so nothing can be forgotten.
        return Err(ChangesError::SnapshotRequired(format!("{cursor} is no cursor of this server")));
    }
    if cursor.seq > 0 && cursor.seq < known.floor {
        return Err(ChangesError::SnapshotRequired(format!("deletions up to {} were forgotten; {cursor} is older", known.floor)));
    }
    if !is_remembered(known, cursor) {
        return Err(ChangesError::Restored { cursor: *cursor });
    }
    Ok(Start { from: cursor.seq, after: None, with_tombstones: cursor.seq > 0 })
}

fn is_remembered(known: &Known<'_>, cursor: &Cursor) -> bool {
    let tag = if cursor.seq == known.state.seq { Some(known.state.tag) } else { known.logged };
    cursor.seq == 0 || tag == Some(cursor.tag)
}

fn resume(known: &Known<'_>, position: &Position, after: Option<&Cursor>) -> Result<Start, ChangesError> {
    // The broken answer may be of a time that a restore took away: its rows must not be joined with those of another.
    if let Some(cursor) = after.filter(|cursor| cursor.epoch == known.state.epoch && cursor.seq >= known.floor)
        && !is_remembered(known, cursor)
    {
        return Err(ChangesError::Restored { cursor: *cursor });
    }
    if position.epoch != known.state.epoch || position.to > known.state.seq {
        return Err(ChangesError::SnapshotRequired("the broken answer was of another epoch".into()));
    }
    // A snapshot needs the deletions since it was made, a catch-up also those on its way.
    let needed = after.filter(|cursor| cursor.seq > 0).map_or(position.to, |cursor| cursor.seq);
    if known.floor > needed {
        return Err(ChangesError::SnapshotRequired(format!("deletions up to {} were forgotten", known.floor)));
    }
    let after = Some((position.collection.clone(), position.id.clone()));
    Ok(Start { from: position.seq, after, with_tombstones: true })
}
