//! Where the heads are kept for those who subscribe later: in memory, since the server sends every head again after a restart.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rmqtt::{
    retain::{DefaultRetainStorage, RetainStorage},
    types::{Retain, TopicFilter, TopicName},
};

/// rmqtt's own tree; its trait implementation on the tree itself keeps nothing.
pub(super) struct Heads {
    tree: DefaultRetainStorage,
    count: Arc<AtomicUsize>,
}

impl Heads {
    /// `count` follows the number of retained messages.
    pub(super) fn new(count: Arc<AtomicUsize>) -> Self {
        Self { tree: DefaultRetainStorage::new(), count }
    }
}

#[async_trait]
impl RetainStorage for Heads {
    fn enable(&self) -> bool {
        true
    }

    fn need_sync(&self) -> bool {
        false
    }

    async fn set(&self, topic: &TopicName, retain: Retain, _expiry: Option<Duration>) -> rmqtt::Result<()> {
        // A head stays true until the next one, however long that takes.
        self.tree.set_with_timeout(topic, retain, None).await?;
        self.count.store(usize::try_from(self.tree.count().await).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        self.tree.get_message(filter).await
    }

    async fn count(&self) -> isize {
        self.tree.count().await
    }

    async fn max(&self) -> isize {
        self.tree.max().await
    }
}
