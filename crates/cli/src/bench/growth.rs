//! What grows with the number of branches and of rows: the import of a catalogue, a commit, a price that changes everywhere, an idle second, bytes, memory.
//! One till asks for everything once; what connected tills cost is measured by `idle`, `fanout` and `storm`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use mstore_client::{Client, Options};
use mstore_protocol::{BranchKey, Head, Quantity};
use mstore_store::MoveKind;
use serde_json::{Value, json};

use super::{
    Outcome,
    foreign::Foreign,
    ms,
    rig::{timed, until_at_within},
    rounded,
};
use crate::{
    api::AdminApi,
    failure::Failure,
    server_process::{ServerProcess, Usage},
    shop::{path, stock_move},
};

/// 200 million rows would take longer than this; so many are not worth waiting for.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3_600);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const IDLE: Duration = Duration::from_secs(10);

/// Rows that tills would have.
const MIRRORED: &str = "SELECT CAST(coalesce(sum(rows), 0) AS BIGINT) FROM head_collection";
/// Commits of all branches.
const COMMITS: &str = "SELECT CAST(coalesce(sum(seq), 0) AS BIGINT) FROM head";
const BODY_BYTES: &str = "SELECT CAST(sum(octet_length(row)) AS BIGINT) FROM mirror";
const BODIES: &str = "SELECT count(DISTINCT hash) FROM mirror";

pub(super) async fn run(branches: usize, rows: usize, commits: usize, database: Option<&str>) -> Result<Outcome, Failure> {
    let (branches, rows, commits) = (branches.max(1), rows.max(1), commits.max(1));
    let dir = tempfile::tempdir().map_err(|error| Failure::unavailable(format!("no temporary directory: {error}")))?;
    let server = ServerProcess::start_on(&dir.path().join("server"), None, database).await?;
    let api = server.admin()?;
    let sql = Foreign::open(Path::new(&server.ready.database), database).await?;
    let mut chain = Chain { server, api, sql, branches, rows };
    let empty = chain.sql.bytes().await?;
    let import = chain.import().await?;
    let disk = Disk {
        bytes: chain.sql.bytes().await? - empty,
        bodies: chain.sql.number(BODY_BYTES).await?,
        different: chain.sql.number(BODIES).await?,
    };
    let (latencies, commit) = chain.commits(commits).await?;
    let price = chain.price(rows / 2).await?;
    let till = chain.first_sync(&dir.path().join("till.db")).await?;
    let repair = chain.repair().await?;
    let idle = chain
        .measured(async |_| {
            tokio::time::sleep(IDLE).await;
            Ok(())
        })
        .await?;
    let all = branches * rows;
    let mut figures = import.figures("import", "us_per_row", 1000.0 / all as f64);
    figures.extend(disk.figures(all));
    figures.extend(commit.figures("commit", "ms", 1.0 / commits as f64));
    let at = |percent: usize| ms(latencies[(latencies.len() - 1) * percent / 100]);
    figures.extend([("commit_p50_ms".into(), at(50)), ("commit_p99_ms".into(), at(99))]);
    figures.extend(price.figures("price", "ms", 1.0));
    figures.extend([("price_everywhere_ms".into(), ms(price.took))]);
    figures.extend(till.cost.figures("first_sync", "us_per_row", 1000.0 / rows as f64));
    figures.extend([
        ("first_sync_bytes_per_row".into(), rounded(till.bytes as f64 / rows as f64)),
        ("till_memory_peak_kb".into(), till.memory_peak_kb.into()),
    ]);
    figures.extend([
        ("digests_ms".into(), ms(repair.digests)),
        ("range_ms".into(), ms(repair.range)),
        ("range_rows".into(), repair.rows.into()),
    ]);
    figures.extend(idle.figures("idle", "percent", 0.1 / idle.took.as_secs_f64()));
    figures.extend([("memory_kb".into(), idle.usage.memory_kb.into()), ("memory_peak_kb".into(), idle.usage.memory_peak_kb.into())]);
    let setup = json!({
        "branches": branches, "rows": rows, "commits": commits, "database": if database.is_some() { "PostgreSQL" } else { "SQLite" },
        "import": "all products by one foreign transaction", "commit": "one stock movement by the API, one after the other, each at another branch",
        "price": "one product of the catalogue by foreign SQL, until every branch has its commit",
        "first_sync": "one till of one branch, from opening its empty file to everything shown",
        "digests, range": "what a till asks for that finds a difference: the 256 sub-digests of the products, the rows of one range",
        "database_cpu": "of the database's connections to the server, if it is on this machine",
    });
    Ok(Outcome::new("growth", setup, Value::Object(figures.into_iter().collect())))
}

