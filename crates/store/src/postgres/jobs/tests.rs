//! Jobs of two servers on one database, at the same time. Sequencing is not asked here: a stand-in says that it is done as soon as it is woken.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, future::Future, sync::Mutex};

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use futures_util::future::{self, Either};
use mstore_protocol::{
    Currency, DeviceId, EventRequest, MerchantId, Money, OperationId, PersonalData, Quantity, StockAuthority, StockTarget, Timestamp,
    Verdict, VerdictStatus,
};
use mstore_rig::{Database, Postgres, Program, have};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::*;
use crate::{
    AcceptUpload, Inbox as _, Listing, Merchant, MoveKind, NewClaim, Page, Product, Registry as _, SourceWrite, StockBooks as _, StockMove,
    StockPolicy, Written,
    cases::{self, Carrier},
    postgres::{
        migrate,
        snapshot::{Shards, Snapshot},
        waiters::{Visits, Waiters},
    },
};

/// Says of every branch that it was visited.
#[derive(Default)]
struct Prompt {
    waiters: Arc<Waiters>,
    next: Mutex<u64>,
    personal: PersonalData,
}

impl Sequencing for Prompt {
    fn now(&self) -> Timestamp {
        Timestamp::parse("2026-11-22T06:41:00.000Z").unwrap()
    }

    fn personal_data(&self) -> &PersonalData {
        &self.personal
    }

    fn owned(&self) -> Shards {
        Shards::default()
    }

    fn register(&self, xid: Xid, branches: BTreeSet<BranchKey>) -> Wait {
        self.waiters.register(xid, branches)
    }

    fn wake(&self) {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        let open = self.waiters.open();
        let end = open.iter().map(|(xid, _)| xid.number + 1).max().unwrap_or(1);
        let Some(life) = open.first().map(|(xid, _)| xid.life) else { return };
        let heads = open.into_iter().map(|(_, key)| (key, Some(*next))).collect();
        let snapshot = Snapshot::parse(&format!("{end}:{end}:")).unwrap();
        self.waiters.tell(life, &snapshot, &Visits { commits: BTreeMap::new(), heads, durable_at_us: 1 });
    }
}

/// A server, as far as its jobs go.
struct Server(Jobs<Prompt>);

impl Carrier for Server {
    fn carry<T: Send + 'static, R: Send + 'static>(
        &self,
        case: impl Into<Case> + Send,
        run: impl FnMut(&mut Work<'_>) -> Result<T, StoreError> + Send + 'static,
        finish: impl FnOnce(T, &Seen) -> R + Send + 'static,
    ) -> impl Future<Output = Result<R, StoreError>> + Send {
        self.0.carry(case.into(), run, finish)
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        self.0.read(read)
    }
}

impl Server {
    fn on(database: &Database<'_>) -> Self {
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(database.url().parse().unwrap(), NoTls, manager);
        let hook = deadpool_postgres::Hook::async_fn(|client, _| {
            Box::pin(async move {
                client
                    .batch_execute("SET search_path = mstore; SET lock_timeout = 5000")
                    .await
                    .map_err(deadpool_postgres::HookError::Backend)
            })
        });
        let pool = Pool::builder(manager).max_size(4).post_create(hook).build().unwrap();
        Self(Jobs::new(pool, Arc::new(Prompt::default())))
    }

    async fn write(&self, write: SourceWrite) -> Result<Written, StoreError> {
        cases::write(self, write).await
    }

    async fn accept(&self, at: &str, till: &str, operations: &[Value]) -> Result<Vec<Verdict>, StoreError> {
        let operations = operations.iter().map(Value::to_string).collect();
        let device = DeviceId::parse(till).unwrap();
        cases::accept(self, AcceptUpload { key: key(at), device, journal_id: "j".into(), clock_offset_ms: 0, operations }).await
    }

