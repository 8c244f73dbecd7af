//! The bugs that can be planted: the proof that the checks see something.

use mstore_engine::Planted;

/// A bug, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Engine: a commit is shown as soon as one of its parts is there.
    IgnoreParts,
    /// Engine: a part that comes twice counts for the one that is missing.
    CountPartTwice,
    /// Engine: a frame is shown although one before it is missing.
    StepOverGap,
    /// Engine: the end of a cached snapshot is taken for the cursor that the device has already.
    StaleSnapshotEnd,
    /// Engine and device: another epoch hands no accepted operation in again.
    ForgetReplay,
    /// Engine: fetching everything anew forgets what waits to be sent.
    DropQueueOnResync,
    /// Engine: frames are shown after a new subscription although nobody has confirmed the cursor.
    TrustOldCursor,
    /// Engine: a `410` is answered by going on from the same cursor.
    IgnoreSnapshotRequired,
    /// Device: the cursor is saved in a transaction before that of the rows.
    CursorBeforeRows,
    /// Device: an operation leaves the overlay at its verdict, not at its commit.
    OverlayEndsAtVerdict,
    /// Device: operations that an answer names stay in the overlay.
    OverlayOutlivesAnswer,
    /// Device: a sale is told done before it is on disk.
    SaleNotSynced,
    /// Device: rows of a snapshot are put beside the old ones.
    SnapshotKeepsRows,
    /// Device: moved to another branch, it keeps its rows and its cursor.
    KeepOldBranch,
    /// Store: an operation that comes twice is carried out twice.
    AcceptTwice,
    /// Sequencer: takes some marks of a branch and leaves the others.
    LeaveMarks,
    /// Store: a catch-up does not tell of deletions.
    ForgetTombstones,
    /// Store: a cursor below the tombstone floor is answered all the same.
    IgnoreFloor,
    /// Store: a cursor is believed whatever its tag.
    IgnoreTag,
    /// Store: stock never falls below zero.
    ClampAtZero,
    /// Store: a movement counts although a later count has seen it.
    IgnoreCountFence,
    /// Store: a transfer arrives that has not left.
    TransferOutOfNothing,
    /// Publisher: a message is forgotten before the broker has acknowledged it.
    ForgetBeforeAck,
    /// Sequencer: the outbox is written in a second transaction.
    OutboxBesideCommit,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::IgnoreParts,
        Self::CountPartTwice,
        Self::StepOverGap,
        Self::StaleSnapshotEnd,
        Self::ForgetReplay,
        Self::DropQueueOnResync,
        Self::TrustOldCursor,
        Self::IgnoreSnapshotRequired,
        Self::CursorBeforeRows,
        Self::OverlayEndsAtVerdict,
        Self::OverlayOutlivesAnswer,
        Self::SaleNotSynced,
        Self::SnapshotKeepsRows,
        Self::KeepOldBranch,
        Self::AcceptTwice,
        Self::LeaveMarks,
        Self::ForgetTombstones,
        Self::IgnoreFloor,
        Self::IgnoreTag,
        Self::ClampAtZero,
        Self::IgnoreCountFence,
        Self::TransferOutOfNothing,
        Self::ForgetBeforeAck,
        Self::OutboxBesideCommit,
    ];

    /// What the engine has to be told.
    #[cfg(feature = "mutations")]
    pub(crate) fn in_engine(self) -> Planted {
        use mstore_engine::Mutation;
        match self {
            Self::IgnoreParts => Planted::one(Mutation::IgnoreParts),
            Self::CountPartTwice => Planted::one(Mutation::CountPartTwice),
            Self::StepOverGap => Planted::one(Mutation::StepOverGap),
            Self::StaleSnapshotEnd => Planted::one(Mutation::StaleSnapshotEnd),
            Self::ForgetReplay => Planted::one(Mutation::ForgetReplay),
            Self::DropQueueOnResync => Planted::one(Mutation::DropQueueOnResync),
            Self::TrustOldCursor => Planted::one(Mutation::TrustOldCursor),
            Self::IgnoreSnapshotRequired => Planted::one(Mutation::IgnoreSnapshotRequired),
            Self::CursorBeforeRows
            | Self::OverlayEndsAtVerdict
            | Self::OverlayOutlivesAnswer
            | Self::SaleNotSynced
            | Self::SnapshotKeepsRows
            | Self::KeepOldBranch
            | Self::AcceptTwice
            | Self::LeaveMarks
            | Self::ForgetTombstones
            | Self::IgnoreFloor
            | Self::IgnoreTag
            | Self::ClampAtZero
            | Self::IgnoreCountFence
            | Self::TransferOutOfNothing
            | Self::ForgetBeforeAck
            | Self::OutboxBesideCommit => Planted::default(),
        }
    }

    /// The engine was built without its bugs.
    #[cfg(not(feature = "mutations"))]
    pub(crate) fn in_engine(self) -> Planted {
        Planted::default()
    }
}