type Figures = Vec<(String, Value)>;

/// What is on disk.
struct Disk {
    bytes: i64,
    bodies: i64,
    different: i64,
}

impl Disk {
    fn figures(&self, rows: usize) -> Figures {
        let per_row = |count: i64| rounded(count as f64 / rows as f64);
        vec![
            ("bytes_per_row".into(), per_row(self.bytes)),
            ("body_bytes_per_row".into(), per_row(self.bodies)),
            ("rows_per_body".into(), rounded(rows as f64 / self.different.max(1) as f64)),
        ]
    }
}

/// What a till took.
struct FirstSync {
    cost: Cost,
    bytes: u64,
    /// Of this process, which does little else.
    memory_peak_kb: u64,
}

/// What finding and mending a difference asks of the server.
struct Repair {
    digests: Duration,
    range: Duration,
    rows: usize,
}

/// A merchant with many branches, and the server that keeps them.
struct Chain {
    server: ServerProcess,
    api: AdminApi,
    sql: Foreign,
    branches: usize,
    rows: usize,
}

/// What a piece of work took.
struct Cost {
    took: Duration,
    cpu_ms: u64,
    database_cpu_ms: u64,
    /// Of the server, afterwards.
    usage: Usage,
}

impl Cost {
    /// How long it took, and CPU time in some unit, of which a millisecond is so many.
    fn figures(&self, name: &str, unit: &str, per_ms: f64) -> Figures {
        vec![
            (format!("{name}_s"), rounded(self.took.as_secs_f64())),
            (format!("{name}_server_cpu_{unit}"), rounded(self.cpu_ms as f64 * per_ms)),
            (format!("{name}_database_cpu_{unit}"), rounded(self.database_cpu_ms as f64 * per_ms)),
        ]
    }
}

impl Chain {
    async fn measured(&mut self, work: impl AsyncFnOnce(&mut Self) -> Result<(), Failure>) -> Result<Cost, Failure> {
        let (start, before, database) = (Instant::now(), self.server.usage(), self.sql.server_cpu_ms().await?);
        work(self).await?;
        let took = start.elapsed();
        let usage = self.server.usage();
        // Connections that were closed meanwhile took their account with them.
        let database_cpu_ms = self.sql.server_cpu_ms().await?.saturating_sub(database);
        Ok(Cost { took, cpu_ms: usage.cpu_ms - before.cpu_ms, database_cpu_ms, usage })
    }

    fn branch(n: usize) -> Result<BranchKey, Failure> {
        BranchKey::parse("m1", &format!("b{n}")).map_err(|error| Failure::usage(error.to_string()))
    }

    /// A till of the first branch gets everything.
    async fn first_sync(&mut self, file: &Path) -> Result<FirstSync, Failure> {
        let key = Self::branch(0)?;
        let body = json!({ "merchant": key.merchant, "branch": key.branch, "device_id": "till-1", "name": "till" });
        let claim = self.api.post("/v1/admin/devices", &body).await?;
        let answer = self.api.post("/v1/devices/enrol", &json!({ "code": claim["code"], "nonce": "growth-till-1" })).await?;
        let enrolment = serde_json::from_value(answer).map_err(|error| Failure::unavailable(format!("enrolment: {error}")))?;
        let head: Head = self.api.get(&format!("/v1/{}/{}/head", key.merchant, key.branch)).await?;
        let mut bytes = 0;
        let cost = self
            .measured(async |chain| {
                let opened = Client::open_with(file, &chain.server.ready.http, enrolment, Options::default()).await;
                let till = opened.map_err(|error| Failure::unavailable(format!("till: {error}")))?;
                until_at_within(&till, head.seq, GIVE_UP_AFTER).await?;
                bytes = till.stats().http_bytes_in;
                till.close().await;
                Ok(())
            })
            .await?;
        Ok(FirstSync { cost, bytes, memory_peak_kb: Usage::of(std::process::id()).memory_peak_kb })
    }