    async fn list(&self, listing: Listing) -> Page {
        cases::list(self, listing, None, 500).await.unwrap()
    }
}

/// Two servers on a database with a merchant `m`, branches `a` and `b`, a product `p`.
async fn servers(database: &Database<'_>) -> (Server, Server) {
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    migrate::up(&client).await.unwrap();
    let one = Server::on(database);
    put_merchant(&one, StockPolicy::Warn).await;
    for name in ["a", "b"] {
        one.write(SourceWrite::PutBranch { key: key(name), name: name.into() }).await.unwrap();
    }
    one.write(put(&["p"])).await.unwrap();
    (one, Server::on(database))
}

async fn put_merchant(server: &Server, stock_policy: StockPolicy) {
    let currency = Currency::parse("IDR").unwrap();
    let merchant = Merchant { merchant: merchant(), name: "M".into(), currency, stock_policy, stock_authority: Default::default() };
    server.write(SourceWrite::PutMerchant(merchant)).await.unwrap();
}

async fn put_decided_elsewhere(server: &Server) {
    let (currency, stock_authority) = (Currency::parse("IDR").unwrap(), StockAuthority::Backend);
    let merchant = Merchant { merchant: merchant(), name: "M".into(), currency, stock_policy: StockPolicy::Warn, stock_authority };
    server.write(SourceWrite::PutMerchant(merchant)).await.unwrap();
}

fn merchant() -> MerchantId {
    MerchantId::parse("m").unwrap()
}

fn key(branch: &str) -> BranchKey {
    BranchKey::parse("m", branch).unwrap()
}

fn id() -> OperationId {
    OperationId::from_parts(Timestamp::from_ms(1_795_000_000_000), rand::random())
}

fn product(id: &str, sku: &str) -> Product {
    let price = Money::new(500, Currency::parse("IDR").unwrap()).unwrap();
    let (sku, name, unit) = (sku.into(), format!("Product {id}"), "pcs".into());
    Product { id: id.into(), sku, barcode: None, name, category: None, unit, price, track_stock: true, is_active: true }
}

fn put(ids: &[&str]) -> SourceWrite {
    SourceWrite::PutProducts { merchant: merchant(), products: ids.iter().map(|id| product(id, id)).collect() }
}

fn sale(seq: u64) -> Value {
    let money = json!({"amount": 500, "currency": "IDR"});
    json!({"id": id().to_string(), "device_seq": seq, "type": "sale", "occurred_at": "2026-11-22T06:40:00.000Z",
        "lines": [{"line_no": 1, "product_id": "p", "quantity": "1", "unit_price": money, "total": money}],
        "tenders": [{"type": "cash", "amount": money}], "total": money, "receipt_no": format!("R{seq}"), "business_date": "2026-11-22"})
}

fn transfer(seq: u64, to: &str) -> Value {
    json!({"id": id().to_string(), "device_seq": seq, "type": "transfer", "occurred_at": "2026-11-22T06:40:00.000Z",
        "collection": "product", "item_id": "p", "quantity": "1", "reason": "x", "to_branch": to})
}

async fn deliver(server: &Server, at: &str, quantity: &str) -> Result<Written, StoreError> {
    let quantity = Quantity::parse(quantity).unwrap();
    let (kind, reason) = (MoveKind::Delta, "test".into());
    let one = StockMove { id: id(), collection: StockTarget::Product, item_id: "p".into(), kind, quantity, reason };
    server.write(SourceWrite::MoveStock { key: key(at), moves: vec![one] }).await
}

fn stock(database: &Database<'_>, at: &str) -> String {
    database.psql(&format!("SELECT stock_milli || ' ' || ledger_milli FROM mstore.branch_product WHERE branch_id = '{at}'"))
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if have(&[Program::Postgres]) {
                let database = Postgres::shared().database("jobs");
                let (one, two) = servers(&database).await;
                races::$name(&database, &one, &two).await;
            }
        })*
    };
}

tests! {
    an_operation_sent_to_two_servers_is_accepted_once the_last_item_is_oversold_once a_blocked_adjustment_passes_once
    transfers_that_cross_end a_claim_is_redeemed_once a_sku_goes_to_one_product an_event_is_taken_once
    an_event_for_another_branch_waits_for_the_upload_that_it_names a_lost_connection_is_replaced
    what_cannot_be_kept_is_refused_by_itself a_change_without_effect_leaves_nothing a_busy_branch_leaves_connections_to_others
    verdicts_of_a_busy_branch_leave_connections_to_others
}

mod races {
    use super::*;

    const ROUNDS: u64 = 20;

