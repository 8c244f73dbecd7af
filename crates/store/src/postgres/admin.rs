//! What operators read and what a clock starts.

use async_trait::async_trait;
use mstore_protocol::{BranchKey, DeviceId, Head};

use super::{
    PgStore, mirror,
    snapshot::{SHARDS, Shards},
    upkeep,
};
use crate::{
    Admin, Listing, Page, StoreError, StoreGauges,
    cases::{self, Carrier as _, Size},
};

#[async_trait]
impl Admin for PgStore {
    async fn list(&self, listing: Listing, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        cases::list(self, listing, after, limit).await
    }

    async fn heads(&self) -> Result<Vec<(BranchKey, Head)>, StoreError> {
        let client = self.shared.reader().await?;
        let all = (0..SHARDS).fold(Shards::default(), Shards::with);
        let heads = mirror::heads_of(&client, &all.numbers(), 0).await?;
        let mut heads: Vec<_> = heads.into_iter().map(|(key, entry)| (key, entry.head())).collect();
        heads.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(heads)
    }

    async fn alarm(&self, kind: &str, key: Option<&BranchKey>, device: Option<&DeviceId>, detail: &str) -> Result<(), StoreError> {
        cases::alarm(self, kind, key, device, detail).await
    }

    async fn upkeep(&self) -> Result<(), StoreError> {
        let mut client = self.shared.reader().await?;
        upkeep::run(&mut client, &self.shared, (self.shared.config.clock)()).await?;
        drop(client);
        self.carry(Size::Large, |work| cases::windows::advance(work.sql, work.now), |(), _| ()).await?;
        cases::close_ledger(self, self.shared.config.ledger_keep_days).await?;
        self.shared.sequenced().await;
        Ok(())
    }

    async fn prove_writable(&self) -> Result<(), StoreError> {
        let client = self.shared.reader().await?;
        let now = (self.shared.config.clock)().to_string();
        let sql =
            "INSERT INTO setting (name, value) VALUES ('proved_writable', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        client.execute(sql, &[&now]).await?;
        Ok(())
    }

    async fn gauges(&self) -> Result<StoreGauges, StoreError> {
        let client = self.shared.reader().await?;
        // A mark for every branch of a merchant stays a while after the last of them was visited.
        let sql = "SELECT (SELECT count(*) FROM mark WHERE branch_id <> '*') + (SELECT coalesce(sum(n), 0)::bigint FROM
              (SELECT merchant_id, xid, count(*) AS n FROM mark WHERE branch_id = '*' GROUP BY merchant_id, xid) m
            WHERE EXISTS (SELECT FROM branch b LEFT JOIN head h ON h.merchant_id = b.merchant_id AND h.branch_id = b.branch_id
              WHERE b.merchant_id = m.merchant_id AND (h.n IS NULL OR NOT pg_visible_in_snapshot(m.xid, h.snapshot)))), (SELECT count(*) FROM outbox), (SELECT coalesce(sum(rows), 0)::bigint FROM head_collection),
            (SELECT count(*) FROM head), (SELECT coalesce(max(id), 0) FROM alarm), (SELECT count(*) FROM hold)";
        let statement = client.prepare_cached(sql).await?;
        let row = client.query_one(&statement, &[]).await?;
        let count = |i: usize| mirror::count(&row, i);
        Ok(StoreGauges {
            marks: count(0),
            outbox: count(1),
            mirror_rows: count(2),
            branches: count(3),
            alarms: count(4),
            held: count(5),
            unexplained_writes: 0,
        })
    }

    async fn close(&self) -> Result<(), StoreError> {
        if self.shared.is_closed() {
            return Err(StoreError::Closed);
        }
        self.shared.close();
        self.shared.until_ended().await;
        self.shared.pool.close();
        self.join();
        Ok(())
    }
}
