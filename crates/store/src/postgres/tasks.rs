//! What goes on beside sequencing and must not wait for it: the lease, notifications of other servers, and writes of ours that others sequence.
//! It has a thread of its own, so that neither a busy server nor a long round lets the lease end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use mstore_protocol::{BranchKey, DeviceId};
use tokio_postgres::{AsyncMessage, Client};

use super::{
    attach::{self, AttachError},
    error::described,
    horizon, lease,
    life::{self, Life, Xid},
    mirror::{columns, count},
    seen::{DEVICE_CHANGED, WAKE},
    shared::Shared,
    waiters::Visits,
};

/// How often the heads of other servers' branches are looked at while somebody waits for them.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// How often the catalogue is asked whether attached tables are what they were.
const TEND_EVERY: Duration = Duration::from_secs(3);
/// After a lost connection.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Runs all of them until the store is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    tokio::join!(
        lease::renew(Arc::clone(&shared)),
        listen(Arc::clone(&shared)),
        tend(Arc::clone(&shared)),
        horizon::watch(Arc::clone(&shared)),
        watch(shared)
    );
}

/// Hears other servers.
async fn listen(shared: Arc<Shared>) {
    while !shared.is_closed() {
        let heard = async {
            let (client, mut connection) = shared.connector.connection().await?;
            let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
            let listening = async {
                client.batch_execute(&format!("LISTEN {WAKE}; LISTEN {DEVICE_CHANGED}")).await?;
                // Notifications may have been missed until now.
                shared.wake.notify_one();
                std::future::pending::<Result<(), tokio_postgres::Error>>().await
            };
            let hearing = async {
                while let Some(message) = messages.next().await {
                    if let AsyncMessage::Notification(said) = message? {
                        hear(&shared, said.channel(), said.payload());
                    }
                }
                Ok(())
            };
            tokio::select! {
                ended = listening => ended,
                ended = hearing => ended,
                () = shared.until_closed() => Ok(()),
            }
        };
        if let Err(error) = heard.await {
            tracing::warn!(error = described(&error), "notifications of other servers are not heard");
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN_AFTER) => {}
            () = shared.until_closed() => {}
        }
    }
}

fn hear(shared: &Shared, channel: &str, said: &str) {
    if channel == DEVICE_CHANGED {
        if let Ok(device) = DeviceId::parse(said) {
            // Nobody may be listening yet.
            let _nobody = shared.devices.send(device);
        }
    } else if said.parse().is_ok_and(|shard: u8| shared.held().contains(shard)) {
        shared.wake.notify_one();
    }
}

/// Looks after attached tables, one server for all.
async fn tend(shared: Arc<Shared>) {
    let mut client: Option<Client> = None;
    while !shared.is_closed() {
        if let Err(error) = tend_once(&shared, &mut client).await {
            tracing::warn!(error = described(&error), "attached tables cannot be looked after");
            client = None;
        }
        tokio::select! {
            () = tokio::time::sleep(TEND_EVERY) => {}
            () = shared.until_closed() => {}
        }
    }
}

async fn tend_once(shared: &Shared, client: &mut Option<Client>) -> Result<(), AttachError> {
    if client.is_none() && attach::is_any(&*shared.reader().await.map_err(|error| AttachError::Unreachable(error.to_string()))?).await? {
        let connected = shared.connector.connect().await?;
        connected.batch_execute(attach::TEND_SESSION).await?;
        *client = Some(connected);
    }
    let Some(connected) = client.as_mut() else { return Ok(()) };
    let row = connected.query_one("SELECT pg_try_advisory_lock($1)", &[&attach::TEND_LOCK]).await?;
    if row.get(0) && shared.attached.tend(connected).await? {
        shared.wake.notify_one();
    }
    Ok(())
}

/// Looks for writes of ours that other servers have sequenced.
async fn watch(shared: Arc<Shared>) {
    let mut client: Option<(Client, Life)> = None;
    while !shared.is_closed() {
        let held = shared.held();
        let open: Vec<(Xid, BranchKey)> = shared.waiters.open().into_iter().filter(|(_, key)| !held.have(key)).collect();
        if open.is_empty() {
            tokio::select! {
                () = shared.waiting.notified() => {}
                () = tokio::time::sleep(AGAIN_AFTER) => {}
            }
            continue;
        }
        let looked = match &client {
            Some((connected, life)) => look(connected, *life, &shared, open).await,
            None => met(&shared).await.map(|met| client = Some(met)),
        };
        let pause = if looked.is_ok() { LOOK_EVERY } else { AGAIN_AFTER };
        if let Err(error) = looked {
            tracing::warn!(error = described(&error), "cannot see what other servers sequence");
            client = None;
        }
        tokio::time::sleep(pause).await;
    }
}

/// A connection, and what it leads to: writes that another database server kept are not looked for there.
async fn met(shared: &Shared) -> Result<(Client, Life), tokio_postgres::Error> {
    let client = shared.connector.connect().await?;
    let life = life::of(&client).await?;
    shared.waiters.lose_all_but(life);
    Ok((client, life))
}

async fn look(client: &Client, life: Life, shared: &Shared, mut open: Vec<(Xid, BranchKey)>) -> Result<(), tokio_postgres::Error> {
    open.retain(|(xid, _)| xid.life == life);
    let (merchants, branches) = columns(open.iter().map(|(_, key)| key));
    let xids: Vec<String> = open.iter().map(|(xid, _)| xid.number.to_string()).collect();
    let sql = "SELECT k.i, h.seq, h.held_since IS NOT NULL FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, xid, i)
        JOIN head h ON h.merchant_id = k.merchant_id AND h.branch_id = k.branch_id
        WHERE h.held_since IS NOT NULL OR pg_visible_in_snapshot(k.xid::xid8, h.snapshot)";
    let mut seen: BTreeMap<(Xid, BranchKey), Option<u64>> = BTreeMap::new();
    for row in client.query(sql, &[&merchants, &branches, &xids]).await? {
        let place = super::source::place(&row);
        seen.insert(open[place].clone(), (!row.get::<_, bool>(2)).then(|| count(&row, 1)));
    }
    let heads: BTreeMap<BranchKey, Option<u64>> = seen.iter().map(|((_, key), seq)| (key.clone(), *seq)).collect();
    let commits = heads.iter().filter_map(|(key, seq)| Some((key.clone(), (*seq)?))).collect();
    let visits = Visits { commits, heads, durable_at_us: super::sequencer::now_us() };
    shared.waiters.tell_those(&visits, |xid, key| seen.contains_key(&(xid, key.clone())));
    Ok(())
}
