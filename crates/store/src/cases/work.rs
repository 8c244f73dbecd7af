//! What a use case works with and what it leaves behind for whoever sequences.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use mstore_protocol::{BranchKey, DeviceId, OperationId, PersonalData, Seq, Timestamp};

use crate::sql::Sql;

/// A write of more items than this gets a transaction of its own.
const SMALL_ITEMS_MAX: usize = 20;

/// How much a case changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// It may share a transaction.
    Small,
    /// It gets one of its own.
    Large,
}

impl Size {
    /// Of a write with so many items.
    pub(crate) fn of(items: usize) -> Self {
        if items > SMALL_ITEMS_MAX { Self::Large } else { Self::Small }
    }

    /// Of a case that locks a branch or a merchant from its beginning to its end.
    pub(crate) fn at(self, locked: impl Display) -> Case {
        Case { size: self, queue: Some(locked.to_string().into()) }
    }
}

/// What is known of a case before it runs.
#[derive(Debug)]
pub(crate) struct Case {
    /// How much it changes.
    pub(crate) size: Size,
    /// Cases of the same queue come one after the other: running them beside each other gains nothing.
    pub(crate) queue: Option<Box<str>>,
}

impl From<Size> for Case {
    fn from(size: Size) -> Self {
        Self { size, queue: None }
    }
}

/// What a case may use and leave behind. It may be run again from the beginning when its transaction was lost.
pub(crate) struct Work<'a> {
    /// The transaction, which a case can undo to its beginning.
    pub(crate) sql: &'a dyn Sql,
    /// The time of the transaction.
    pub(crate) now: Timestamp,
    /// What no row and no operation may hold.
    pub(crate) personal: &'a PersonalData,
    /// Branches whose sequencing the answer waits for, beside those it left marks for.
    pub(crate) touched: BTreeSet<BranchKey>,
    /// Branches whose held commit may go out.
    pub(crate) confirmed: BTreeSet<BranchKey>,
    /// Operations that the next commit of a branch names although nobody uploaded them here.
    pub(crate) named: BTreeMap<BranchKey, Vec<OperationId>>,
    /// Devices of which others may remember what is no longer so.
    pub(crate) changed: BTreeSet<DeviceId>,
}

impl<'a> Work<'a> {
    /// At the beginning.
    pub(crate) fn new(sql: &'a dyn Sql, now: Timestamp, personal: &'a PersonalData) -> Self {
        let (touched, confirmed, changed) = Default::default();
        Self { sql, now, personal, touched, confirmed, named: BTreeMap::new(), changed }
    }
}

/// What an answer may be made of, once everything is durable and sequenced.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The commits made of the branches it touched.
    pub(crate) commits: BTreeMap<BranchKey, Seq>,
    /// Where the heads of the branches it touched are; without those that are held back.
    pub(crate) heads: BTreeMap<BranchKey, Seq>,
    /// When the last of them was durable, microseconds since 1970 on this machine's clock.
    pub(crate) durable_at_us: i64,
}
