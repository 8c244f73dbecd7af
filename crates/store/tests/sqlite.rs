//! The SQLite store against the suite that every backend passes.
#![allow(clippy::unwrap_used, missing_docs)]

mod conformance;

use std::sync::Arc;

use conformance::{Fixture, TestClock};
use mstore_store::sqlite::{SqliteConfig, SqliteStore};

fn make_store() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let config = SqliteConfig::new(dir.path().join("store.db"), clock.as_fn());
    let store = SqliteStore::open(config).unwrap();
    Fixture { store: Arc::<SqliteStore>::clone(&store), clock, keep: Box::new(dir) }
}

store_conformance!(sqlite, make_store);
