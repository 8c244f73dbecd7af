//! Bugs that the simulator plants to prove that it would find them. Without the feature `mutations` there are none, and asking costs nothing.

/// A bug in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A commit is shown as soon as one of its parts is there.
    IgnoreParts,
    /// A part that comes twice counts for the one that is missing.
    CountPartTwice,
    /// A frame is shown although one before it is missing.
    StepOverGap,
    /// The end of a cached snapshot is taken for the cursor that the device has already.
    StaleSnapshotEnd,
    /// Another epoch hands no accepted operation in again.
    ForgetReplay,
    /// Fetching everything anew forgets what waits to be sent.
    DropQueueOnResync,
    /// Frames are shown after a new subscription although nobody has confirmed the cursor.
    TrustOldCursor,
    /// A `410` is answered by going on from the same cursor.
    IgnoreSnapshotRequired,
}

/// Which bug is planted in a session: none, unless the feature is on and somebody asked for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Planted {
    #[cfg(feature = "mutations")]
    mutation: Option<Mutation>,
}

impl Planted {
    /// This one.
    #[cfg(feature = "mutations")]
    pub fn one(mutation: Mutation) -> Self {
        Self { mutation: Some(mutation) }
    }

    #[cfg(feature = "mutations")]
    pub(crate) fn has(self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    #[cfg(not(feature = "mutations"))]
    pub(crate) const fn has(self, _mutation: Mutation) -> bool {
        false
    }
}