    pub(super) async fn an_operation_sent_to_two_servers_is_accepted_once(database: &Database<'_>, one: &Server, two: &Server) {
        for n in 1..=ROUNDS {
            // Two branches: their cases are not kept apart by the lock.
            let other = if n % 2 == 0 { "a" } else { "b" };
            let operations = [sale(n)];
            let (here, there) = tokio::join!(one.accept("a", "till", &operations), two.accept(other, "till", &operations));
            let mut statuses = [here.unwrap()[0].status, there.unwrap()[0].status];
            statuses.sort_by_key(|status| *status != VerdictStatus::Accepted);
            assert_eq!(statuses, [VerdictStatus::Accepted, VerdictStatus::Duplicate]);
        }
        let moved = database.psql("SELECT sum(stock_milli), sum(ledger_milli) FROM mstore.branch_product");
        assert_eq!(moved, format!("-{0}|-{0}", ROUNDS * 1000));
        assert_eq!(database.psql("SELECT count(*) FROM mstore.transactions"), ROUNDS.to_string());
    }

    pub(super) async fn the_last_item_is_oversold_once(database: &Database<'_>, one: &Server, two: &Server) {
        for n in 1..=ROUNDS {
            deliver(one, "a", "1").await.unwrap();
            let (here, there) = ([sale(n)], [sale(n)]);
            let (here, there) = tokio::join!(one.accept("a", "till-1", &here), two.accept("a", "till-2", &there));
            let flags = [here.unwrap()[0].code, there.unwrap()[0].code];
            assert_eq!(flags.iter().flatten().collect::<Vec<_>>(), [&Code::BelowZero]);
            deliver(two, "a", "1").await.unwrap();
        }
        assert_eq!(database.psql("SELECT count(*), min(stock_milli) FROM mstore.oversell"), format!("{ROUNDS}|-1000"));
        assert_eq!(stock(database, "a"), "0 0");
    }

    pub(super) async fn a_blocked_adjustment_passes_once(database: &Database<'_>, one: &Server, two: &Server) {
        put_merchant(one, StockPolicy::Block).await;
        for _ in 0..ROUNDS {
            deliver(two, "a", "1").await.unwrap();
            let (here, there) = tokio::join!(deliver(one, "a", "-1"), deliver(two, "a", "-1"));
            let refused =
                [here, there].into_iter().filter(|outcome| matches!(outcome, Err(StoreError::Refused { code: Code::BelowZero, .. })));
            assert_eq!(refused.count(), 1);
        }
        assert_eq!(stock(database, "a"), "0 0");
    }

    pub(super) async fn transfers_that_cross_end(database: &Database<'_>, one: &Server, two: &Server) {
        deliver(one, "a", "100").await.unwrap();
        deliver(one, "b", "100").await.unwrap();
        for n in 1..=ROUNDS {
            let (out, back) = ([transfer(2 * n - 1, "b"), transfer(2 * n, "b")], [transfer(n, "a")]);
            let (out, back) = tokio::join!(one.accept("a", "till-1", &out), two.accept("b", "till-2", &back));
            let verdicts = [out.unwrap(), back.unwrap()].concat();
            assert!(verdicts.iter().all(|verdict| verdict.status == VerdictStatus::Accepted), "{verdicts:?}");
        }
        assert_eq!((stock(database, "a"), stock(database, "b")), ("80000 80000".into(), "120000 120000".into()));
        assert_eq!(one.imbalances(&merchant()).await.unwrap(), []);
    }

    pub(super) async fn a_claim_is_redeemed_once(_: &Database<'_>, one: &Server, two: &Server) {
        let now = Timestamp::parse("2026-11-22T06:41:00.000Z").unwrap();
        for n in 0..ROUNDS {
            let (code_hash, device) = (rand::random(), DeviceId::parse(&format!("till-{n}")).unwrap());
            let claim = NewClaim { code_hash, device: device.clone(), key: key("a"), name: String::new(), expires_at: now.plus_ms(1000) };
            one.claim(claim).await.unwrap();
            let (here, there) = tokio::join!(one.redeem(code_hash, "x", now), two.redeem(code_hash, "y", now));
            let refused = [&here, &there].into_iter().filter(|it| matches!(it, Err(StoreError::Refused { code: Code::ClaimRefused, .. })));
            assert_eq!(refused.count(), 1, "{here:?} {there:?}");
            assert_eq!(two.device(&device).await.unwrap().unwrap().generation, 1);
        }
    }

