//! What all servers of a database must have in common: the key that device tokens are derived from, and the broker.

use std::time::{Duration, Instant};

use super::PgStore;
use crate::StoreError;

/// A server that was killed is believed to live until its lease ends.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why a server may not work on this database.
#[derive(Debug, thiserror::Error)]
pub enum Disagreement {
    /// Tokens that one gives out the others would refuse.
    #[error("the servers of this database have another master key: device tokens of one would be refused by the other")]
    MasterKey,
    /// What one publishes the devices of the other would not hear.
    #[error("the server at {url} works on this database and publishes to {theirs}; this one would publish to {ours}")]
    Broker {
        /// The other server.
        url: String,
        /// Its broker.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PgStore {
    /// Checks that this server fits the others. `key_hash` is a hash of the master key, kept with the database by the first server that comes.
    pub async fn agree(&self, key_hash: &str) -> Result<(), Disagreement> {
        let client = self.shared.reader().await?;
        let sql = "INSERT INTO setting (name, value) VALUES ('master_key_hash', $1) ON CONFLICT (name) DO NOTHING";
        client.execute(sql, &[&key_hash]).await.map_err(StoreError::from)?;
        let sql = "SELECT value FROM setting WHERE name = 'master_key_hash'";
        let known: String = client.query_one(sql, &[]).await.map_err(StoreError::from)?.get(0);
        if known != key_hash {
            return Err(Disagreement::MasterKey);
        }
        let begun = Instant::now();
        loop {
            let sql = "SELECT s.url, s.broker FROM server s JOIN lease l ON l.server_id = s.server_id
                WHERE s.server_id <> $1 AND l.until >= clock_timestamp() AND (s.broker <> $2 OR $2 = '') LIMIT 1";
            let broker = &self.shared.config.broker;
            let Some(other) = client.query_opt(sql, &[&self.shared.server_id, broker]).await.map_err(StoreError::from)? else {
                return Ok(());
            };
            if begun.elapsed() > self.shared.config.lease * 2 {
                let named = |broker: String| if broker.is_empty() { "a broker of its own".to_owned() } else { broker };
                return Err(Disagreement::Broker { url: other.get(0), theirs: named(other.get(1)), ours: named(broker.clone()) });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
