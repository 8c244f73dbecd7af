//! A PostgreSQL database for one benchmark: made beside the one that was named, and dropped after it.

use tokio_postgres::{Client, NoTls, error::SqlState};

use crate::failure::Failure;

/// Where a benchmark may do what it likes.
pub(super) struct Scratch {
    url: String,
    given: String,
    /// None: the role may make none, so the schema is made in the database that was named.
    made: Option<String>,
}

impl Scratch {
    /// Makes it with the rights of the role in the URL.
    pub(super) async fn make(given: &str) -> Result<Self, Failure> {
        let client = connect(given).await?;
        let name = format!("mstore_bench_{}", std::process::id());
        match client.batch_execute(&format!("CREATE DATABASE {name}")).await {
            Ok(()) => Ok(Self { url: beside(given, &name), given: given.to_owned(), made: Some(name) }),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Self::within(given, &client).await,
            Err(error) => Err(failed(&error)),
        }
    }

    async fn within(given: &str, client: &Client) -> Result<Self, Failure> {
        let exists = client.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = 'mstore'", &[]).await;
        if exists.map_err(|error| failed(&error))?.is_some() {
            let next = "name a role that may create databases, or a database without a schema `mstore`";
            return Err(Failure::usage("a benchmark does not touch data: this database has a schema `mstore`").next(next));
        }
        Ok(Self { url: given.to_owned(), given: given.to_owned(), made: None })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Takes it away, whoever is still connected.
    pub(super) async fn remove(self) -> Result<(), Failure> {
        let drop = match &self.made {
            Some(name) => format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            None => "DROP SCHEMA IF EXISTS mstore CASCADE".to_owned(),
        };
        connect(&self.given).await?.batch_execute(&drop).await.map_err(|error| failed(&error))
    }
}

/// A connection; it ends with its client.
pub(super) async fn connect(url: &str) -> Result<Client, Failure> {
    let unreachable = |error: tokio_postgres::Error| {
        let next = "--database postgres://USER:PASSWORD@HOST/DATABASE; benchmarks speak to it without TLS";
        Failure::unavailable(format!("the database: {}", described(&error))).next(next)
    };
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(unreachable)?;
    tokio::spawn(connection);
    Ok(client)
}

pub(super) fn failed(error: &tokio_postgres::Error) -> Failure {
    Failure::check(format!("SQL: {}", described(error)))
}

/// With what the server said: the error itself only says whose it is.
fn described(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string), ToString::to_string)
}

/// The same server, role and settings, another database.
fn beside(url: &str, name: &str) -> String {
    let (address, settings) = url.split_once('?').map_or((url, String::new()), |(address, settings)| (address, format!("?{settings}")));
    let authority = address.find("://").map_or(0, |at| at + "://".len());
    let end = address[authority..].find('/').map_or(address.len(), |at| authority + at);
    format!("{}/{name}{settings}", &address[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_beside_another() {
        assert_eq!(beside("postgres://u:p@h:1/shop?sslmode=disable", "x"), "postgres://u:p@h:1/x?sslmode=disable");
        assert_eq!(beside("postgresql://u@h", "x"), "postgresql://u@h/x");
    }
}
