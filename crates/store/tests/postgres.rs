//! The PostgreSQL store against the suite that every backend passes.
#![allow(clippy::unwrap_used, missing_docs)]

mod conformance;

use conformance::{Fixture, TestClock};
use mstore_rig::{Postgres, Program, have};
use mstore_store::postgres::{PgConfig, PgStore};

store_conformance!(postgres, make);

async fn make() -> Option<Fixture> {
    if !have(&[Program::Postgres]) {
        return None;
    }
    let (database, clock) = (std::sync::Arc::new(Postgres::shared().database("store")), TestClock::new());
    let store = PgStore::open(PgConfig::new(database.url(), clock.as_fn())).await.unwrap();
    let foreign = std::sync::Arc::clone(&database);
    let sql = Box::new(move |statements: &str| {
        foreign.psql(&format!("SET search_path = mstore; BEGIN; {statements}; COMMIT"));
    });
    Some(Fixture { store, clock, sql, unreadable: "repeat('x', 70000)", visits: true, keep: Box::new(database) })
}
