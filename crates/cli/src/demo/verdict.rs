//! The verdict: every till against the server by digest and row by row, every operation against the server's books, every stock figure against
//! what was done.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use mstore_protocol::{BranchKey, Collection, Quantity, Row};
use serde_json::Value;

use crate::{
    api::AdminApi,
    audit::{Auditor, Rows, ServerCopy, differences, digests_of},
    demo::{figures::Operations, story::Shop, till::Till},
    failure::Failure,
    shop::path,
};

/// Differences named per till.
const DIFFERENCES_SHOWN: usize = 3;
/// How often tills are looked at while they settle.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What was compared and found.
pub(crate) struct Verdict {
    pub(crate) converged: bool,
    pub(crate) operations: Operations,
    pub(crate) rows: u64,
    pub(crate) commits: u64,
    /// Compressed bytes of one full snapshot, summed over the tills.
    pub(crate) snapshot_bytes_of_all: u64,
    pub(crate) faults: Vec<String>,
}

/// Waits until every till has sent everything and is at its branch's head, then compares.
pub(crate) async fn judge(shop: &Shop, api: &AdminApi, server: &str, settle_within: Duration) -> Result<Verdict, Failure> {
    let mut faults = Vec::new();
    for till in &shop.tills {
        if let Err(failure) = till.drain(settle_within).await {
            faults.push(format!("{failure:?}"));
        }
    }
    let mut verdict = Verdict { converged: true, operations: Operations::default(), rows: 0, commits: 0, snapshot_bytes_of_all: 0, faults };
    for key in &shop.branches {
        let tills: Vec<&Till> = shop.tills.iter().filter(|till| till.key == *key).collect();
        let auditor = Auditor::enrol(api, server, key).await?;
        let copy = settle(&auditor, &tills, settle_within).await?;
        judge_branch(shop, key, &tills, &copy, &mut verdict);
        judge_operations(api, key, &shop.tills, &copy, &mut verdict).await?;
        auditor.leave(api).await?;
    }
    count_operations(shop, &mut verdict).await?;
    Ok(verdict)
}

