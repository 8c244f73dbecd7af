//! What became of a message that was handed over: known at once to the embedded broker, with its acknowledgement to an external one.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use crate::broker::PublishError;

type Acknowledgement = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

/// Resolves when the broker has taken the message, or will not.
pub struct Receipt(Option<Acknowledgement>);

impl Receipt {
    /// The broker has it.
    pub(crate) fn taken() -> Self {
        Self(None)
    }

    /// The broker's word is awaited.
    pub(crate) fn awaited(acknowledgement: impl Future<Output = Result<(), PublishError>> + Send + 'static) -> Self {
        Self(Some(Box::pin(acknowledgement)))
    }
}

impl Future for Receipt {
    type Output = Result<(), PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().map_or(Poll::Ready(Ok(())), |awaited| awaited.as_mut().poll(cx))
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Receipt(awaited)" } else { "Receipt(taken)" })
    }
}
