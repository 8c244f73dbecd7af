//! What a session is told: past participles, one at a time.

use std::collections::BTreeMap;

use mstore_protocol::{Code, Collection, Cursor, Digest, Frame, Head, OperationId, Timestamp, Verdict};

/// What the local database holds when a session begins.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The last commit shown; none before the first snapshot.
    pub cursor: Option<Cursor>,
    /// The local digests at that cursor.
    pub digests: BTreeMap<Collection, Digest>,
    /// Where a broken answer stopped, if its rows are still staged.
    pub resume: Option<Resume>,
    /// Operations without a verdict, in the order of their `device_seq`.
    pub queue: Vec<QueuedOperation>,
}

/// Where a broken answer stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The position after the last whole line.
    pub position: String,
    /// Whether the answer was a snapshot.
    pub snapshot: bool,
}

/// An operation that waits for its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedOperation {
    /// Its id.
    pub id: OperationId,
    /// The device's clock when it was committed to the journal.
    pub at: Timestamp,
}

/// Trouble that may pass: of the network, or a server that asks for patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fault {
    /// What `Retry-After` asked for, milliseconds. Some: the server was reached.
    pub retry_after_ms: Option<u64>,
    /// The server was reached and said that it cannot answer now.
    pub reached: bool,
}

/// What became of a `/changes` call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatchUpOutcome {
    /// All lines came; they are staged, nothing is shown yet.
    Complete {
        /// Where the answer ends.
        to: Cursor,
        /// The digests at `to`.
        digests: BTreeMap<Collection, Digest>,
    },
    /// `304`: the cursor is the head.
    Unchanged,
    /// The answer broke off; its rows are staged.
    Broken {
        /// The position after the last whole line; `None` when there was none.
        resume: Option<String>,
    },
    /// `410`: there are no changes since this cursor any more.
    SnapshotRequired,
    /// Somebody must act: credentials, rights.
    Refused(Code),
    /// It may work later.
    Failed(Fault),
}

/// How the server's sub-digests of a collection and the local ones differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The commit that the server's are of.
    pub at: Cursor,
    /// The ranges that differ: first bytes of SHA-256(id).
    pub ranges: Vec<u8>,
    /// How many rows the device holds in them.
    pub rows: usize,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadOutcome {
    /// A verdict for each operation.
    Answered(Vec<Verdict>),
    /// The whole upload was refused, whatever is in it: a body limit, a proxy.
    Rejected(Code),
    /// Credentials or rights.
    Refused(Code),
    /// It may work later.
    Failed(Fault),
}

/// Why a commit could not be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyFault {
    /// A patch of a row that is not here: fetch the row.
    BaseMissing,
    /// The local database refused: disk full, locked by somebody else.
    Storage,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// Time went by.
    Woken,
    /// The MQTT connection stands and every topic asked for is subscribed.
    Subscribed,
    /// The broker refused the login or a subscription.
    ConnectionRefused(Code),
    /// The MQTT connection is gone, or could not be made.
    Disconnected,
    /// The platform says that the network came or went: a hint, never the truth.
    NetworkChanged {
        /// Whether there is one.
        available: bool,
    },
    /// A frame came over MQTT.
    FrameArrived(Collection, Frame),
    /// A head came over MQTT.
    HeadArrived(Head),
    /// [`crate::Effect::CatchUp`] came to an end.
    CaughtUp(CatchUpOutcome),
    /// [`crate::Effect::FetchHead`] came to an end.
    HeadFetched(Result<Head, Fault>),
    /// Everything handed out so far is shown; `digests` are the local ones at `cursor`.
    Applied {
        /// The last commit shown.
        cursor: Cursor,
        /// The local digests there.
        digests: BTreeMap<Collection, Digest>,
    },
    /// A commit could not be shown; nothing after `cursor` is.
    ApplyFailed {
        /// The last commit shown.
        cursor: Option<Cursor>,
        /// Why.
        fault: ApplyFault,
    },
    /// [`crate::Effect::FetchSubDigests`] came to an end.
    Compared(Result<Comparison, Fault>),
    /// [`crate::Effect::FetchRows`] came to an end: the rows are staged, as of this cursor.
    RowsFetched(Result<Cursor, Fault>),
    /// [`crate::Effect::Recount`] came to an end: what was shown then, and the collections whose texts do not add up to the stored digest or do
    /// not fit their own stored hashes; `None` if the rows could not be read.
    Recounted(Option<(Cursor, Vec<Collection>)>),
    /// An operation is in the journal.
    OperationCommitted(QueuedOperation),
    /// [`crate::Effect::Requeue`] was carried out: these wait for a verdict again.
    Requeued(Vec<QueuedOperation>),
    /// An upload came to an end.
    Uploaded(UploadOutcome),
    /// The app wants to be up to date now.
    SyncRequested,
    /// The app wants everything anew; the queue stays.
    ResyncRequested,
}