    pub(super) async fn a_sku_goes_to_one_product(database: &Database<'_>, one: &Server, two: &Server) {
        for n in 0..ROUNDS {
            let put = |id: String| SourceWrite::PutProducts { merchant: merchant(), products: vec![product(&id, &format!("sku-{n}"))] };
            let (here, there) = tokio::join!(one.write(put(format!("x-{n}"))), two.write(put(format!("y-{n}"))));
            let taken = [here, there].into_iter().filter(|it| matches!(it, Err(StoreError::Refused { code: Code::SkuTaken, .. })));
            assert_eq!(taken.count(), 1);
        }
        assert_eq!(database.psql("SELECT count(*) - count(DISTINCT sku) FROM mstore.product"), "0");
    }

    pub(super) async fn an_event_is_taken_once(database: &Database<'_>, one: &Server, two: &Server) {
        for n in 0..ROUNDS {
            let event: EventRequest = serde_json::from_value(json!({"type": "product_stock_updated", "idempotency_key": format!("k{n}"),
                "version": n, "product_id": "p", "stock": n.to_string(), "ops": [id().to_string()]}))
            .unwrap();
            let write = || SourceWrite::Event { key: key("a"), event: Box::new(event.clone()) };
            let (here, there) = tokio::join!(one.write(write()), two.write(write()));
            assert_eq!(usize::from(here.unwrap().duplicate) + usize::from(there.unwrap().duplicate), 1);
        }
        assert_eq!(stock(database, "a"), format!("{0} {0}", (ROUNDS - 1) * 1000));
        assert_eq!(database.psql("SELECT count(*) FROM mstore.named_operation"), ROUNDS.to_string());
    }

