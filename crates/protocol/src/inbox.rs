//! What goes to a merchant's backend about an operation, and the verdict that comes back: the webhook's two bodies.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    BranchId, DeviceId, MerchantId,
    limits::{BACKEND_CODE_CHARS_MAX, DETAIL_BYTES_MAX},
};

/// The body of a delivery; the same bytes at every attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number in the inbox: ascending within a branch.
    pub delivery: u64,
    /// Whose.
    pub merchant: MerchantId,
    /// Where it was done.
    pub branch: BranchId,
    /// The till.
    pub device: DeviceId,
    /// The till's journal, in which the operation's `device_seq` is dense.
    pub journal_id: String,
    /// The operation as the till sent it.
    pub operation: Box<RawValue>,
}

/// What a backend says to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BackendDecision {
    /// It has it; its figures include it, or will.
    Accepted,
    /// It will not have it: the operation becomes a dead letter.
    Rejected,
}

impl BackendDecision {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// A backend's verdict: the answer to a delivery. Fields that it does not have are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendVerdict {
    /// Accepted or rejected.
    pub verdict: BackendDecision,
    /// The backend's own code.
    #[serde(default)]
    pub code: Option<String>,
    /// Why, for people.
    #[serde(default)]
    pub detail: Option<String>,
}

impl BackendVerdict {
    /// An acceptance without a word.
    pub fn accepted() -> Self {
        Self { verdict: BackendDecision::Accepted, code: None, detail: None }
    }

    /// As it is kept: without control characters, no longer than there is room for. How somebody words a rejection is no reason not to understand it.
    #[must_use]
    pub fn kept(self) -> Self {
        let code = self.code.map(|code| printable(&code).chars().take(BACKEND_CODE_CHARS_MAX).collect::<String>());
        let detail = self.detail.map(|detail| crate::problem::shorten(printable(&detail)));
        Self { verdict: self.verdict, code: code.filter(|code| !code.is_empty()), detail: detail.filter(|detail| !detail.is_empty()) }
    }
}

fn printable(text: &str) -> String {
    // Nobody reads more of it than a detail can hold.
    text.chars().take(DETAIL_BYTES_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_verdict_is_kept_in_the_room_there_is() {
        let long: BackendVerdict =
            serde_json::from_value(serde_json::json!({"verdict": "rejected", "code": "Ä\u{0}".repeat(500), "detail": "€".repeat(9_000)}))
                .unwrap();
        let kept = long.kept();
        assert!(kept.code.as_ref().unwrap().chars().count() <= BACKEND_CODE_CHARS_MAX && !kept.code.unwrap().contains('\u{0}'));
        assert!(kept.detail.unwrap().len() <= DETAIL_BYTES_MAX);
        let blank: BackendVerdict = serde_json::from_str(r#"{"verdict":"accepted","code":" ","detail":"\n"}"#).unwrap();
        assert_eq!(blank.kept(), BackendVerdict::accepted());
    }
}
