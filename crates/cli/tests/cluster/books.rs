//! What must be as it was, whatever happened to the servers: the numbering, the frames, the receipts.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use mstore_client::Client;
use mstore_rig::Mosquitto;
use serde_json::{Value, json};

use super::{Node, Sql, live, until};

/// Every commit of every branch, and every row as devices have it with the commit that made it so.
#[derive(Debug, PartialEq)]
pub(crate) struct Numbering {
    commits: BTreeMap<(String, u64), String>,
    heads: BTreeMap<String, (String, u64)>,
    rows: BTreeMap<(String, String, String), (u64, String)>,
}

impl Numbering {
    pub(crate) async fn read(sql: &Sql) -> Self {
        let commits = sql.rows("SELECT h.branch_id, c.seq, c.tag FROM mstore.commit_log c JOIN mstore.head h ON h.n = c.head").await;
        let heads = sql.rows("SELECT branch_id, epoch, seq FROM mstore.head").await;
        let rows =
            sql.rows("SELECT h.branch_id, m.collection, m.id, m.seq, m.row FROM mstore.mirror m JOIN mstore.head h ON h.n = m.head").await;
        let number = |text: &str| text.parse::<u64>().unwrap();
        Self {
            commits: commits.into_iter().map(|row| ((row[0].clone(), number(&row[1])), row[2].clone())).collect(),
            heads: heads.into_iter().map(|row| (row[0].clone(), (row[1].clone(), number(&row[2])))).collect(),
            rows: rows
                .into_iter()
                .map(|row| ((row[0].clone(), row[1].clone(), row[2].clone()), (number(&row[3]), row[4].clone())))
                .collect(),
        }
    }

    /// What was there is there still: the same epochs, the same commits, and every row that no later commit changed. No number is left out.
    pub(crate) fn goes_on_as(&self, later: &Self) {
        for (branch, (epoch, seq)) in &self.heads {
            let (epoch_later, seq_later) = &later.heads[branch];
            assert_eq!(epoch, epoch_later, "{branch}");
            let missing = (1..=*seq_later).find(|n| !later.commits.contains_key(&(branch.clone(), *n)));
            assert_eq!(missing, None, "{branch}: no commit of that number below {seq_later}");
            assert!(seq <= seq_later, "{branch}");
        }
        for (commit, tag) in &self.commits {
            assert_eq!(later.commits.get(commit), Some(tag), "commit {commit:?}");
        }
        for (id, (seq, row)) in &later.rows {
            if *seq <= self.heads.get(&id.0).map_or(0, |head| head.1) {
                assert_eq!(self.rows.get(id), Some(&(*seq, row.clone())), "{id:?}");
            }
        }
    }

    pub(crate) fn epoch(&self, branch: &str) -> &str {
        &self.heads[branch].0
    }
}

/// Everything that was published.
pub(crate) struct Frames {
    child: Child,
    path: PathBuf,
}

impl Frames {
    /// Returns when the broker has granted the subscription.
    pub(crate) async fn listen(mosquitto: &Mosquitto, path: &Path) -> Self {
        let mut command = Command::new("stdbuf");
        command.args([
            "-oL",
            "mosquitto_sub",
            "-d",
            "-v",
            "-q",
            "1",
            "-i",
            "frames",
            "-h",
            "127.0.0.1",
            "-p",
            &mosquitto.port().to_string(),
            "-t",
            "dev/+/+/+/updates",
        ]);
        let child = command.stdout(File::create(path).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        let frames = Self { child, path: path.to_owned() };
        until("the frames are heard", async || frames.text().contains("Subscribed")).await;
        frames
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap()
    }

    /// Each commit of a collection was published as one and the same frame, however often, and for the first time after all commits before it. How many there
    /// were, and how many more than once.
    pub(crate) fn are_in_order_and_the_same_each_time(&self) -> (usize, usize) {
        let mut known: BTreeMap<(String, u64, u64), Value> = BTreeMap::new();
        let mut newest: BTreeMap<String, u64> = BTreeMap::new();
        let mut doubled = 0;
        for line in self.text().lines().filter(|line| line.starts_with("dev/")) {
            let Some((topic, payload)) = line.split_once(' ') else { continue };
            let Ok(frame) = serde_json::from_str::<Value>(payload) else { continue };
            let place = (topic.to_owned(), frame["seq"].as_u64().unwrap(), frame["part"].as_u64().unwrap_or(0));
            if let Some(before) = known.get(&place) {
                doubled += 1;
                assert_eq!(before, &frame, "{place:?} was published twice, and not alike");
                continue;
            }
            let newest = newest.entry(place.0.clone()).or_default();
            assert!(*newest <= place.1, "{place:?} was published for the first time after {newest}");
            *newest = place.1;
            known.insert(place, frame);
        }
        (known.len(), doubled)
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A till has what the server says, by cursor, digest and row; nothing was numbered anew for it.
pub(crate) async fn same(till: &Client, node: &Node, sql: &Sql, branch: &str) {
    live(till).await;
    until(&format!("the till of {branch} has what {} says", node.http()), async || {
        let Ok(head) = node.head(branch).await else { return false };
        let (cursor, digests) = till.digests();
        let alike = digests.iter().all(|(name, digest)| head["digests"][name.as_str()] == json!(digest));
        alike && cursor.is_some_and(|cursor| head["seq"] == cursor.seq && head["epoch"] == json!(cursor.epoch))
    })
    .await;
    for collection in till.digests().1.keys() {
        let rows = sql
            .rows(&format!(
                "SELECT m.row FROM mstore.mirror m JOIN mstore.head h ON h.n = m.head
                 WHERE h.branch_id = '{branch}' AND m.collection = '{collection}' AND m.row IS NOT NULL"
            ))
            .await;
        let server: BTreeSet<String> = rows.into_iter().map(|mut row| row.remove(0)).collect();
        let own: BTreeSet<String> = till.rows(collection).unwrap().into_iter().collect();
        assert_eq!(own, server, "{branch} {collection}");
    }
}

/// Every receipt is there, and once.
pub(crate) async fn receipts(sql: &Sql, branch: &str, sold: &BTreeSet<String>) {
    let rows = sql.rows(&format!("SELECT id FROM mstore.transactions WHERE branch_id = '{branch}' ORDER BY id")).await;
    let ids: Vec<String> = rows.into_iter().map(|mut row| row.remove(0)).collect();
    let wanted: Vec<String> = sold.iter().cloned().collect();
    assert_eq!(ids, wanted, "{branch}");
}