    /// The upload stands still where it has looked for the event and written its operation; the event comes for a branch that it does not lock.
    pub(super) async fn an_event_for_another_branch_waits_for_the_upload_that_it_names(
        database: &Database<'_>,
        one: &Server,
        two: &Server,
    ) {
        const GATE: &str = "SELECT pg_advisory_lock(77)";
        put_decided_elsewhere(one).await;
        database.psql(
            "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN NULL; END $$;
             CREATE TRIGGER gate AFTER INSERT ON mstore.operation FOR EACH ROW EXECUTE FUNCTION gate()",
        );
        let (gate, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        gate.batch_execute(GATE).await.unwrap();
        let waiting = async |locks: i64| {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            let looked = async {
                while gate.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) < locks {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(Duration::from_secs(20), looked).await.unwrap();
        };
        let sale = sale(1);
        let event: EventRequest = serde_json::from_value(json!({"type": "product_stock_updated", "idempotency_key": "k", "version": 1,
            "product_id": "p", "stock": "1", "ops": [sale["id"]]}))
        .unwrap();
        let operations = [sale];
        let told = async {
            waiting(1).await;
            let written = two.write(SourceWrite::Event { key: key("b"), event: Box::new(event) });
            tokio::pin!(written);
            tokio::select! {
                done = &mut written => panic!("the event did not wait for the upload: {done:?}"),
                () = waiting(2) => {}
            }
            gate.batch_execute("SELECT pg_advisory_unlock(77)").await.unwrap();
            written.await
        };
        let (verdicts, written) = tokio::join!(one.accept("a", "till", &operations), told);
        assert_eq!((verdicts.unwrap()[0].status, written.unwrap().duplicate), (VerdictStatus::Accepted, false));
        assert_eq!(database.psql("SELECT count(*) FROM mstore.operation WHERE awaits_event = 1"), "0");
        assert_eq!(database.psql("SELECT branch_id FROM mstore.named_operation ORDER BY 1"), "a\nb");
        assert_eq!(database.psql("SELECT count(*) FROM mstore.event_operation"), "0");
    }

    pub(super) async fn a_lost_connection_is_replaced(database: &Database<'_>, one: &Server, _: &Server) {
        for n in 1..=3 {
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
            mstore_rig::psql(&database.superuser_url(), end);
            assert_eq!(one.accept("a", "till", &[sale(n)]).await.unwrap()[0].status, VerdictStatus::Accepted);
        }
        assert_eq!(stock(database, "a"), "-3000 -3000");
    }

    pub(super) async fn a_busy_branch_leaves_connections_to_others(database: &Database<'_>, one: &Server, _: &Server) {
        let (somebody, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let lock = "BEGIN; SELECT FROM mstore.branch WHERE branch_id = 'a' FOR UPDATE";
        somebody.batch_execute(lock).await.unwrap();
        // More than there are connections, and all of them ask for one before the other branch does.
        goes_on_beside(&somebody, one, (0..20).map(|_| deliver(one, "a", "1"))).await;
        assert_eq!((stock(database, "a"), stock(database, "b")), ("20000 20000".into(), "1000 1000".into()));
    }

    pub(super) async fn verdicts_of_a_busy_branch_leave_connections_to_others(database: &Database<'_>, one: &Server, _: &Server) {
        for n in 1..=20 {
            one.accept("a", "till", &[sale(n)]).await.unwrap();
        }
        let ids = database.psql(
            "INSERT INTO mstore.operation_inbox (merchant_id, branch_id, id, device_id, journal_id, device_seq, type, body, received_at, next_attempt_at)
             SELECT merchant_id, branch_id, id, device_id, journal_id, device_seq, type, '{}', recorded_at, recorded_at FROM mstore.operation RETURNING id",
        );
        let ids: Vec<OperationId> = ids.lines().filter_map(OperationId::parse).collect();
        assert_eq!(ids.len(), 20);
        let (somebody, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        somebody.batch_execute("BEGIN; SELECT FROM mstore.branch WHERE branch_id = 'a' FOR UPDATE").await.unwrap();
        let merchant = merchant();
        let verdicts = ids.iter().map(|id| one.give_verdict(&merchant, *id, mstore_protocol::BackendVerdict::accepted()));
        goes_on_beside(&somebody, one, verdicts).await;
        assert_eq!(database.psql("SELECT count(*) FROM mstore.operation_inbox WHERE verdict = 'accepted'"), "20");
    }

    /// Another branch is served while `somebody` holds up all of these, and they are done when he lets them.
    async fn goes_on_beside<T: std::fmt::Debug>(
        somebody: &tokio_postgres::Client,
        server: &Server,
        held_up: impl Iterator<Item = impl Future<Output = Result<T, StoreError>>>,
    ) {
        let mut busy = future::join_all(held_up);
        assert!(futures_util::poll!(&mut busy).is_pending());
        let other = async {
            deliver(server, "b", "1").await.unwrap();
            server.list(Listing::Alarms).await;
        };
        match future::select(std::pin::pin!(other), busy).await {
            Either::Left(((), rest)) => {
                somebody.batch_execute("COMMIT").await.unwrap();
                assert!(rest.await.iter().all(Result::is_ok));
            }
            Either::Right((gave_up, _)) => panic!("the other branch waited for them: {gave_up:?}"),
        }
    }

    pub(super) async fn what_cannot_be_kept_is_refused_by_itself(database: &Database<'_>, one: &Server, two: &Server) {
        let mut named = product("q", "q");
        named.name = "a\0b".into();
        let refused = one.write(SourceWrite::PutProducts { merchant: merchant(), products: vec![named] }).await;
        assert!(matches!(&refused, Err(StoreError::Refused { code: Code::MalformedRow, .. })), "{refused:?}");
        // Somebody's trigger refuses one receipt; its neighbours pass.
        database.psql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON mstore.transactions FOR EACH ROW WHEN (NEW.body LIKE '%R2%') EXECUTE FUNCTION refuse()",
        );
        let mut odd = sale(3);
        odd["type"] = "a\0b".into();
        let verdicts = two.accept("a", "till", &[sale(1), sale(2), odd, sale(4)]).await.unwrap();
        let codes: Vec<_> = verdicts.iter().map(|verdict| (verdict.status, verdict.code)).collect();
        assert_eq!((codes[0].0, codes[3].0), (VerdictStatus::Accepted, VerdictStatus::Accepted), "{verdicts:?}");
        assert_eq!(codes[1], (VerdictStatus::Rejected, Some(Code::Internal)));
        assert_eq!(codes[2].0, VerdictStatus::Rejected);
        let alarms = two.list(Listing::Alarms).await;
        assert!(alarms.items.iter().any(|alarm| alarm["kind"] == "operation_failed"), "{alarms:?}");
        assert_eq!(two.list(Listing::Operations(key("a"))).await.items.len(), 3);
    }

    pub(super) async fn a_change_without_effect_leaves_nothing(database: &Database<'_>, one: &Server, two: &Server) {
        let marks = || database.psql("SELECT count(*) FROM mstore.mark");
        let before = marks();
        one.write(put(&["p"])).await.unwrap();
        two.set_transfer_arrival(&merchant(), crate::TransferArrival::OnReceipt).await.unwrap();
        assert_eq!(marks(), before);
    }
}
