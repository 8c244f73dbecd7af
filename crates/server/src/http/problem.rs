//! Every error answer: `application/problem+json` with a stable code, whoever refused the request.

use axum::{
    extract::rejection::{PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use mstore_protocol::{BranchKey, Code, Collection, Problem, did_you_mean};
use mstore_store::{ChangesError, StoreError};

/// Seconds after which a refused request may come again, unless told otherwise.
const RETRY_AFTER_S: u32 = 1;

/// A detail may repeat what it refuses; this much of it is enough.
const DETAIL_CHARS_MAX: usize = 1_000;

/// A request that is not carried out.
#[derive(Debug)]
pub(crate) struct Refusal {
    problem: Box<Problem>,
    retry_after_s: Option<u32>,
}

impl Refusal {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail: String = detail.into().chars().take(DETAIL_CHARS_MAX).collect();
        let retry_after_s = matches!(code.http_status(), 429 | 503).then_some(RETRY_AFTER_S);
        Self { problem: Box::new(Problem::new(code, detail)), retry_after_s }
    }

    /// Malformed in a way that HTTP has a status of its own for.
    pub(crate) fn with_status(status: StatusCode, detail: impl Into<String>) -> Self {
        let mut refusal = Self::new(Code::MalformedRequest, detail);
        refusal.problem.status = status.as_u16();
        refusal
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Code::MalformedRequest, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Code::NotFound, detail)
    }

    pub(crate) fn no_collection(collection: &Collection, known: &[Collection]) -> Self {
        let hint = did_you_mean(collection.as_str(), known.iter().map(Collection::as_str));
        Self::new(Code::UnknownCollection, format!("there is no collection {collection}; {hint}"))
    }

    pub(crate) fn no_branch(key: &BranchKey) -> Self {
        Self::not_found(format!("there is no branch {key}"))
    }

    /// A bug of ours: the log has the details, the caller does not.
    pub(crate) fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "{what}");
        Self::new(Code::Internal, format!("{what}; the server's log says more"))
    }

    #[must_use]
    pub(crate) fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.problem.code
    }

    #[cfg(test)]
    pub(crate) fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem).expect("a problem is always JSON");
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        // For whoever counts what is refused.
        response.extensions_mut().insert(self.problem.code);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused { code, detail } => Self::new(code, detail),
            StoreError::Busy { code, detail } => {
                tracing::warn!(%code, detail, "store busy");
                Self::new(code, format!("the database cannot be written now: {detail}"))
            }
            StoreError::Failed(error) => Self::internal("the database failed", &error),
            StoreError::Closed => Self::new(Code::Unavailable, "the server is shutting down"),
        }
    }
}

impl From<ChangesError> for Refusal {
    fn from(error: ChangesError) -> Self {
        match error {
            ChangesError::SnapshotRequired(detail) => Self::new(Code::SnapshotRequired, detail),
            restored @ ChangesError::Restored { .. } => {
                tracing::error!(%restored, "server was restored from a backup");
                Self::new(Code::SnapshotRequired, restored.to_string())
            }
            ChangesError::UnknownBranch(key) => Self::no_branch(&key),
            ChangesError::Store(error) => error.into(),
        }
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::malformed(format!("the path: {}", rejection.body_text()))
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::malformed(format!("the query: {}", rejection.body_text()))
    }
}
