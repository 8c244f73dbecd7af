//! Errors on the wire: `application/problem+json` (RFC 9457) with a stable code and a next step.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Code, limits::DETAIL_BYTES_MAX};

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The HTTP status, repeated.
    pub status: u16,
    /// Stable; documented in the error table.
    pub code: Code,
    /// The code's meaning in a few words.
    pub title: String,
    /// What was wrong this time, and why.
    pub detail: String,
    /// What to do.
    pub next: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl Problem {
    /// A problem with the code's own status, title and next step; a detail beyond [`DETAIL_BYTES_MAX`] is cut.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            status: code.http_status(),
            code,
            title: code.title().to_owned(),
            detail: shorten(detail.into()),
            next: code.next_step().to_owned(),
            retryable: code.is_retryable(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}; {}", self.code, self.status, self.detail, self.next)
    }
}

impl std::error::Error for Problem {}

/// Cuts a detail that quotes more than anybody wants to read, store or log.
pub(crate) fn shorten(mut detail: String) -> String {
    const MARK: &str = "…";
    if detail.len() > DETAIL_BYTES_MAX {
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX - MARK.len()));
        detail.push_str(MARK);
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_quotes_no_megabytes() {
        for letter in ["x", "ä", "€", "😀"] {
            let detail = Problem::new(Code::MalformedRequest, letter.repeat(1_000_000)).detail;
            assert!(detail.len() <= DETAIL_BYTES_MAX && detail.ends_with('…'), "{}", detail.len());
        }
        assert_eq!(Problem::new(Code::MalformedRequest, "short").detail, "short");
    }
}
