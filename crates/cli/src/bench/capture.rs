//! What capture costs whoever writes: transactions per second on a table with its triggers and on the same table without them, by turns.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use mstore_store::postgres::attach::{Attacher, mapping::Mapping};
use serde_json::json;
use tokio_postgres::{Client, Statement};

use super::{
    Outcome,
    rig::{Rig, per_second},
    rounded,
    scratch::{self, failed},
};
use crate::{attach, failure::Failure};

const ROWS: usize = 10_000;
const BRANCHES: usize = 50;
/// The two tables take turns this often, so that whatever else the machine does hits both.
const SLICE: Duration = Duration::from_millis(500);

/// Which tables are compared.
struct Tables {
    /// Makes both, with the same columns, checks, indexes and rows; no trigger on the first.
    make: &'static str,
    /// The first, the second.
    names: [&'static str; 2],
    /// What a transaction sets; `$1` is the time, as text.
    set: &'static str,
}

const OURS: Tables = Tables {
    make: "INSERT INTO mstore.branch (merchant_id, branch_id) SELECT 'm1', 'bench-' || n FROM generate_series(0, 49) n;
INSERT INTO mstore.inventory (merchant_id, branch_id, id, name) SELECT 'm1', 'bench-' || n % 50, 'item-' || n, 'Item' FROM generate_series(0, 9999) n;
CREATE TABLE mstore.bench_plain (LIKE mstore.inventory INCLUDING ALL);
ALTER TABLE mstore.bench_plain SET (fillfactor = 80);
INSERT INTO mstore.bench_plain SELECT * FROM mstore.inventory;
ANALYZE mstore.inventory; ANALYZE mstore.bench_plain",
    names: ["mstore.bench_plain", "mstore.inventory"],
    set: "reorder_level_milli = reorder_level_milli + 1000, updated_at = $1 WHERE merchant_id = 'm1' AND branch_id = $2 AND id = $3",
};

const ATTACHED: Tables = Tables {
    make: "CREATE TABLE public.bench_attached (branch_id text NOT NULL, id text NOT NULL, name text NOT NULL, stock integer NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id)) WITH (fillfactor = 80);
INSERT INTO public.bench_attached (branch_id, id, name) SELECT 'bench-' || n % 50, 'item-' || n, 'Item' FROM generate_series(0, 9999) n;
CREATE TABLE public.bench_plain (LIKE public.bench_attached INCLUDING ALL);
ALTER TABLE public.bench_plain SET (fillfactor = 80);
INSERT INTO public.bench_plain SELECT * FROM public.bench_attached;
ANALYZE public.bench_attached; ANALYZE public.bench_plain",
    names: ["public.bench_plain", "public.bench_attached"],
    set: "stock = stock + 1, updated_at = $1::text::timestamptz WHERE branch_id = $2 AND id = $3",
};

/// Each row says its branch, as in most databases.
const MAPPING: &str = r#"
merchant = { id = "bench", currency = "IDR" }
[[collection]]
name = "item"
table = "public.bench_attached"
key = ["id"]
merchant = { fixed = "bench" }
branch = { column = "branch_id" }
fields = { name = { column = "name" }, stock = { column = "stock", as = "quantity" }, updated_at = { column = "updated_at" } }
"#;

pub(super) async fn run(writers: usize, seconds: u64, is_attached: bool, database: Option<&str>) -> Result<Outcome, Failure> {
    let Some(url) = database else {
        let next = "--database postgres://USER:PASSWORD@HOST/DATABASE: any PostgreSQL will do; the benchmark makes a database of its own there and drops it";
        return Err(Failure::usage("this benchmark measures triggers in PostgreSQL and needs a database").next(next));
    };
    let admin = scratch::connect(url).await?;
    let tables = if is_attached { ATTACHED } else { OURS };
    if is_attached {
        admin.batch_execute(tables.make).await.map_err(|error| failed(&error))?;
        attach(url).await?;
    }
    // The server makes the schema, sequences what is there, and is gone while writers are measured: their cost is the triggers', not that of a busy machine.
    let rig = Rig::start(1, Some(url)).await?;
    if !is_attached {
        admin.batch_execute(tables.make).await.map_err(|error| failed(&error))?;
    }
    rig.server.kill().await?;
    let mut team = Vec::with_capacity(writers.max(1));
    for number in 0..writers.max(1) {
        team.push(Writer::open(url, number, &tables).await?);
    }
    let (plain, captured) = measure(&mut team, Duration::from_secs(seconds.max(4))).await?;
    Ok(Outcome::new(
        "capture",
        json!({
            "writers": team.len(), "rows": ROWS, "transaction": "UPDATE of one row, by turns of 500 ms", "table": tables.names[1],
            "server_version": setting(&admin, "server_version").await?,
            "synchronous_commit": setting(&admin, "synchronous_commit").await?, "fsync": setting(&admin, "fsync").await?,
        }),
        json!({
            "transactions_per_s_without": rounded(plain.per_second()),
            "transactions_per_s_with": rounded(captured.per_second()),
            "percent": rounded(100.0 * captured.per_second() / plain.per_second().max(1e-9)),
        }),
    ))
}

async fn attach(url: &str) -> Result<(), Failure> {
    let mapping: Mapping = toml::from_str(MAPPING).map_err(|error| Failure::check(format!("the benchmark's mapping: {error}")))?;
    let mut attacher = Attacher::connect(url).await.map_err(attach::failure)?;
    let plan = attacher.plan(mapping).await.map_err(attach::failure)?;
    attacher.prepare().await.map_err(attach::failure)?;
    attacher.install(&plan, None, &mut |_| {}).await.map_err(attach::failure)
}

async fn setting(client: &Client, name: &str) -> Result<String, Failure> {
    let row = client.query_one("SELECT current_setting($1)", &[&name]).await.map_err(|error| failed(&error))?;
    Ok(row.get(0))
}

/// What was done on one of the tables.
#[derive(Default)]
struct Tally {
    transactions: usize,
    took: Duration,
}

impl Tally {
    fn per_second(&self) -> f64 {
        per_second(self.transactions, self.took)
    }
}

/// Without triggers, with triggers.
async fn measure(team: &mut [Writer], time: Duration) -> Result<(Tally, Tally), Failure> {
    let mut tallies = [Tally::default(), Tally::default()];
    // The first turn of each only warms up.
    for table in [0, 1] {
        turn(team, table).await?;
    }
    let end = Instant::now() + time;
    while Instant::now() < end {
        // There and back: neither table always follows the other.
        for table in [0, 1, 1, 0] {
            let start = Instant::now();
            tallies[table].transactions += turn(team, table).await?;
            tallies[table].took += start.elapsed();
        }
    }
    Ok(tallies.into())
}

/// All writers on one table; how many transactions they committed.
async fn turn(team: &mut [Writer], table: usize) -> Result<usize, Failure> {
    let until = Instant::now() + SLICE;
    let counts = try_join_all(team.iter_mut().map(|writer| writer.write(table, until))).await;
    counts.map(|counts| counts.iter().sum()).map_err(|error| failed(&error))
}

struct Writer {
    client: Client,
    /// For the table without triggers, for the one with them.
    statements: [Statement; 2],
    next: usize,
}

impl Writer {
    async fn open(url: &str, number: usize, tables: &Tables) -> Result<Self, Failure> {
        let client = scratch::connect(url).await?;
        let update = async |table: &str| {
            let sql = format!("UPDATE {table} SET {}", tables.set);
            client.prepare(&sql).await.map_err(|error| failed(&error))
        };
        let [plain, captured] = tables.names;
        let statements = [update(plain).await?, update(captured).await?];
        Ok(Self { client, statements, next: number })
    }

    async fn write(&mut self, table: usize, until: Instant) -> Result<usize, tokio_postgres::Error> {
        let mut count = 0;
        while Instant::now() < until {
            // Steps of a prime walk over all rows, each writer from its own start.
            self.next = (self.next + 7_919) % ROWS;
            let (branch, id) = (format!("bench-{}", self.next % BRANCHES), format!("item-{}", self.next));
            let at = format!("2026-11-22T06:41:{:02}.{:03}Z", count / 1_000 % 60, count % 1_000);
            self.client.execute(&self.statements[table], &[&at, &branch, &id]).await?;
            count += 1;
        }
        Ok(count)
    }
}
