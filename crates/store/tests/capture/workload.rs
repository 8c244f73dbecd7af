//! What sixteen writers do to one table, in every way that SQL has: transactions that each keep a group's rows equal.
//!
//! Every transaction also leaves a group of its own that nobody touches again: one of those that is lost stays lost, and shows at the end.

use std::{collections::BTreeMap, fmt::Write as _};

use futures_util::SinkExt as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio_postgres::Client;

use crate::{
    observer::{BULK, GROUP_ROWS, Key},
    session::Session,
};

pub(crate) const BRANCHES: [&str; 3] = ["a", "b", "c"];
/// Few enough that writers meet.
const GROUPS: usize = 4;
pub(crate) const WRITERS: usize = 16;
/// One more of what a row counts.
pub(crate) const STEP: i64 = 1_000;

/// The table under test, and who writes to it.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) url: String,
    pub(crate) schema: &'static str,
    /// PostgreSQL 15 and newer.
    pub(crate) has_merge: bool,
}

/// One transaction.
pub(crate) struct Work {
    before: String,
    /// The rows of a COPY, in its text format.
    copy: Option<String>,
    after: String,
}

const COPY: &str = "COPY inventory (merchant_id, branch_id, id, name, reorder_level_milli) FROM STDIN";

impl Work {
    /// The whole transaction as psql takes it.
    pub(crate) fn script(&self) -> String {
        let copy = self.copy.as_ref().map_or_else(String::new, |rows| format!("{COPY};\n{rows}\\.\n"));
        format!("{}{copy}{}", self.before, self.after)
    }

    async fn run(&self, client: &Client) {
        client.batch_execute(&self.before).await.unwrap();
        if let Some(rows) = &self.copy {
            let mut sink = std::pin::pin!(client.copy_in(COPY).await.unwrap());
            sink.send(bytes(rows)).await.unwrap();
            sink.close().await.unwrap();
        }
        client.batch_execute(&self.after).await.unwrap();
    }
}

fn bytes(text: &str) -> std::io::Cursor<Vec<u8>> {
    std::io::Cursor::new(text.as_bytes().to_vec())
}

impl Shop {
    /// The groups that writers meet at.
    pub(crate) async fn prepare(&self) {
        let session = self.session().await;
        for branch in BRANCHES {
            for group in 0..GROUPS {
                session.batch_execute(&insert(branch, &format!("g{group}"), 1..=GROUP_ROWS)).await.unwrap();
            }
        }
    }

