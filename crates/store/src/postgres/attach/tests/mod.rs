//! Databases that nobody made for us: proposed, attached, written to, and read as whoever sequences would.
#![allow(clippy::unwrap_used)]

mod ddl;
mod hostile;
mod nasty;
mod northwind;
mod plans;
mod shop;

use std::collections::{BTreeMap, BTreeSet};

use mstore_protocol::{BranchKey, PersonalData};
use mstore_rig::{Database, Postgres, Program, have};
use serde_json::Value;
use tokio_postgres::Client;

use super::{
    Attacher, Given, Progress, Proposal,
    mapping::{Mapping, MerchantMapping},
    propose,
    registry::Attached,
    resolve, rows,
};
use crate::source_row::SourceRow;

/// What `branch`, collection and id of a row came to.
type Rows = BTreeMap<(String, String, String), SourceRow>;

/// A database of somebody else with our schema beside it.
struct Foreign {
    database: Database<'static>,
    attacher: Attacher,
}

/// `None`, and a word about it, when PostgreSQL is not installed.
async fn foreign(name: &str, schema: &str) -> Option<Foreign> {
    if !have(&[Program::Postgres]) {
        return None;
    }
    let database = Postgres::shared().database(name);
    database.psql(schema);
    let attacher = Attacher::connect(&database.url()).await.unwrap();
    attacher.prepare().await.unwrap();
    Some(Foreign { database, attacher })
}

fn given() -> Given {
    let merchant = MerchantMapping { id: "m1".into(), name: "Toko Satu".into(), currency: "USD".into() };
    Given { merchant, branch: "main".into() }
}

impl Foreign {
    fn client(&self) -> &Client {
        &self.attacher.client
    }

    async fn propose(&self) -> Proposal {
        propose(&self.attacher.look().await.unwrap(), &given())
    }

    async fn install(&mut self, mapping: Mapping) {
        let plan = self.attacher.plan(mapping).await.unwrap();
        self.attacher.install(&plan, None, &mut |_: Progress| {}).await.unwrap();
    }

    /// Proposes and installs what is proposed.
    async fn attach(&mut self) {
        let proposal = self.propose().await;
        self.install(proposal.mapping).await;
    }

    /// Writes as some other program would.
    fn write(&self, sql: &str) {
        self.database.psql(sql);
    }

    /// Takes all marks as the sequencer does: what every marked row is now, for every branch that it was marked for.
    async fn take(&self) -> Rows {
        let client = self.client();
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        let attached = Attached::load(client).await.unwrap();
        resolve::resolve(client, &attached, None).await.unwrap();
        let sql = "SELECT DISTINCT m.collection, b.merchant_id, b.branch_id, m.id FROM mstore.mark m
            JOIN mstore.branch b ON b.merchant_id = m.merchant_id AND m.branch_id IN ('*', b.branch_id) WHERE m.collection <> 'branch'";
        let marks = client.query(sql, &[]).await.unwrap();
        client.execute("DELETE FROM mstore.mark", &[]).await.unwrap();
        let mut by_collection: BTreeMap<String, Vec<(BranchKey, String)>> = BTreeMap::new();
        for mark in &marks {
            let key = BranchKey::parse(mark.get(1), mark.get(2)).unwrap();
            by_collection.entry(mark.get(0)).or_default().push((key, mark.get(3)));
        }
        let mut taken = Rows::new();
        for (collection, wants) in by_collection {
            let Some(registered) = attached.collection(&collection) else { continue };
            let asked: Vec<(&BranchKey, &str)> = wants.iter().map(|(key, id)| (key, id.as_str())).collect();
            let found = rows::read(client, &registered.source, &asked, &PersonalData::default()).await.unwrap();
            for ((key, id), found) in wants.into_iter().zip(found) {
                taken.insert((key.branch.as_str().to_owned(), collection.clone(), id), found);
            }
        }
        client.batch_execute("COMMIT").await.unwrap();
        taken
    }

    /// As `take`, and devices have it afterwards.
    async fn sequence(&self) -> Rows {
        let taken = self.take().await;
        for ((branch, collection, id), found) in &taken {
            let sql = "INSERT INTO mstore.head (merchant_id, branch_id, epoch, seq, tag, at)
                SELECT 'm1', $1, 'e', 1, 't', 'now' WHERE NOT EXISTS (SELECT 1 FROM mstore.head WHERE branch_id = $1)";
            self.client().execute(sql, &[branch]).await.unwrap();
            let text = match found {
                SourceRow::Is(text) => Some(&**text),
                SourceRow::Gone | SourceRow::Expired => None,
                SourceRow::Bad(_) | SourceRow::Kept => continue,
            };
            let sql = "INSERT INTO mstore.mirror (head, collection, id, seq, bucket, row) SELECT n, $2, $3, 1, 0, $4 FROM mstore.head WHERE branch_id = $1
                ON CONFLICT (head, collection, id) DO UPDATE SET row = excluded.row";
            self.client().execute(sql, &[branch, collection, id, &text]).await.unwrap();
        }
        taken
    }

    async fn count(&self, sql: &str) -> i64 {
        self.client().query_one(sql, &[]).await.unwrap().get(0)
    }
}

/// How many rows of a collection are as they should be, and the reasons of those that are not.
fn tally(rows: &Rows, of: &str) -> (usize, Vec<String>) {
    let mine = || rows.iter().filter(|((_, collection, _), _)| collection == of);
    let bad = mine().filter_map(|(_, found)| if let SourceRow::Bad(why) = found { Some(why.clone()) } else { None });
    (mine().filter(|(_, found)| matches!(found, SourceRow::Is(_))).count(), bad.collect())
}

/// One row as JSON.
#[track_caller]
fn row(rows: &Rows, branch: &str, collection: &str, id: &str) -> Value {
    match rows.get(&(branch.into(), collection.into(), id.into())) {
        Some(SourceRow::Is(text)) => serde_json::from_str(text).unwrap(),
        other => panic!("{branch} {collection} {id}: {other:?}; there are {:?}", rows.keys().collect::<BTreeSet<_>>()),
    }
}

/// What was marked, as `branch collection id` with `+` for there and `-` for gone.
fn marked(rows: &Rows) -> Vec<String> {
    let sign = |found: &SourceRow| match found {
        SourceRow::Is(_) => '+',
        SourceRow::Gone => '-',
        SourceRow::Expired => '<',
        SourceRow::Bad(_) => '!',
        SourceRow::Kept => '?',
    };
    rows.iter().map(|((branch, collection, id), found)| format!("{}{branch} {collection} {id}", sign(found))).collect()
}