/// Reads the branch again and again until every till has the same cursor, or the time is over.
async fn settle(auditor: &Auditor, tills: &[&Till], within: Duration) -> Result<ServerCopy, Failure> {
    let deadline = Instant::now() + within;
    loop {
        let copy = auditor.read().await?;
        let settled = tills.iter().all(|till| till.client.status().cursor == copy.cursor);
        if settled || Instant::now() > deadline {
            return Ok(copy);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn judge_branch(shop: &Shop, key: &BranchKey, tills: &[&Till], copy: &ServerCopy, verdict: &mut Verdict) {
    verdict.rows += copy.rows.len() as u64;
    verdict.commits += copy.cursor.map_or(0, |cursor| cursor.seq);
    verdict.snapshot_bytes_of_all += copy.snapshot_bytes * tills.len() as u64;
    let mut fault = |text: String| {
        verdict.converged = false;
        verdict.faults.push(text);
    };
    for (collection, digest) in digests_of(&copy.rows) {
        if copy.digests.get(&collection) != Some(&digest) {
            fault(format!("{key}: the server's own digest of {collection} does not fit its rows"));
        }
    }
    for till in tills {
        let own = match rows_of(till) {
            Ok(own) => own,
            Err(why) => {
                fault(format!("till {}: {why}", till.name));
                continue;
            }
        };
        if till.client.status().cursor != copy.cursor {
            fault(format!("till {} is at {:?}, the server at {:?}", till.name, till.client.status().cursor, copy.cursor));
        }
        if till.client.digests().1 != copy.digests {
            fault(format!("till {}: its digests differ from the server's", till.name));
        }
        for difference in differences(&copy.rows, &own, DIFFERENCES_SHOWN) {
            fault(format!("till {}: {difference}", till.name));
        }
    }
    let wrong = shop.truth.differences(key, &stock_of(copy));
    if let Some(first) = wrong.first() {
        fault(format!("{first} ({} products in all)", wrong.len()));
    }
}

/// Everything that a till shows, from its own file.
fn rows_of(till: &Till) -> Result<Rows, String> {
    let mut rows = Rows::new();
    for collection in Collection::built_in() {
        for text in till.client.rows(&collection).map_err(|error| error.to_string())? {
            let row = Row::parse(&text).map_err(|error| format!("{collection}: {error}"))?;
            rows.insert((collection.clone(), row.id().to_owned()), text);
        }
    }
    Ok(rows)
}

fn stock_of(copy: &ServerCopy) -> BTreeMap<String, Quantity> {
    let products = copy.rows.iter().filter(|((collection, _), _)| *collection == Collection::product());
    products
        .filter_map(|((_, id), text)| {
            let row: Value = serde_json::from_str(text).ok()?;
            Some((id.clone(), Quantity::parse(row["stock"].as_str()?).ok()?))
        })
        .collect()
}

/// The server's book of operations against the cashiers' memories: each once, each receipt with its total among the transactions.
async fn judge_operations(
    api: &AdminApi,
    key: &BranchKey,
    tills: &[Till],
    copy: &ServerCopy,
    verdict: &mut Verdict,
) -> Result<(), Failure> {
    let mut entries: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for entry in api.list_all(&path(key, "/operations")).await? {
        let id = entry["id"].as_str().unwrap_or_default().to_owned();
        let slot = entries.entry(id).or_default();
        slot.0 += 1;
        slot.1 = entry["status"].as_str().unwrap_or_default().to_owned();
    }
    let mut receipts: BTreeMap<String, u64> = BTreeMap::new();
    let mut totals: BTreeMap<String, i64> = BTreeMap::new();
    for (_, text) in copy.rows.iter().filter(|((collection, _), _)| *collection == Collection::transaction()) {
        let row: Value = serde_json::from_str(text).unwrap_or_default();
        *receipts.entry(format!("{}/{}", row["device_id"], row["receipt_no"])).or_default() += 1;
        totals.insert(row["id"].as_str().unwrap_or_default().to_owned(), row["total"]["amount"].as_i64().unwrap_or(0));
    }
    for till in tills.iter().filter(|till| till.key == *key) {
        for sent in &till.sent {
            let id = sent.id.to_string();
            match entries.get(&id).map(|(count, status)| (*count, status.as_str())) {
                None => verdict.operations.lost += 1,
                Some((1, "accepted")) => {
                    verdict.operations.accepted += 1;
                    if sent.total.is_some_and(|total| totals.get(&id) != Some(&total)) {
                        verdict.operations.lost += 1;
                        verdict
                            .faults
                            .push(format!("till {}: receipt {id} is accepted but not among the transactions with its total", till.name));
                    }
                }
                Some((1, _)) => verdict.operations.rejected += 1,
                Some(_) => verdict.operations.doubled += 1,
            }
        }
    }
    verdict.operations.doubled += receipts.values().filter(|count| **count > 1).count() as u64;
    Ok(())
}

/// What the tills say themselves: how much was sent, how much of it twice; what was rejected must stand in a dead-letter list.
async fn count_operations(shop: &Shop, verdict: &mut Verdict) -> Result<(), Failure> {
    let mut listed = 0;
    for till in &shop.tills {
        verdict.operations.sent += till.sent.len() as u64;
        verdict.operations.duplicates += till.client.stats().operations_duplicate;
        let letters = till.client.dead_letters().await.map_err(|error| Failure::check(format!("till {}: {error}", till.name)))?;
        listed += letters.len() as u64;
    }
    if listed != verdict.operations.rejected {
        verdict.faults.push(format!("{} operations were rejected, {listed} are in dead-letter lists", verdict.operations.rejected));
    }
    Ok(())
}
