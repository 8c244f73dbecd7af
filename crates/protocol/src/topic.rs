//! MQTT topics: the only two shapes there are, built and parsed in one place.

use std::fmt;

use crate::scope::{BranchId, Collection, Env, MerchantId, Scope, SegmentError};

/// What a topic carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicKind {
    /// `{env}/{merchant}/{branch}/{collection}/updates`: frames, QoS 1, not retained.
    Updates(Collection),
    /// `{env}/{merchant}/{branch}/sync/head`: the head, QoS 1, retained.
    Head,
}

/// A topic of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Whose data.
    pub scope: Scope,
    /// Frames of a collection, or the head.
    pub kind: TopicKind,
}

/// Why a string is not one of our topics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not five levels ending in `/updates` or `sync/head`.
    #[error("not env/merchant/branch/collection/updates nor env/merchant/branch/sync/head")]
    Shape,
    /// One level is not a segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl Topic {
    /// The topic of a collection's frames.
    pub fn updates(scope: &Scope, collection: &Collection) -> Self {
        Self { scope: scope.clone(), kind: TopicKind::Updates(collection.clone()) }
    }

    /// The topic of a branch's head.
    pub fn head(scope: &Scope) -> Self {
        Self { scope: scope.clone(), kind: TopicKind::Head }
    }

    /// The one wildcard filter that a device may use: all update topics of its branch.
    pub fn updates_filter(scope: &Scope) -> String {
        format!("{scope}/+/updates")
    }

    /// Parses a concrete topic; filters with wildcards are not topics.
    pub fn parse(raw: &str) -> Result<Self, TopicError> {
        let mut levels = raw.split('/');
        let mut next = || levels.next().ok_or(TopicError::Shape);
        let (env, merchant, branch, fourth, fifth) = (next()?, next()?, next()?, next()?, next()?);
        if levels.next().is_some() {
            return Err(TopicError::Shape);
        }
        let kind = match (fourth, fifth) {
            ("sync", "head") => TopicKind::Head,
            (collection, "updates") => TopicKind::Updates(Collection::parse(collection)?),
            _ => return Err(TopicError::Shape),
        };
        let scope = Scope { env: Env::parse(env)?, merchant: MerchantId::parse(merchant)?, branch: BranchId::parse(branch)? };
        Ok(Self { scope, kind })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            TopicKind::Updates(collection) => write!(f, "{}/{collection}/updates", self.scope),
            TopicKind::Head => write!(f, "{}/sync/head", self.scope),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn round_trips_and_refuses_everything_else() {
        for good in ["prod/m1/b1/product/updates", "dev/m/b/sync/head", "e/m/b/price_list/updates"] {
            assert_eq!(Topic::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "prod/m1/b1/+/updates",
            "prod/m1/b1/product",
            "prod/m1/b1/product/updates/deep",
            "/prod/m1/b1/product/updates",
            "prod/m1/b1/sync/updates",
            "prod/m1/b1/product/head",
            "",
            "#",
            "$SYS/a/b/c/updates",
            "prod/admin/b1/product/updates",
        ] {
            assert!(Topic::parse(bad).is_err(), "{bad}");
        }
    }
}
