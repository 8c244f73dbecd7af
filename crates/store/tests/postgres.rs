//! The PostgreSQL store against the suite that every backend passes, and what only PostgreSQL can do wrong.
#![allow(clippy::unwrap_used, missing_docs)]

mod conformance;

use std::time::{Duration, Instant};

use conformance::{
    Fixture, TestClock,
    fixture::{branch, product},
};
use mstore_protocol::{Code, VerdictStatus};
use mstore_rig::{Database, Postgres, Program, have, psql};
use mstore_store::{
    SourceWrite, StoreError,
    postgres::{PgConfig, PgStore},
};

store_conformance!(postgres, make);

async fn make() -> Option<Fixture> {
    if !have(&[Program::Postgres]) {
        return None;
    }
    let database = Postgres::shared().database("store");
    let url = database.url();
    let clock = TestClock::new();
    // One server alone: a machine that stands still for seconds is not what these tests are about.
    let config = PgConfig { ledger_keep_days: 400, lease: Duration::from_secs(60), ..PgConfig::new(&url, clock.as_fn()) };
    let store = PgStore::open(config).await.unwrap();
    let foreign = url.clone();
    let sql = Box::new(move |statements: &str| {
        psql(&foreign, &format!("BEGIN; SET LOCAL search_path = mstore; {statements}; COMMIT"));
    });
    // A row with such a text is longer than any row may be.
    Some(Fixture { store, clock, sql, unreadable: "repeat('x', 1000000)", visits: false, keep: Box::new(database) })
}

/// A shop on a database whose other ends the test holds, too.
async fn shop() -> Option<(Fixture, Database<'static>)> {
    if !have(&[Program::Postgres]) {
        return None;
    }
    let database = Postgres::shared().database("only");
    let f = on(&database, TestClock::new()).await.shop().await;
    f.put_ids(&["p", "q"]).await;
    Some((f, database))
}

async fn on(database: &Database<'static>, clock: TestClock) -> Fixture {
    at(database.url(), clock).await
}

async fn at(url: String, clock: TestClock) -> Fixture {
    with(PgConfig::new(url, clock.as_fn()), clock).await
}

