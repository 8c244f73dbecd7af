//! What a session asks of its driver: imperatives, to be carried out in their order.

use mstore_protocol::{Collection, Cursor, OperationId, Verdict};

use crate::buffer::ReadyCommit;

/// Why the device asks for `/changes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It has nothing yet.
    First,
    /// It was away, or MQTT was; this also confirms that a new subscription missed nothing.
    Returned,
    /// Frames are missing.
    Gap,
    /// The head is ahead of what MQTT brought.
    HeadAhead,
    /// The head asked for it: a commit without frames.
    Pull,
    /// The periodic poll.
    Poll,
    /// Another epoch or tag was seen, or the server said `410`.
    Renumbered,
    /// The local copy was wrong: rows missing, digests differing.
    Repair,
    /// The app asked.
    Requested,
}

impl Reason {
    /// Whether changes that come this way should have come over MQTT, had it done its work.
    pub fn is_fallback(self) -> bool {
        match self {
            Self::Returned | Self::Gap | Self::HeadAhead | Self::Poll | Self::Requested => true,
            Self::First | Self::Pull | Self::Renumbered | Self::Repair => false,
        }
    }

    /// For logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Returned => "returned",
            Self::Gap => "gap",
            Self::HeadAhead => "head_ahead",
            Self::Pull => "pull",
            Self::Poll => "poll",
            Self::Renumbered => "renumbered",
            Self::Repair => "repair",
            Self::Requested => "requested",
        }
    }
}

/// One `/changes` call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What the device has; `None` for a snapshot.
    pub after: Option<Cursor>,
    /// Where a broken answer stopped; wins over `after`, and its rows join those staged.
    pub resume: Option<String>,
    /// The rows staged so far stay: this answer goes on from where they end.
    pub keep_staged: bool,
    /// The answer is shown together with ranges that were fetched before and are in memory only: none of it may outlive the process.
    pub over_ranges: bool,
    /// Why.
    pub reason: Reason,
    /// Changes that come this way count as fallback: the device had a network all the time.
    pub is_fallback: bool,
}

/// Something to do.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Open the MQTT connection and subscribe to the head and the updates of these collections.
    Connect {
        /// The collections.
        collections: Vec<Collection>,
    },
    /// Subscribe to the updates of one more collection.
    Subscribe(Collection),
    /// Close the MQTT connection, if there is one.
    Disconnect,
    /// Call `/changes`, staging its rows.
    CatchUp(Ask),
    /// Call `/head`.
    FetchHead,
    /// Show a commit: rows, cursor and the operations it contains in one local transaction. Several may share it.
    Apply(ReadyCommit),
    /// Show what is staged, up to `to`, in one local transaction; for a snapshot everything else goes.
    Show {
        /// The cursor then.
        to: Cursor,
        /// Whether the staged rows are all there is.
        snapshot: bool,
        /// As in [`Ask::is_fallback`].
        is_fallback: bool,
    },
    /// Forget what is staged, fetched ranges too.
    DropStaged,
    /// The rows are the server's already: take its cursor.
    Adopt(Cursor),
    /// Take over another numbering: the fetched ranges of every collection in the place of the local ones, what is staged on top, and the cursor,
    /// in one local transaction; answer with `Applied`, the digests counted from the rows.
    Renumber {
        /// The cursor then.
        to: Cursor,
    },
    /// Count the local rows anew, from their texts, beside everything else; answer with `Recounted`.
    Recount,
    /// Ask for the sub-digests of a collection and compare them with the local ones.
    FetchSubDigests(Collection),
    /// Fetch the rows of some ranges and keep them, in the place of earlier ones of the same collection.
    FetchRows {
        /// Of which collection.
        collection: Collection,
        /// First bytes of SHA-256(id).
        ranges: Vec<u8>,
    },
    /// Put the fetched rows in the place of the local ones of those ranges, and count the collection anew; answer with `Applied`.
    ReplaceRanges {
        /// Of which collection.
        collection: Collection,
        /// Which ranges.
        ranges: Vec<u8>,
    },
    /// Post these operations, in this order.
    Upload(Vec<OperationId>),
    /// Write verdicts to the journal.
    Settle(Vec<Verdict>),
    /// Hand in accepted operations of the last days again: the server may have forgotten them.
    Requeue,
}
