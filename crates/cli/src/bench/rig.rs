//! What every benchmark needs: a server process with a shop of so many products, and tills in this process.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mstore_client::{Client, Options};
use mstore_protocol::{BranchKey, Cursor, Enrolment, Money, Quantity, StockAuthority};
use mstore_store::{Merchant, MoveKind, StockPolicy};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    api::AdminApi,
    audit::Auditor,
    data::Dataset,
    failure::Failure,
    server_process::ServerProcess,
    shop::{ShopWriter, product, stock_move},
};

/// A benchmark that takes longer than this is broken, not slow.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// A server, a shop, a place for tills' files.
pub(super) struct Rig {
    pub(super) server: ServerProcess,
    pub(super) api: AdminApi,
    pub(super) key: BranchKey,
    pub(super) products: Vec<String>,
    auditor: Auditor,
    dir: TempDir,
}

impl Rig {
    /// Starts a server with `rows` products in one branch, on the PostgreSQL database at a URL or else on the embedded SQLite.
    pub(super) async fn start(rows: usize, database: Option<&str>) -> Result<Self, Failure> {
        let dir = tempfile::tempdir().map_err(|error| Failure::unavailable(format!("no temporary directory: {error}")))?;
        let server = ServerProcess::start_on(&dir.path().join("server"), None, database).await?;
        let api = server.admin()?;
        let key = BranchKey::parse("m1", "b1").map_err(|error| Failure::usage(error.to_string()))?;
        let products = furnish(&api, &key, rows).await?;
        let auditor = Auditor::enrol(&api, &server.ready.http, &key).await?;
        Ok(Self { server, api, key, products, auditor, dir })
    }

    /// A file for a till.
    pub(super) fn till_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.db"))
    }

    /// Where the server's files are.
    pub(super) fn database(&self) -> &Path {
        Path::new(&self.server.ready.database)
    }

    /// A claim code for a till.
    pub(super) async fn claim(&self, name: &str) -> Result<String, Failure> {
        claim(&self.api, &self.key, name).await
    }

    /// The credentials of a till that has no file yet.
    pub(super) async fn enrolment(&self, name: &str) -> Result<Enrolment, Failure> {
        enrol(&self.api, &self.key, name).await
    }

    /// Starts an enrolled till on an empty file.
    pub(super) async fn open(&self, name: &str, enrolment: Enrolment) -> Result<Client, Failure> {
        Client::open_with(self.till_path(name), &self.server.ready.http, enrolment, Options::default())
            .await
            .map_err(|error| Failure::unavailable(format!("till {name}: {error}")))
    }

    /// Enrols a till over `url` and starts it.
    pub(super) async fn till(&self, name: &str, url: &str, options: Options) -> Result<Client, Failure> {
        let code = self.claim(name).await?;
        Client::enrol(self.till_path(name), url, &code, options)
            .await
            .map_err(|error| Failure::unavailable(format!("till {name}: {error}")))
    }

    /// `count` tills, live and at the head.
    pub(super) async fn live_tills(&self, count: usize) -> Result<Vec<Client>, Failure> {
        let mut tills = Vec::with_capacity(count);
        for n in 0..count {
            tills.push(self.till(&format!("t{n}"), &self.server.ready.http, Options::default()).await?);
        }
        self.all_at_head(&tills).await?;
        for till in &tills {
            until_live(till).await?;
        }
        Ok(tills)
    }

    /// Moves one product's stock by one; when that was durable, microseconds since 1970 on the server's clock, which is ours.
    pub(super) async fn move_one(&self, n: usize) -> Result<i64, Failure> {
        let product = &self.products[n % self.products.len()];
        let moves = [stock_move(product, MoveKind::Delta, Quantity::from_units(1), "bench")];
        let path = crate::shop::path(&self.key, "/stock-moves");
        let answer: Value = self.api.post(&path, &json!({ "moves": moves })).await?;
        answer["durable_at_us"].as_i64().ok_or_else(|| Failure::unavailable("the server did not say when it was durable"))
    }

    /// The branch's head.
    pub(super) async fn head(&self) -> Result<Cursor, Failure> {
        self.auditor.head().await
    }

    /// Waits until every till has everything.
    pub(super) async fn all_at_head(&self, tills: &[Client]) -> Result<(), Failure> {
        let head = self.head().await?;
        for till in tills {
            until_at(till, head.seq).await?;
        }
        Ok(())
    }
}

async fn claim(api: &AdminApi, key: &BranchKey, name: &str) -> Result<String, Failure> {
    let body = json!({ "merchant": key.merchant, "branch": key.branch, "device_id": name, "name": name });
    let claim = api.post("/v1/admin/devices", &body).await?;
    claim["code"].as_str().map(str::to_owned).ok_or_else(|| Failure::unavailable("the server gave no claim code"))
}

/// The credentials of a till of a branch.
pub(super) async fn enrol(api: &AdminApi, key: &BranchKey, name: &str) -> Result<Enrolment, Failure> {
    let code = claim(api, key, name).await?;
    let answer = api.post("/v1/devices/enrol", &json!({ "code": code, "nonce": name })).await?;
    serde_json::from_value(answer).map_err(|error| Failure::unavailable(format!("enrolment: {error}")))
}

/// Merchant, branch and products; their ids.
pub(super) async fn furnish(api: &AdminApi, key: &BranchKey, rows: usize) -> Result<Vec<String>, Failure> {
    let data = Dataset::load(None, 1, 60)?;
    let writer = ShopWriter::new(api);
    let merchant = Merchant {
        merchant: key.merchant.clone(),
        name: "bench".into(),
        currency: data.currency,
        stock_policy: StockPolicy::Allow,
        stock_authority: StockAuthority::Mstore,
    };
    writer.merchant(&merchant).await?;
    writer.branch(key, "bench").await?;
    let mut products = Vec::with_capacity(rows);
    for (n, item) in (0..rows).zip(data.catalogue.iter().cycle()) {
        let price = Money::new(item.price, data.currency).map_err(|error| Failure::check(error.to_string()))?;
        let mut one = product(&format!("SKU-{n:06}"), &item.name, price);
        one.barcode = Some(format!("899{n:010}"));
        products.push(one);
    }
    writer.products(&key.merchant, &products).await?;
    Ok(products.into_iter().map(|one| one.id).collect())
}

/// Waits until a till shows `seq` or more.
pub(super) async fn until_at(till: &Client, seq: u64) -> Result<(), Failure> {
    until_at_within(till, seq, GIVE_UP_AFTER).await
}

/// The same, where there is much to wait for.
pub(super) async fn until_at_within(till: &Client, seq: u64, patience: Duration) -> Result<(), Failure> {
    let mut status = till.watch_status();
    let arrived = status.wait_for(|status| status.cursor.is_some_and(|cursor| cursor.seq >= seq));
    match tokio::time::timeout(patience, arrived).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Failure::check(format!("a till did not reach seq {seq}; it is at {:?}", till.status()))),
    }
}

async fn until_live(till: &Client) -> Result<(), Failure> {
    let mut status = till.watch_status();
    let live = status.wait_for(|status| status.state == mstore_protocol::DeviceState::Live);
    match tokio::time::timeout(GIVE_UP_AFTER, live).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Failure::check(format!("a till did not become live: {:?}", till.status()))),
    }
}

/// Rows per second.
pub(super) fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}

/// Runs until done and says how long it took.
pub(super) async fn timed<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<(T, Duration), Failure> {
    let start = Instant::now();
    let done = work.await?;
    Ok((done, start.elapsed()))
}
