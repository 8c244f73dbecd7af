//! Which server sequences which branches: shards are leased, shared fairly among the servers that live, and taken from those that do not.
//!
//! Two clocks are never compared: whether another server lives is read off the database's clock, until when our own lease lasts off our monotonic one,
//! counted from before the renewal was asked for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::GenericClient;
use tokio_postgres::Error;

use super::{
    error::described,
    shared::Shared,
    snapshot::{SHARDS, Shards},
};

/// A server whose lease ended this long ago has its session ended, if a transaction is open there: its own renewal may only have been slow, and comes before that.
const GRACE: Duration = Duration::from_millis(500);
/// The advisory lock by which the session that sequences for a server is found.
const SESSION: &str = "hashtextextended('mstore sequencer ' || $1, 0)";

/// Lets other servers find the session in which this server sequences. Nobody ever waits for this lock.
pub(super) async fn sign<C: GenericClient>(client: &C, shared: &Shared) -> Result<(), Error> {
    client.query_one(&format!("SELECT pg_advisory_lock_shared({SESSION})"), &[&shared.server_id]).await.map(|_| ())
}

/// Makes this server known.
pub(super) async fn register<C: GenericClient>(client: &C, shared: &Shared) -> Result<(), Error> {
    let asked = Instant::now();
    let sql = "WITH s AS (INSERT INTO server (server_id, url, broker) VALUES ($1, $2, $4) ON CONFLICT (server_id) DO NOTHING)
        INSERT INTO lease (server_id, until) VALUES ($1, clock_timestamp() + $3::bigint * interval '1 millisecond')
        ON CONFLICT (server_id) DO UPDATE SET until = excluded.until";
    client.execute(sql, &[&shared.server_id, &shared.config.server_url, &millis(shared.config.lease), &shared.config.broker]).await?;
    shared.set_lease(Some(asked + shared.config.lease));
    Ok(())
}

/// What an earlier start of this server left is free for the next look at the leases. Were that start alive all the same, it would find itself gone and begin
/// again, as if it had been slow.
pub(super) async fn end_earlier<C: GenericClient>(client: &C, server_name: &str) -> Result<(), Error> {
    if server_name.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE lease SET until = '-infinity' WHERE starts_with(server_id, $1 || '.')";
    client.execute(sql, &[&server_name]).await.map(|_| ())
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Renews the lease until the store is closed, on a connection of its own.
pub(super) async fn renew(shared: Arc<Shared>) {
    let pause = shared.config.lease / 4;
    let mut client = None;
    while !shared.is_closed() {
        if client.is_none() {
            client = shared.connector.connect().await.ok();
        }
        if let Some(connected) = &client
            && let Err(error) = renewed(connected, &shared).await
        {
            tracing::warn!(error = described(&error), "lease not renewed");
            client = None;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.until_closed() => {}
        }
    }
}

async fn renewed(client: &tokio_postgres::Client, shared: &Shared) -> Result<(), Error> {
    let asked = Instant::now();
    let sql = "UPDATE lease SET until = clock_timestamp() + $2::bigint * interval '1 millisecond' WHERE server_id = $1";
    let lease = millis(shared.config.lease);
    // An answer that comes after the lease has ended is of no use.
    let renewed = tokio::time::timeout(shared.config.lease, client.execute(sql, &[&shared.server_id, &lease])).await;
    match renewed {
        Ok(Ok(1)) => shared.set_lease(Some(asked + shared.config.lease)),
        // The first renewal may overtake the registration.
        Ok(Ok(_none)) => shared.no_lease_at(asked),
        Ok(Err(error)) => return Err(error),
        Err(_late) => {}
    }
    Ok(())
}

/// What a look at the other servers came to.
pub(super) struct Balanced {
    /// The shards that are ours now.
    pub(super) held: Shards,
    /// Those of them that were not before.
    pub(super) gained: Shards,
}

/// Takes shards from servers that are gone, and takes or gives up as many as make a fair share. `next_id` numbers the outbox entries that come with them.
pub(super) async fn balance<C: GenericClient>(client: &C, shared: &Shared, next_id: &mut u64) -> Result<Balanced, Error> {
    let dead = client.prepare_cached("SELECT server_id FROM lease WHERE until < clock_timestamp()").await?;
    for row in client.query(&dead, &[]).await? {
        let server: String = row.get(0);
        if server != shared.server_id {
            bury(client, &server).await?;
        }
    }
    let sql = "SELECT shard, server_id = $1, (SELECT count(*) FROM lease WHERE until >= clock_timestamp()), EXISTS (SELECT FROM server WHERE server_id = $1)
        FROM shard ORDER BY shard";
    let statement = client.prepare_cached(sql).await?;
    let mut rows = client.query(&statement, &[&shared.server_id]).await?;
    if rows.first().is_some_and(|row| !row.get::<_, bool>(3)) {
        // A new server, or others believed us dead: we begin with nothing.
        shared.set_held(Shards::default());
        register(client, shared).await?;
        rows = client.query(&statement, &[&shared.server_id]).await?;
    }
    let number = |row: &tokio_postgres::Row| u8::try_from(row.get::<_, i64>(0)).unwrap_or(0);
    let ours = rows.iter().filter(|row| row.get::<_, Option<bool>>(1) == Some(true)).map(number).fold(Shards::default(), Shards::with);
    let free = rows.iter().filter(|row| row.get::<_, Option<bool>>(1).is_none()).count();
    let live = rows.first().map_or(1, |row| row.get::<_, i64>(2));
    let live = u32::try_from(live.max(1)).unwrap_or(1);
    let share = u32::from(SHARDS).div_ceil(live);
    let held = if ours.count() > share {
        give_up(client, shared, ours, ours.count() - share).await?
    } else if ours.count() < share && free > 0 {
        take(client, shared, ours, share - ours.count(), next_id).await?
    } else {
        ours
    };
    Ok(Balanced { held, gained: Shards(held.0 & !shared.held().0) })
}

/// A server whose lease is over loses everything, unless a transaction of its own is under way: then that is ended, and the next look finds the server's row free.
async fn bury<C: GenericClient>(client: &C, server: &str) -> Result<(), Error> {
    let buried = async {
        client.batch_execute("BEGIN").await?;
        let gone = client.query("DELETE FROM lease WHERE server_id = $1 AND until < clock_timestamp() RETURNING 1", &[&server]).await?;
        if !gone.is_empty() {
            client.query("SELECT 1 FROM server WHERE server_id = $1 FOR UPDATE NOWAIT", &[&server]).await?;
            client.execute("DELETE FROM server WHERE server_id = $1", &[&server]).await?;
            client.execute("UPDATE shard SET server_id = NULL, token = token + 1 WHERE server_id = $1", &[&server]).await?;
            tracing::warn!(server, "a server is gone; its branches are free");
        }
        client.batch_execute("COMMIT").await
    };
    let outcome = buried.await;
    if let Err(error) = &outcome {
        client.batch_execute("ROLLBACK").await?;
        if error.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE) {
            return end_session(client, server).await;
        }
    }
    outcome
}

