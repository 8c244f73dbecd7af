//! Where the data is: the embedded SQLite in the data directory, or a PostgreSQL of the customer's.

use std::{sync::Arc, time::Duration};

use mstore_server::{DataDir, system_clock};
use mstore_store::{
    Store,
    postgres::{Disagreement, PgConfig, PgOpenError, PgStore},
    sqlite::{OpenError, SqliteConfig, SqliteStore},
};

use crate::{
    broker_config::ExternalBroker,
    config::{Config, OwnDatabase},
    failure::Failure,
    settings::without_password,
};

/// How often a server that cannot open its database for want of room looks for some.
const ROOM_AFTER: Duration = Duration::from_secs(1);

/// A store, and how it is named to people.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) name: String,
}

/// Opens the store of a configuration; `server_url` is where others reach this server.
pub(crate) async fn open(config: &Config, data: &DataDir, server_url: String) -> Result<Opened, Failure> {
    let Some(own) = &config.database else {
        let path = data.database_path();
        let failed = |error| Failure::unavailable(format!("the database {}: {error}", path.display()));
        let settings = SqliteConfig {
            transaction_window_days: config.retention.transaction_window_days,
            tombstone_keep_days: config.retention.deletion_keep_days,
            operation_keep_days: config.retention.operation_keep_days,
            alarm_keep_days: config.retention.alarm_keep_days,
            audit_keep_days: config.retention.audit_keep_days,
            ledger_keep_days: config.retention.ledger_keep_days,
            commits_keep_max: config.retention.commits_keep_max.into(),
            outbox_per_branch_max: config.retention.outbox_per_branch_max,
            personal_data: config.personal_data.clone(),
            ..SqliteConfig::new(&path, system_clock())
        };
        let store = open_sqlite(&settings).await.map_err(failed)?;
        return Ok(Opened { store, name: path.display().to_string() });
    };
    let broker = config.broker.as_ref().map(ExternalBroker::url).unwrap_or_default();
    let server_name = data.server_name().map_err(|error| Failure::unavailable(error.to_string()))?;
    let settings = PgConfig {
        server_url,
        server_name,
        broker,
        transaction_window_days: config.retention.transaction_window_days,
        tombstone_keep_days: config.retention.deletion_keep_days,
        operation_keep_days: config.retention.operation_keep_days,
        alarm_keep_days: config.retention.alarm_keep_days,
        audit_keep_days: config.retention.audit_keep_days,
        ledger_keep_days: config.retention.ledger_keep_days,
        commits_keep_max: config.retention.commits_keep_max.into(),
        outbox_per_branch_max: config.retention.outbox_per_branch_max,
        personal_data: config.personal_data.clone(),
        ..PgConfig::new(own.connect_url()?, system_clock())
    };
    let store = PgStore::open(settings).await.map_err(|error| open_failure(&error))?;
    if let Err(disagreement) = store.agree(&data.master_key().fingerprint()).await {
        // What it says is of more use than a failure to close.
        let _unclosed = mstore_store::Admin::close(&*store).await;
        return Err(disagreement_failure(&disagreement, data));
    }
    Ok(Opened { store, name: without_password(&own.url) })
}

/// Opens the database. SQLite needs a little room beside it even for reading; where there is none, this waits: a server that ended would have to be started
/// again by somebody.
async fn open_sqlite(config: &SqliteConfig) -> Result<Arc<SqliteStore>, OpenError> {
    let mut is_told = false;
    loop {
        match SqliteStore::open(config.clone()) {
            Err(error) if error.is_no_room() => {
                if !is_told {
                    tracing::error!(error = %error, "no room on the disk to open the database: waiting for some");
                    is_told = true;
                }
                tokio::time::sleep(ROOM_AFTER).await;
            }
            opened => return opened,
        }
    }
}

fn open_failure(error: &PgOpenError) -> Failure {
    let said = error.to_string();
    match error {
        PgOpenError::Unreachable(_) | PgOpenError::Read(_) | PgOpenError::Thread(_) | PgOpenError::Migrate(_) => Failure::unavailable(said),
        PgOpenError::Url(_)
        | PgOpenError::TooOld { .. }
        | PgOpenError::Encoding(_)
        | PgOpenError::TransactionPooler
        | PgOpenError::Rights { .. }
        | PgOpenError::Newer { .. } => Failure::usage(said),
    }
}

fn disagreement_failure(disagreement: &Disagreement, data: &DataDir) -> Failure {
    let said = disagreement.to_string();
    match disagreement {
        Disagreement::Store(_) => Failure::unavailable(said),
        Disagreement::MasterKey => {
            let file = data.path().join("master.key");
            Failure::usage(said).next(format!("copy master.key of the first server to {}", file.display()))
        }
        Disagreement::Broker { .. } => {
            Failure::usage(said).next("start all servers of a database with the same --broker mqtt://… or mqtts://…")
        }
    }
}

impl OwnDatabase {
    /// The URL with the password that stands in a file.
    fn connect_url(&self) -> Result<String, Failure> {
        let Some(file) = &self.password_file else { return Ok(self.url.clone()) };
        let wrong = |why: String| Failure::usage(format!("database_password_file: {why}"));
        let password = std::fs::read_to_string(file).map_err(|error| wrong(format!("{} cannot be read: {error}", file.display())))?;
        let authority = self.url.find("://").map_or(0, |at| at + 3);
        let end = self.url[authority..].find(['/', '?']).map_or(self.url.len(), |at| authority + at);
        let Some(at) = self.url[authority..end].rfind('@').map(|at| authority + at) else {
            return Err(wrong("database names no user that the password could be of".into()));
        };
        if self.url[authority..at].contains(':') {
            return Err(wrong("database holds a password already".into()));
        }
        let (before, after) = self.url.split_at(at);
        Ok(format!("{before}:{}{after}", percent_encoded(password.trim_end_matches(['\r', '\n']))))
    }
}

fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encoded).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_password_from_a_file_comes_into_the_url_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pw");
        std::fs::write(&file, "p@ss/w:rd ä\n").unwrap();
        let url = |url: &str| OwnDatabase { url: url.into(), password_file: Some(file.clone()) }.connect_url();
        assert_eq!(
            url("postgres://shop@db:5432/shop?sslmode=require").unwrap(),
            "postgres://shop:p%40ss%2Fw%3Ard%20%C3%A4@db:5432/shop?sslmode=require"
        );
        assert!(url("postgres://db/shop").is_err(), "no user");
        assert!(url("postgres://shop:other@db/shop").is_err(), "two passwords");
    }
}
