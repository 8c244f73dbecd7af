//! Path and query as axum reads them, refused as problems.

use axum::extract::{FromRequestParts, Path, Query};

use super::problem::Refusal;

/// Parts of the path, each parsed into its type.
#[derive(FromRequestParts)]
#[from_request(via(Path), rejection(Refusal))]
pub(crate) struct Names<T>(pub(crate) T);

/// The query string.
#[derive(FromRequestParts)]
#[from_request(via(Query), rejection(Refusal))]
pub(crate) struct Ask<T>(pub(crate) T);