async fn with(config: PgConfig, clock: TestClock) -> Fixture {
    let url = config.url.clone();
    let store = PgStore::open(config).await.unwrap();
    let sql = Box::new(move |statements: &str| {
        psql(&url, &format!("SET search_path = mstore; {statements}"));
    });
    Fixture { store, clock, sql, unreadable: "", visits: false, keep: Box::new(()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_only_write_the_tables_is_captured() {
    let Some((f, database)) = shop().await else { return };
    f.deliver("a", "p", "10").await;
    let role = format!("clerk_{}", database.name());
    psql(
        &database.superuser_url(),
        &format!(
            "CREATE ROLE {role}; GRANT USAGE ON SCHEMA mstore TO {role}; GRANT SELECT, INSERT, UPDATE ON mstore.product, mstore.branch_product TO {role};
             GRANT INSERT ON mstore.stock_move TO {role}; SET ROLE {role}; SET search_path = pg_temp;
             UPDATE mstore.product SET name = 'By the clerk' WHERE id = 'p';
             UPDATE mstore.branch_product SET stock_milli = 4000 WHERE product_id = 'p' AND branch_id = 'a';
             INSERT INTO mstore.stock_move (merchant_id, branch_id, id, collection, item_id, quantity_milli, effect_milli) VALUES ('m', 'a', 'x', 'product', 'p', -1000, -1000)"
        ),
    );
    f.settle().await;
    assert_eq!(f.row("a", "product", "p").await.unwrap()["name"], "By the clerk");
    assert_eq!(f.stock("a", "p").await, "3");
    psql(&database.superuser_url(), &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_says_it_is_a_replica_is_captured() {
    let Some((f, database)) = shop().await else { return };
    psql(&database.superuser_url(), "SET session_replication_role = replica; UPDATE mstore.product SET name = 'Replicated' WHERE id = 'q'");
    f.settle().await;
    assert_eq!(f.row("b", "product", "q").await.unwrap()["name"], "Replicated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_table_is_noticed_and_a_large_one_held() {
    let Some((f, _database)) = shop().await else { return };
    f.put_items("a", &["milk", "tea"]).await;
    (f.sql)("TRUNCATE inventory");
    f.settle().await;
    assert_eq!(f.row("a", "inventory", "milk").await, None);
    f.put((0..150).map(|i| product(&format!("x{i:03}"))).collect()).await;
    (f.sql)("TRUNCATE product");
    f.settle().await;
    assert_eq!(f.snapshot("a").await.lines.len(), 152);
    assert_eq!(f.alarms("mass_delete_held").await.len(), 2);
    let refused = mstore_rig::try_psql(&_database.url(), "TRUNCATE mstore.stock_move").unwrap_err();
    assert!(refused.contains("the ledger only grows"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_policy_hides_from_us_are_not_deleted_on_devices() {
    let Some((f, database)) = shop().await else { return };
    let before = f.snapshot("a").await;
    (f.sql)(
        "ALTER TABLE product ENABLE ROW LEVEL SECURITY; ALTER TABLE product FORCE ROW LEVEL SECURITY; UPDATE product SET name = 'hidden' WHERE false",
    );
    (f.sql)("INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('product', 'm', '*', 'p'), ('product', 'm', '*', 'q')");
    wait_for(async || f.alarms("branch_blocked").await.len() == 2).await;
    assert_eq!(f.snapshot("a").await.ids(), before.ids());
    (f.sql)("ALTER TABLE product NO FORCE ROW LEVEL SECURITY");
    f.clock.forward_s(6);
    f.settle().await;
    assert!(f.alarms("branch_blocked").await.iter().all(|alarm| alarm.cleared_at.is_some()));
    drop(database);
}

/// Waits for something that comes by itself.
async fn wait_for(mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < deadline, "it does not come");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_cannot_be_written_stops_no_other() {
    let Some((f, _database)) = shop().await else { return };
    let seq = f.head("a").await.seq;
    (f.sql)(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
         CREATE TRIGGER broken BEFORE INSERT ON commit_log FOR EACH ROW WHEN (NEW.head = 1) EXECUTE FUNCTION broken()",
    );
    (f.sql)("UPDATE product SET name = 'New' WHERE id = 'p'");
    wait_for(async || !f.alarms("branch_blocked").await.is_empty()).await;
    wait_for(async || f.row("b", "product", "p").await.unwrap()["name"] == "New").await;
    assert_eq!(f.head("a").await.seq, seq);
    assert!(f.head("a").await.held_since.is_some());
    (f.sql)("DROP TRIGGER broken ON commit_log");
    f.clock.forward_s(6);
    f.settle().await;
    assert_eq!(f.row("a", "product", "p").await.unwrap()["name"], "New");
    assert_eq!((f.head("a").await.held_since, f.alarms("branch_blocked").await.len()), (None, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_the_branches_and_answer_for_each_other() {
    let Some((one, database)) = shop().await else { return };
    let two = on(&database, one.clock.clone()).await;
    // Every branch that there could be belongs to one of them, and each has about half.
    let names: Vec<_> = (0..400).map(|n| branch(&format!("n{n}"))).collect();
    let owned_by = |f: &Fixture| names.iter().filter(|key| f.store.owns(key)).count();
    let is_disjoint = || names.iter().all(|key| one.store.owns(key) != two.store.owns(key));
    wait_for(async || is_disjoint() && (100..300).contains(&owned_by(&one))).await;
    assert_eq!(database.psql("SELECT count(*) FROM mstore.shard GROUP BY server_id"), "32\n32");
    for n in 0..20 {
        for f in [&one, &two] {
            for at in ["a", "b"] {
                f.deliver(at, "p", "1").await;
                assert_eq!(one.head(at).await, two.head(at).await, "{n}");
            }
        }
    }
    assert_eq!((one.stock("a", "p").await, two.stock("b", "p").await), ("40".into(), "40".into()));
    // One goes; what it had is taken over, with what it had not published.
    let owned = |f: &Fixture, at: &str| f.store.owns(&branch(at));
    wait_for(async || ["a", "b"].iter().all(|at| owned(&one, at) != owned(&two, at))).await;
    let seqs = (one.head("a").await.seq, one.head("b").await.seq);
    one.store.close().await.unwrap();
    wait_for(async || owned(&two, "a") && owned(&two, "b")).await;
    let outbox = two.store.outbox(0, 10_000).await.unwrap();
    for (at, seq) in [("a", seqs.0), ("b", seqs.1)] {
        let of_branch: Vec<_> = outbox.iter().filter(|entry| entry.key == branch(at)).map(|entry| entry.seq).collect();
        assert!(of_branch.is_sorted() && of_branch.last() == Some(&seq), "{at}: {of_branch:?}, {seq}");
    }
    two.deliver("a", "p", "1").await;
    assert_eq!(two.head("a").await.seq, seqs.0 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_wakes_the_server_that_sequences_its_branch() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let database = Postgres::shared().database("wake");
    // Whoever waits for a sequencer to look by itself waits for long.
    let look = Duration::from_secs(2);
    let slow = |clock: &TestClock| PgConfig { poll_min: look, poll_max: look, ..PgConfig::new(database.url(), clock.as_fn()) };
    let clock = TestClock::new();
    let one = with(slow(&clock), clock.clone()).await.shop().await;
    let two = with(slow(&clock), clock.clone()).await;
    one.put_ids(&["p"]).await;
    wait_for(async || ["a", "b"].iter().all(|at| one.store.owns(&branch(at)) != two.store.owns(&branch(at)))).await;
    let begun = Instant::now();
    let writes = 40_u32;
    for n in 0..writes / 4 {
        for (f, at) in [(&one, "a"), (&two, "b"), (&one, "b"), (&two, "a")] {
            assert_eq!(f.deliver(at, "p", "1").await.seqs.len(), 1, "{n}");
        }
    }
    assert!(begun.elapsed() < look * writes / 4, "nobody is woken: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_deleted_while_they_change_hands_leave_holes_and_nothing_else() {
    let Some((one, database)) = shop().await else { return };
    let names: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
    for at in &names {
        one.write(SourceWrite::PutBranch { key: branch(at), name: at.clone() }).await.unwrap();
        one.deliver(at, "p", "1").await;
    }
    let (somebody, connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let acknowledged = "BEGIN; DELETE FROM mstore.outbox WHERE id IN (SELECT min(id) FROM mstore.outbox GROUP BY head)";
    somebody.batch_execute(acknowledged).await.unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%UPDATE outbox%'";
    let meanwhile = async {
        wait_for(async || database.psql(waits) == "1").await;
        somebody.batch_execute("COMMIT").await.unwrap();
    };
    let (two, ()) = tokio::join!(on(&database, one.clock.clone()), meanwhile);
    wait_for(async || names.iter().all(|at| one.store.owns(&branch(at)) != two.store.owns(&branch(at)))).await;
    let taken: Vec<&String> = names.iter().filter(|at| two.store.owns(&branch(at))).collect();
    assert!(!taken.is_empty());
    for at in taken {
        let seq = two.deliver(at, "p", "1").await.seqs[&branch(at)];
        let outbox = two.store.outbox(0, 10_000).await.unwrap();
        let of_branch: Vec<_> = outbox.iter().filter(|entry| entry.key == branch(at)).map(|entry| entry.seq).collect();
        assert!(of_branch.is_sorted() && of_branch.last() == Some(&seq), "{at}: {of_branch:?}, {seq}");
    }
    assert_eq!(one.alarms("branch_blocked").await.len(), 0);
}

/// Somebody who keeps every sequencer from making a commit until he commits himself.
async fn standstill(url: &str) -> tokio_postgres::Client {
    let (somebody, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    somebody.batch_execute("BEGIN; LOCK TABLE mstore.commit_log IN SHARE MODE").await.unwrap();
    somebody
}

/// How many writes are committed, answered by the database, and wait to be sequenced.
const WAITING: &str =
    "SELECT CASE WHEN EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' AND query = 'COMMIT')
    THEN 0 ELSE (SELECT count(DISTINCT xid) FROM mstore.mark WHERE branch_id <> '*') END";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_write_is_answered_whatever_becomes_of_connections() {
    let Some((one, database)) = shop().await else { return };
    let two = on(&database, one.clock.clone()).await;
    let is_settled = |at: &str| one.store.owns(&branch(at)) != two.store.owns(&branch(at));
    wait_for(async || is_settled("a") && is_settled("b")).await;
    let somebody = standstill(&database.url()).await;
    // Each server has writes that it sequences itself, or that the other one does.
    let writes = async {
        tokio::join!(one.deliver("a", "p", "1"), one.deliver("b", "p", "1"), two.deliver("a", "p", "1"), two.deliver("b", "p", "1"))
    };
    let meanwhile = async {
        wait_for(async || database.psql(WAITING) == "4").await;
        let ours = "datname = current_database() AND application_name = 'mstore-sync'";
        psql(&database.superuser_url(), &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"));
        let sequencers = format!("SELECT count(*) FROM pg_stat_activity WHERE {ours} AND wait_event_type = 'Lock'");
        wait_for(async || database.psql(&sequencers) != "0").await;
        somebody.batch_execute("COMMIT").await.unwrap();
    };
    tokio::join!(writes, meanwhile);
    assert_eq!((one.stock("a", "p").await, two.stock("b", "p").await), ("2".into(), "2".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_with_which_the_database_was_lost_is_asked_for_again() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let mut postgres = Postgres::start();
    let url = postgres.url(&postgres.database("lost").keep());
    let f = at(url.clone(), TestClock::new()).await.shop().await;
    f.put_ids(&["p"]).await;
    let sale = vec![f.sale(1, "p", "1")];
    let somebody = standstill(&url).await;
    let meanwhile = async {
        wait_for(async || psql(&url, WAITING) == "1").await;
        postgres.kill_9();
        postgres.start_again();
    };
    let (lost, ()) = tokio::join!(f.accept_from("a", "till", "j", 0, sale.clone()), meanwhile);
    assert!(matches!(&lost, Err(StoreError::Busy { code: Code::Unavailable, .. })), "{lost:?}");
    drop(somebody);
    let mut again = Vec::new();
    wait_for(async || {
        again = f.accept_from("a", "till", "j", 0, sale.clone()).await.unwrap_or_default();
        !again.is_empty()
    })
    .await;
    // It was kept: whoever asks again gets the answer that was lost.
    assert_eq!((again[0].status, again[0].seq), (VerdictStatus::Duplicate, Some(f.head("a").await.seq)));
    assert_eq!(f.stock("a", "p").await, "-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_with_its_code() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let server = Postgres::shared();
    let refused = async |url: String| PgStore::open(PgConfig::new(url, TestClock::new().as_fn())).await.err().unwrap();
    let database = server.database("refused");
    psql(&database.superuser_url(), "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    assert_eq!(refused(server.superuser_url("latin")).await.code(), "database_encoding");
    let name = database.name();
    psql(&database.superuser_url(), &format!("CREATE ROLE guest LOGIN PASSWORD 'guest'; REVOKE CREATE ON DATABASE {name} FROM PUBLIC"));
    let error = refused(server.url_as("guest", "guest", name)).await;
    assert_eq!(error.code(), "database_rights", "{error}");
    assert!(error.to_string().contains("GRANT CREATE ON DATABASE"), "{error}");
    assert_eq!(refused("postgres://127.0.0.1:1/nowhere".into()).await.code(), "database_unreachable");
    assert_eq!(refused("postgres://h/d?sslmode=perhaps".into()).await.code(), "database_url");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_stays_open_is_alarmed_until_it_ends() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let database = Postgres::shared().database("open");
    let clock = TestClock::new();
    let config = PgConfig { old_snapshot: std::time::Duration::from_secs(1), ..PgConfig::new(database.url(), clock.as_fn()) };
    let store = PgStore::open(config).await.unwrap();
    let f = Fixture { store, clock, sql: Box::new(|_| ()), unreadable: "", visits: false, keep: Box::new(()) };
    let (forgotten, connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    forgotten.batch_execute("SET application_name = 'report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    wait_for(async || !f.alarms("old_snapshot_open").await.is_empty()).await;
    assert!(f.alarms("old_snapshot_open").await[0].detail.contains("program \"report\""));
    forgotten.batch_execute("COMMIT").await.unwrap();
    wait_for(async || f.alarms("old_snapshot_open").await.iter().all(|alarm| alarm.cleared_at.is_some())).await;
    f.store.close().await.unwrap();
}