/// A server renews its lease beside its transactions, so one that does not is frozen or cut off, however large its round may be. Whoever is only slow does.
async fn end_session<C: GenericClient>(client: &C, server: &str) -> Result<(), Error> {
    let sql = format!(
        "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.mode = 'ShareLock' AND a.datname = current_database() AND pg_has_role(a.usesysid, 'USAGE')
           AND (l.classid::bigint << 32) | l.objid::bigint = {SESSION}
           AND EXISTS (SELECT FROM lease WHERE server_id = $1 AND until < clock_timestamp() - $2::bigint * interval '1 millisecond')"
    );
    if !client.query(&sql, &[&server, &millis(GRACE)]).await?.is_empty() {
        tracing::warn!(server, "a server that says nothing any more was in a transaction: its session was ended");
    }
    Ok(())
}

/// Entries that come along get new numbers, above all that this server gave out, so its publisher does not pass them over.
async fn take<C: GenericClient>(client: &C, shared: &Shared, ours: Shards, wanted: u32, next_id: &mut u64) -> Result<Shards, Error> {
    client.batch_execute("BEGIN").await?;
    let taken = async {
        let sql = "UPDATE shard s SET server_id = $1, token = s.token + 1
            FROM (SELECT shard FROM shard WHERE server_id IS NULL ORDER BY shard LIMIT $2 FOR UPDATE SKIP LOCKED) f
            WHERE s.shard = f.shard AND EXISTS (SELECT FROM server WHERE server_id = $1) RETURNING s.shard";
        let rows = client.query(sql, &[&shared.server_id, &i64::from(wanted)]).await?;
        let gained: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let base = i64::try_from(*next_id).unwrap_or(i64::MAX);
        // Whoever had them may still be deleting what was acknowledged, so not every number that is worked out is used.
        let sql = "WITH moved AS (UPDATE outbox o SET id = $2 + k.i FROM (SELECT x.id, row_number() OVER (ORDER BY x.id) AS i FROM outbox x
            JOIN head h ON h.n = x.head WHERE h.shard = ANY($1)) k WHERE o.id = k.id RETURNING o.id) SELECT coalesce(max(id), $2) FROM moved";
        let last: i64 = client.query_one(sql, &[&gained, &base]).await?.get(0);
        // If the answer to this is lost, the numbers may be used all the same, and have to be looked up.
        shared.set_committing(true);
        client.batch_execute("COMMIT").await?;
        shared.set_committing(false);
        Ok((gained, last))
    }
    .await;
    match taken {
        Ok((gained, last)) => {
            *next_id = u64::try_from(last).unwrap_or(0).max(*next_id);
            Ok(gained.into_iter().filter_map(|shard| u8::try_from(shard).ok()).fold(ours, Shards::with))
        }
        Err(error) => {
            client.batch_execute("ROLLBACK").await?;
            Err(error)
        }
    }
}

async fn give_up<C: GenericClient>(client: &C, shared: &Shared, ours: Shards, count: u32) -> Result<Shards, Error> {
    let mut shards: Vec<u8> = (0..SHARDS).filter(|shard| ours.contains(*shard)).collect();
    let extra = shards.split_off(shards.len() - usize::try_from(count).unwrap_or(0));
    let kept = shards.into_iter().fold(Shards::default(), Shards::with);
    // Whoever publishes stops before somebody else may begin.
    shared.set_held(kept);
    let extra: Vec<i64> = extra.into_iter().map(i64::from).collect();
    client
        .execute(
            "UPDATE shard SET server_id = NULL, token = token + 1 WHERE shard = ANY($1) AND server_id = $2",
            &[&extra, &shared.server_id],
        )
        .await?;
    Ok(kept)
}

/// Gives everything back: this server ends.
pub(super) async fn hand_over<C: GenericClient>(client: &C, shared: &Shared) -> Result<(), Error> {
    shared.set_held(Shards::default());
    shared.set_lease(None);
    let sql = "WITH l AS (DELETE FROM lease WHERE server_id = $1), s AS (DELETE FROM server WHERE server_id = $1)
        UPDATE shard SET server_id = NULL, token = token + 1 WHERE server_id = $1";
    client.execute(sql, &[&shared.server_id]).await.map(|_| ())
}
