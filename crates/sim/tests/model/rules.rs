//! The rules that the protocol rests on, each of which can be taken out: the control of the model.
//!
//! A property that still holds without the rule that is there for it would prove nothing.

/// One rule of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The server knows an operation by its id: the second time it changes nothing.
    DedupeById,
    /// A commit is shown only when the one before it is.
    NoGap,
    /// A commit is shown only when all its frames are here.
    AllParts,
    /// The server compares the cursor's tag with the tag that it gave to that number.
    Tags,
    /// A cursor that the server does not remember starts a new epoch.
    NewEpoch,
    /// An answer that ends before the cursor is not shown.
    NoStaleAnswer,
    /// Now and then a till asks although nothing seems to be missing.
    Poll,
    /// After a new subscription, and after a time in which a server could have been restored, frames wait until the server has confirmed the cursor.
    Confirm,
    /// Frames that came before the server was asked, and that it has no commit for, are of a numbering that is gone.
    ForgetOlderFrames,
    /// Head and answer carry a digest of the rows; a till whose rows have another fetches them.
    Digest,
    /// A till hands its accepted operations in again when the epoch is another one.
    HandInAgain,
    /// A server whose head is below the number of a verdict has lost that commit: the till hands the operation in again.
    HeadPassesVerdict,
    /// An operation stays in the overlay until the commit that contains it is shown, whatever the verdict says before.
    OverlayUntilShown,
    /// The answer names the operations that its rows contain.
    AnswerNamesOps,
}

/// The protocol, or what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    without: &'static [Rule],
}

impl Rules {
    /// The protocol as it is.
    pub(crate) const ALL: Self = Self { without: &[] };

    /// The protocol with rules taken out.
    pub(crate) fn without(rules: &'static [Rule]) -> Self {
        Self { without: rules }
    }

    /// Whether a rule is in force.
    pub(crate) fn hold(self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }
}
