//! What is promised, by name: a failure says which promise was broken, and a smaller run must break the same one.

use std::fmt;

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// A commit is shown whole or not at all, in order.
    WholeCommits,
    /// A cursor never goes back within an epoch.
    CursorMonotone,
    /// A device shows what the server had at its cursor, and nothing else.
    TrueStates,
    /// A device shows the server's figure and the effect of its own operations, each once.
    ReadYourWrites,
    /// Opening stock and accepted movements are the server's stock; what is moved within a branch or between branches stays the same in sum.
    StockConserved,
    /// A completed operation is in the journal until it was sent, and at the server exactly once or among the dead letters.
    ExactlyOnce,
    /// The broker has taken every message before it is forgotten.
    Published,
    /// Nobody works without end: effects, calls and events have a bound.
    BoundedWork,
    /// When the trouble is over all are equal, by digest and by row, and all queues are empty.
    Convergence,
    /// The code itself noticed something impossible.
    Assertion,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WholeCommits => "whole commits",
            Self::CursorMonotone => "a cursor never goes back",
            Self::TrueStates => "only states that the server had",
            Self::ReadYourWrites => "read your writes",
            Self::StockConserved => "stock is conserved",
            Self::ExactlyOnce => "exactly once",
            Self::Published => "published before forgotten",
            Self::BoundedWork => "bounded work",
            Self::Convergence => "convergence",
            Self::Assertion => "the code's own assertions",
        })
    }
}

/// A broken promise.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) promise: Promise,
    pub(crate) what: String,
}

/// What a part of a run comes to.
pub(crate) type Kept<T = ()> = Result<T, Broken>;

/// A promise is broken.
pub(crate) fn broken<T>(promise: Promise, what: impl Into<String>) -> Kept<T> {
    Err(Broken { promise, what: what.into() })
}
