//! A connection of a test to its PostgreSQL.

use std::ops::{Deref, DerefMut};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// A connection; closed when dropped.
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Session {
    /// With `schema` first in its search path.
    pub(crate) async fn open(url: &str, schema: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let driver = tokio::spawn(async move {
            let _gone = connection.await;
        });
        client.batch_execute(&format!("SET search_path = {schema}, public")).await.unwrap();
        Self { client, driver }
    }

    /// A number that a statement finds.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
