//! Copies the WAL into the database beside the writer, so that no write waits for it.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use rusqlite::Connection;

use super::{
    connection::{self, CHECKPOINT_PAGES},
    shared::Shared,
};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Starts the thread; it ends when the store is closed.
pub(super) fn spawn(path: PathBuf, shared: Arc<Shared>) -> std::io::Result<thread::JoinHandle<()>> {
    let work = move || match connection::checkpointer(&path) {
        Ok(conn) => run(&conn, &shared),
        Err(error) => tracing::error!(%error, "the write-ahead log will not be checkpointed until the next start"),
    };
    thread::Builder::new().name("mstore-checkpoint".into()).spawn(work)
}

fn run(conn: &Connection, shared: &Shared) {
    while !shared.is_closed() {
        thread::park_timeout(LOOK_EVERY);
        if shared.is_closed() || !shared.take_committed() {
            continue;
        }
        // Not the size of the file, which never shrinks: the pages written since the last checkpoint.
        let pages = |mode: &str| conn.query_row(mode, [], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?));
        let outcome = pages("PRAGMA wal_checkpoint(NOOP)")
            .and_then(|waiting| if waiting > CHECKPOINT_PAGES { pages("PRAGMA wal_checkpoint(PASSIVE)").map(|_| ()) } else { Ok(()) });
        if let Err(error) = outcome {
            tracing::warn!(%error, "checkpoint failed; trying again");
        }
    }
}
