//! A body of a few pieces of memory: its length is known, nothing is copied, and no store transaction is open while it is sent.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// Handed to the socket at once: small enough that a slow reader's connection holds little, besides the shared piece itself.
const CHUNK_BYTES: usize = 64 * 1024;

/// Pieces sent one after the other.
pub(crate) struct Pieces(VecDeque<Bytes>);

impl Pieces {
    pub(crate) fn body(pieces: Vec<Bytes>) -> Body {
        Body::new(Self(pieces.into_iter().filter(|piece| !piece.is_empty()).collect()))
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.0.front_mut() else { return Poll::Ready(None) };
        let chunk = piece.split_to(piece.len().min(CHUNK_BYTES));
        if piece.is_empty() {
            self.0.pop_front();
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| u64::try_from(piece.len()).unwrap_or(0)).sum())
    }
}