    async fn repair(&self) -> Result<Repair, Failure> {
        let key = Self::branch(0)?;
        let ask = |what: &str| format!("/v1/{}/{}/{what}", key.merchant, key.branch);
        let (_, digests) = timed(self.api.get::<Value>(&ask("digests?collection=product"))).await?;
        let (rows, range) = timed(self.api.get::<Value>(&ask("rows?collection=product&range=7"))).await?;
        Ok(Repair { digests, range, rows: rows["rows"].as_array().map_or(0, Vec::len) })
    }

    /// Branches first, then the catalogue at once: every branch gets one commit of all its rows.
    async fn import(&mut self) -> Result<Cost, Failure> {
        let branches = format!(
            "INSERT INTO merchant (merchant_id, name, currency, stock_policy) VALUES ('m1', 'Chain', 'IDR', 'allow');
             WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n + 1 < {})
             INSERT INTO branch (merchant_id, branch_id, name) SELECT 'm1', 'b' || n, 'Branch' FROM s",
            self.branches
        );
        self.sql.execute(&branches).await?;
        let products = format!(
            "WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n + 1 < {})
             INSERT INTO product (merchant_id, id, sku, barcode, name, category, price_amount)
             SELECT 'm1', 'SKU-' || (1000000 + n), 'SKU-' || (1000000 + n), '' || (8990000000000 + n), 'Kopi Susu Gula Aren 250 ml ' || n, 'Minuman',
               1500000 + n % 97 * 10000 FROM s",
            self.rows
        );
        let all = i64::try_from(self.branches * self.rows).unwrap_or(i64::MAX);
        self.measured(async |chain| {
            chain.sql.execute(&products).await?;
            chain.until(MIRRORED, all).await
        })
        .await
    }

    /// How long each took, shortest first.
    async fn commits(&mut self, count: usize) -> Result<(Vec<Duration>, Cost), Failure> {
        let mut latencies = Vec::with_capacity(count);
        let cost = self
            .measured(async |chain| {
                for n in 0..count {
                    let start = Instant::now();
                    chain.move_one(n).await?;
                    latencies.push(start.elapsed());
                }
                Ok(())
            })
            .await?;
        latencies.sort();
        Ok((latencies, cost))
    }

    /// Steps of a prime walk over branches and products.
    async fn move_one(&self, n: usize) -> Result<(), Failure> {
        let key = Self::branch(n * 7_919 % self.branches)?;
        let product = format!("SKU-{}", 1_000_000 + n * 104_729 % self.rows);
        let moves = [stock_move(&product, MoveKind::Delta, Quantity::from_units(1), "bench")];
        self.api.post(&path(&key, "/stock-moves"), &json!({ "moves": moves })).await.map(drop)
    }

    async fn price(&mut self, n: usize) -> Result<Cost, Failure> {
        let everywhere = self.sql.number(COMMITS).await? + i64::try_from(self.branches).unwrap_or(i64::MAX);
        let change =
            format!("UPDATE product SET price_amount = price_amount + 100 WHERE merchant_id = 'm1' AND id = 'SKU-{}'", 1_000_000 + n);
        self.measured(async |chain| {
            chain.sql.execute(&change).await?;
            chain.until(COMMITS, everywhere).await
        })
        .await
    }

    async fn until(&mut self, query: &str, enough: i64) -> Result<(), Failure> {
        let deadline = Instant::now() + GIVE_UP_AFTER;
        loop {
            let now = self.sql.number(query).await?;
            if now >= enough {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::check(format!("{now} of {enough} after {} s: {query}", GIVE_UP_AFTER.as_secs())));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
