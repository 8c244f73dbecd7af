//! The outbox's table, as far as it is this server's.

use deadpool_postgres::GenericClient;
use mstore_protocol::{Collection, Timestamp};

use super::{
    mirror::{count, key, parsed, signed},
    snapshot::Shards,
};
use crate::{OutboxEntry, OutboxMessage, StoreError};

/// Entries of some shards after an id, in order.
pub(super) async fn read<C: GenericClient>(client: &C, shards: Shards, after: u64, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
    let sql = "SELECT o.id, h.merchant_id, h.branch_id, o.seq, o.at, o.collection, o.payload
        FROM outbox o JOIN head h ON h.n = o.head WHERE o.id > $1 AND h.shard = ANY($2) ORDER BY o.id LIMIT $3";
    let statement = client.prepare_cached(sql).await?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = client.query(&statement, &[&signed(after), &shards.numbers(), &limit]).await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &tokio_postgres::Row) -> Result<OutboxEntry, StoreError> {
    let payload: Option<&str> = row.get(6);
    let message = match payload {
        Some(payload) => OutboxMessage::Frame { collection: parsed(row, 5, Collection::parse)?, payload: payload.into() },
        None => OutboxMessage::HeadOnly,
    };
    Ok(OutboxEntry { id: count(row, 0), key: key(row, 1)?, seq: count(row, 3), at: parsed(row, 4, Timestamp::parse)?, message })
}
