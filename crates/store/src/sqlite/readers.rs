//! A small pool of connections that only read; each read runs on a blocking thread in one transaction, so it never waits for the writer.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::connection;
use crate::StoreError;

/// The pool.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Readers {
    /// Opens `count` connections lazily.
    pub(super) fn new(path: PathBuf, count: usize) -> Arc<Self> {
        Arc::new(Self { path, idle: Mutex::default(), permits: Semaphore::new(count.max(1)) })
    }

    /// Runs a read in one transaction: everything it sees belongs together.
    pub(super) async fn read<T, E>(self: &Arc<Self>, read: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let _permit = self.permits.acquire().await.map_err(|_| StoreError::Closed)?;
        let pool = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || pool.run(read));
        task.await.map_err(|error| StoreError::Failed(format!("a read panicked: {error}")))?
    }

    fn run<T, E: From<StoreError>>(&self, read: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = idle.map_or_else(|| connection::reader(&self.path), Ok).map_err(StoreError::from)?;
        conn.execute_batch("BEGIN").map_err(StoreError::from)?;
        let outcome = read(&conn);
        // A connection that cannot end its transaction is not used again.
        if conn.execute_batch("ROLLBACK").is_ok() && !self.permits.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        }
        outcome
    }

    /// Refuses further reads and closes the idle connections.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
