//! What grows with the number of branches and of rows: the import of a catalogue, a commit, a price that changes everywhere, an idle second, bytes, memory.
//! No till is connected: what tills cost is measured by `idle`, `fanout` and `storm`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use mstore_protocol::{BranchKey, Quantity};
use mstore_store::MoveKind;
use serde_json::json;

use super::{Outcome, foreign::Foreign, ms, rig::per_second, rounded};
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
    let full = chain.sql.bytes().await?;
    let all = branches * rows;
    let (bytes, bodies) = (chain.sql.number(BODY_BYTES).await?, chain.sql.number(BODIES).await?);
    let (latencies, commit) = chain.commits(commits).await?;
    let price = chain.price(rows / 2).await?;
    let idle = chain
        .measured(async |_| {
            tokio::time::sleep(IDLE).await;
            Ok(())
        })
        .await?;
    let at = |percent: usize| ms(latencies[(latencies.len() - 1) * percent / 100]);
    Ok(Outcome::new(
        "growth",
        json!({
            "branches": branches, "rows": rows, "commits": commits, "database": if database.is_some() { "PostgreSQL" } else { "SQLite" },
            "import": "all products by one foreign transaction", "commit": "one stock movement by the API, one after the other, each at another branch",
            "price": "one product of the catalogue by foreign SQL, until every branch has its commit",
        }),
        json!({
            "import_s": rounded(import.took.as_secs_f64()),
            "import_rows_per_s": rounded(per_second(all, import.took)),
            "import_server_cpu_us_per_row": rounded(import.cpu_ms as f64 * 1000.0 / all as f64),
            "bytes_per_row": rounded((full - empty) as f64 / all as f64),
            "body_bytes_per_row": rounded(bytes as f64 / all as f64),
            "rows_per_body": rounded(all as f64 / bodies.max(1) as f64),
            "commit_p50_ms": at(50),
            "commit_p99_ms": at(99),
            "commit_server_cpu_ms": rounded(commit.cpu_ms as f64 / commits as f64),
            "price_everywhere_ms": ms(price.took),
            "price_changes_per_s": rounded(per_second(branches, price.took)),
            "price_server_cpu_ms": price.cpu_ms,
            "idle_server_cpu_percent": rounded(idle.cpu_ms as f64 / idle.took.as_secs_f64() / 10.0),
            "memory_kb": idle.memory_kb,
        }),
    ))
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
    memory_kb: u64,
}

impl Chain {
    async fn measured(&mut self, work: impl AsyncFnOnce(&mut Self) -> Result<(), Failure>) -> Result<Cost, Failure> {
        let (start, before) = (Instant::now(), self.server.usage());
        work(self).await?;
        let Usage { cpu_ms, memory_kb } = self.server.usage();
        Ok(Cost { took: start.elapsed(), cpu_ms: cpu_ms - before.cpu_ms, memory_kb })
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
        let key = BranchKey::parse("m1", &format!("b{}", n * 7_919 % self.branches)).map_err(|error| Failure::usage(error.to_string()))?;
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