    /// All writers, each so many transactions; the same seed gives the same transactions, though not the same order.
    pub(crate) async fn write(&self, transactions: usize) {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let shop = self.clone();
            writers.spawn(async move {
                let session = shop.session().await;
                for work in shop.works(&format!("t{writer}"), writer as u64, transactions) {
                    work.run(&session).await;
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
    }

    /// The transactions of one writer.
    pub(crate) fn works(&self, writer: &str, seed: u64, count: usize) -> Vec<Work> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..count).map(|n| self.work(&mut random, &format!("{writer}.{n}"))).collect()
    }

    pub(crate) async fn session(&self) -> Session {
        Session::open(&self.url, self.schema).await
    }

    /// All rows as they are.
    pub(crate) async fn source(&self) -> BTreeMap<Key, i64> {
        let session = self.session().await;
        let rows = session.query("SELECT branch_id, id, reorder_level_milli FROM inventory", &[]).await.unwrap();
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
    }

    fn work(&self, random: &mut StdRng, own: &str) -> Work {
        let branch = BRANCHES[random.random_range(0..BRANCHES.len())];
        let group = format!("g{}", random.random_range(0..GROUPS));
        let pause = pause(random.random_range(0..2_000));
        let lock = format!("SELECT pg_advisory_xact_lock(hashtext('{branch}/{group}'));\n");
        // The transaction has its number before it waits for its turn: numbers and commits are in different orders then, as everywhere.
        let mut before = format!("BEGIN;\n{}{pause}{lock}", insert(branch, own, 1..=2));
        let mut copy = None;
        let mut end = "COMMIT;\n";
        match random.random_range(0..20) {
            0..=1 => {
                let _ok = write!(before, "{}{pause}", update(branch, &group, 1..=GROUP_ROWS, 500 * STEP));
                end = "ROLLBACK;\n";
            }
            2..=3 => before += &savepoint(branch, &group),
            4 => {
                let rest = update(branch, &group, 2..=GROUP_ROWS, STEP);
                let _ok = write!(before, "{}{}{rest}", update(branch, &group, 1..=1, STEP), self::pause(300_000));
            }
            5..=6 => copy = Some((1..=GROUP_ROWS).map(|n| format!("m\t{branch}\tcopy{own}-{n}\tx\t{STEP}\n")).collect()),
            7..=9 => before += &upsert(branch, &group),
            10..=11 => before += &replace(branch, &group),
            12..=13 if self.has_merge => before += &merge(branch, &group),
            _plain => {
                for n in 1..=GROUP_ROWS {
                    let _ok = write!(before, "{}{pause}", update(branch, &group, n..=n, STEP));
                }
            }
        }
        Work { before, copy, after: format!("{}{end}", insert(branch, own, 3..=3)) }
    }
}

type Members = std::ops::RangeInclusive<usize>;

fn pause(us: u32) -> String {
    format!("SELECT pg_sleep({us} / 1000000.0);\n")
}

fn insert(branch: &str, group: &str, members: Members) -> String {
    let rows: Vec<String> = members.map(|n| format!("('m', '{branch}', '{group}-{n}', 'x', {STEP})")).collect();
    format!("INSERT INTO inventory (merchant_id, branch_id, id, name, reorder_level_milli) VALUES {};\n", rows.join(", "))
}

/// A statement for each row.
fn update(branch: &str, group: &str, members: Members, by: i64) -> String {
    let one = |n| {
        format!("UPDATE inventory SET reorder_level_milli = reorder_level_milli + {by} WHERE {};\n", is(branch, &format!("{group}-{n}")))
    };
    members.map(one).collect()
}

fn is(branch: &str, id: &str) -> String {
    format!("merchant_id = 'm' AND branch_id = '{branch}' AND id = '{id}'")
}

fn savepoint(branch: &str, group: &str) -> String {
    let (first, rest) = (update(branch, group, 1..=1, STEP), update(branch, group, 2..=GROUP_ROWS, STEP));
    let wrong = update(branch, group, 1..=GROUP_ROWS, 70 * STEP);
    format!(
        "{first}SAVEPOINT s;\n{wrong}DELETE FROM inventory WHERE {};\nROLLBACK TO s;\n{rest}RELEASE s;\n",
        is(branch, &format!("{group}-2"))
    )
}

fn upsert(branch: &str, group: &str) -> String {
    let insert = insert(branch, group, 1..=GROUP_ROWS);
    let conflict = "ON CONFLICT (merchant_id, branch_id, id) DO UPDATE SET reorder_level_milli = inventory.reorder_level_milli";
    format!("{} {conflict} + {STEP};\n", insert.trim_end().trim_end_matches(';'))
}

/// As programs do that know no upsert.
fn replace(branch: &str, group: &str) -> String {
    let ids: Vec<String> = (1..=GROUP_ROWS).map(|n| format!("'{group}-{n}'")).collect();
    format!(
        "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM inventory WHERE merchant_id = 'm' AND branch_id = '{branch}' AND id IN ({ids});
DELETE FROM inventory WHERE merchant_id = 'm' AND branch_id = '{branch}' AND id IN ({ids});
INSERT INTO inventory (merchant_id, branch_id, id, name, reorder_level_milli)
SELECT merchant_id, branch_id, id, name, reorder_level_milli + {STEP} FROM kept;\n",
        ids = ids.join(", ")
    )
}

fn merge(branch: &str, group: &str) -> String {
    let rows: Vec<String> = (1..=GROUP_ROWS).map(|n| format!("('{group}-{n}')")).collect();
    format!(
        "MERGE INTO inventory t USING (VALUES {}) s (id) ON t.merchant_id = 'm' AND t.branch_id = '{branch}' AND t.id = s.id
WHEN MATCHED THEN UPDATE SET reorder_level_milli = t.reorder_level_milli + {STEP}
WHEN NOT MATCHED THEN INSERT (merchant_id, branch_id, id, name) VALUES ('m', '{branch}', s.id, 'never');\n",
        rows.join(", ")
    )
}

/// So many rows of one group, and one statement that changes all of them.
pub(crate) fn bulk_insert(branch: &str, rows: usize) -> String {
    format!(
        "INSERT INTO inventory (merchant_id, branch_id, id, name, reorder_level_milli)
SELECT 'm', '{branch}', '{BULK}-' || n, 'x', {STEP} FROM generate_series(1, {rows}) n"
    )
}

pub(crate) fn bulk_update(branch: &str) -> String {
    format!(
        "UPDATE inventory SET reorder_level_milli = reorder_level_milli + {STEP} WHERE merchant_id = 'm' AND branch_id = '{branch}' AND id LIKE '{BULK}-%'"
    )
}
