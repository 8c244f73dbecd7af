//! What operators read and what a clock starts.

use std::sync::Arc;

use async_trait::async_trait;
use mstore_protocol::{BranchKey, DeviceId, Head};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{SqliteStore, upkeep, writer::Command};
use crate::{
    Admin, Listing, Page, StoreError, StoreGauges,
    cases::{self, Size},
};

#[async_trait]
impl Admin for SqliteStore {
    async fn list(&self, listing: Listing, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        cases::list(self, listing, after, limit).await
    }

    async fn heads(&self) -> Result<Vec<(BranchKey, Head)>, StoreError> {
        if self.shared.is_closed() { Err(StoreError::Closed) } else { Ok(self.shared.heads()) }
    }

    async fn alarm(&self, kind: &str, key: Option<&BranchKey>, device: Option<&DeviceId>, detail: &str) -> Result<(), StoreError> {
        cases::alarm(self, kind, key, device, detail).await
    }

    async fn upkeep(&self) -> Result<(), StoreError> {
        self.submit(Size::Large, upkeep::run, |(), _| ()).await?;
        cases::close_ledger(self, self.ledger_keep_days).await
    }

    async fn gauges(&self) -> Result<StoreGauges, StoreError> {
        let unexplained_writes = self.shared.unexplained_writes();
        Ok(StoreGauges { unexplained_writes, ..self.readers.read(gauges).await? })
    }

    async fn prove_writable(&self) -> Result<(), StoreError> {
        let run = |work: &mut super::job::Work<'_>| {
            let sql =
                "INSERT INTO setting (name, value) VALUES ('proved_writable', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            work.conn.prepare_cached(sql)?.execute([work.now.to_string()])?;
            Ok(())
        };
        self.submit(Size::Small, run, |(), _| ()).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let (reply, done) = oneshot::channel();
        self.permits.close();
        self.queue.try_send(Command::Close(reply)).map_err(|_| StoreError::Closed)?;
        done.await.map_err(|_| StoreError::Closed)?;
        self.readers.close();
        self.outbox_wake_all();
        Ok(())
    }
}

impl SqliteStore {
    /// Whoever waits for entries looks again and finds the store closed.
    fn outbox_wake_all(&self) {
        Arc::clone(&self.shared.outbox.wake).notify_waiters();
        self.join();
    }
}

fn gauges(conn: &Connection) -> Result<StoreGauges, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM mark), (SELECT count(*) FROM outbox), (SELECT coalesce(sum(rows), 0) FROM head_collection),
        (SELECT count(*) FROM head), (SELECT coalesce(max(id), 0) FROM alarm), (SELECT count(*) FROM hold)";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| {
        let count = |i: usize| row.get::<_, u64>(i);
        Ok(StoreGauges {
            marks: count(0)?,
            outbox: count(1)?,
            mirror_rows: count(2)?,
            branches: count(3)?,
            alarms: count(4)?,
            held: count(5)?,
            unexplained_writes: 0,
        })
    })?)
}
