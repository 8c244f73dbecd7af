//! Payload bytes per changed row of the frames that are published, watched on the server's own live stream.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{api::AdminApi, failure::Failure, tail::Lines};

/// Gathers until the stream ends; a killed server ends it, and what was gathered stays.
#[derive(Clone)]
pub(super) struct FrameSizes(Arc<Mutex<Histogram<u64>>>);

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    frame: Option<&'a RawValue>,
}

impl FrameSizes {
    /// Starts watching.
    pub(super) async fn watch(api: &AdminApi) -> Result<Self, Failure> {
        let sizes = Self(Arc::new(Mutex::new(super::LatencyLog::histogram())));
        let mut body = api.stream("/v1/admin/tail").await?.bytes_stream();
        let target = sizes.clone();
        tokio::spawn(async move {
            let mut lines = Lines::default();
            while let Some(Ok(chunk)) = body.next().await {
                for line in lines.push(&chunk) {
                    if let Ok(Line { frame: Some(raw) }) = serde_json::from_slice(&line)
                        && let Ok(frame) = mstore_protocol::Frame::parse(raw.get().as_bytes())
                    {
                        let per_change = raw.get().len() / frame.changes.len().max(1);
                        target.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(per_change as u64);
                    }
                }
            }
        });
        Ok(sizes)
    }

    /// The median, bytes.
    pub(super) fn p50(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).value_at_quantile(0.5)
    }
}
