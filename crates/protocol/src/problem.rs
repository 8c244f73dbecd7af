//! Errors on the wire: `application/problem+json` (RFC 9457) with a stable code and a next step.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Code;

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
    /// A problem with the code's own status, title and next step.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            status: code.http_status(),
            code,
            title: code.title().to_owned(),
            detail: detail.into(),
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
