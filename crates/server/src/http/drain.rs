//! A request that is answered before its body was read: the rest is read and thrown away, so that the sender gets to read the answer.
//!
//! Closing a connection on unread bytes resets it, and a reset takes the answer with it. What is thrown away is bounded.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::App;

/// Thrown away at most; a sender that reads only when it has sent more than this finds its connection reset.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Lends the request's body to whoever answers, and reads on what they left.
pub(super) async fn drain(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let waits = request.headers().get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let (parts, body) = request.into_parts();
    let (lent, mut left) = Lent::of(body);
    let response = next.run(Request::from_parts(parts, Body::new(lent))).await;
    if let Ok(Left { body, was_read }) = left.try_recv()
        && !body.is_end_stream()
        // A sender that waits for `100 Continue` has sent nothing yet: reading would only invite it.
        && (was_read || !waits)
    {
        let limit = app.config.limits.body_timeout;
        tokio::spawn(async move { tokio::time::timeout(limit, throw_away(body)).await });
    }
    response
}

async fn throw_away(mut body: Body) {
    let mut seen: usize = 0;
    while let Some(Ok(frame)) = body.frame().await {
        seen = seen.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        if seen > DRAIN_BYTES_MAX {
            tracing::debug!(seen, "a refused body is cut off");
            return;
        }
    }
}

/// What the borrower did not read.
struct Left {
    body: Body,
    was_read: bool,
}

/// A body that comes back when it is dropped.
struct Lent {
    left: Option<Left>,
    back: Option<oneshot::Sender<Left>>,
}

impl Lent {
    fn of(body: Body) -> (Self, oneshot::Receiver<Left>) {
        let (back, left) = oneshot::channel();
        (Self { left: Some(Left { body, was_read: false }), back: Some(back) }, left)
    }

    fn body(&self) -> &Body {
        &self.left.as_ref().expect("the body is here until this is dropped").body
    }
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let left = self.left.as_mut().expect("the body is here until this is dropped");
        left.was_read = true;
        Pin::new(&mut left.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(left), Some(back)) = (self.left.take(), self.back.take()) {
            // Nobody waits for it once the request was given up.
            let _gone = back.send(left);
        }
    }
}
