//! Connections: where to, how secured, and with which settings every session begins.

use std::{path::PathBuf, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::{
    Client, Config, Connection, Socket,
    config::{SslMode, TargetSessionAttrs},
};

use super::{
    PgConfig,
    error::{PgOpenError, described},
    tls::{Check, Stream, Tls},
};

/// A dead peer is noticed after this time.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// A session that stands still inside a transaction, or takes nothing of an answer, is ended by the database after this time: a frozen server holds nobody
/// up for longer.
pub(super) const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(3);

/// Where to and how.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: Tls,
    begin: String,
}

impl Connector {
    /// Reads the URL.
    pub(super) fn new(config: &PgConfig) -> Result<Self, PgOpenError> {
        let (url, tls) = split(&config.url).map_err(PgOpenError::Url)?;
        let mut parsed: Config = url.parse().map_err(|error: tokio_postgres::Error| PgOpenError::Url(described(&error)))?;
        parsed
            .ssl_mode(tls.mode)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(TCP_TIMEOUT)
            .tcp_user_timeout(TCP_TIMEOUT)
            .keepalives_idle(TCP_TIMEOUT)
            .keepalives_interval(TCP_TIMEOUT);
        if parsed.get_application_name().is_none() {
            parsed.application_name("mstore-sync");
        }
        // row_security off: a policy that would hide rows from us is an error, never a deletion on the devices.
        let begin = format!(
            "SET search_path = mstore; SET row_security = off; SET TimeZone = 'UTC'; SET client_min_messages = warning; SET jit = off; SET extra_float_digits = 1; \
             SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; SET tcp_user_timeout = {}; SET default_transaction_isolation = 'read committed'",
            config.lock_timeout.as_millis(),
            IDLE_IN_TRANSACTION.as_millis(),
            IDLE_IN_TRANSACTION.as_millis(),
        );
        Ok(Self { config: parsed, tls: Tls::new(tls.check, tls.roots.as_deref()).map_err(PgOpenError::Url)?, begin })
    }

    /// A connection whose messages the caller reads.
    pub(super) async fn connection(&self) -> Result<(Client, Connection<Socket, Stream<Socket>>), tokio_postgres::Error> {
        self.config.connect(self.tls.clone()).await
    }

    /// One connection of one's own; it ends with its client.
    pub(super) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.connection().await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(error = described(&error), "connection to the database lost");
            }
        });
        client.batch_execute(&self.begin).await?;
        Ok(client)
    }

    /// Connections that are shared; `also` is said at the beginning of each, beside what every session begins with.
    pub(super) fn pool(&self, size: usize, also: &str) -> Result<Pool, PgOpenError> {
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), manager);
        let begin = format!("{}; {also}", self.begin);
        Pool::builder(manager)
            .max_size(size.max(1))
            .post_create(deadpool_postgres::Hook::async_fn(move |client, _| {
                let begin = begin.clone();
                Box::pin(async move { client.batch_execute(&begin).await.map_err(deadpool_postgres::HookError::Backend) })
            }))
            .build()
            .map_err(|error| PgOpenError::Unreachable(error.to_string()))
    }
}

/// What the URL says about TLS, for tokio-postgres knows only a part of it.
struct TlsWanted {
    mode: SslMode,
    check: Check,
    roots: Option<PathBuf>,
}

/// Takes `sslmode` and `sslrootcert` out of a URL or a list of settings.
fn split(url: &str) -> Result<(String, TlsWanted), String> {
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let (base, list, separator) = match url.split_once('?') {
        Some((base, list)) if is_url => (base, list, '&'),
        _no_query if is_url => (url, "", '&'),
        _settings => ("", url, ' '),
    };
    let mut wanted = TlsWanted { mode: SslMode::Prefer, check: Check::Nothing, roots: None };
    let mut others = Vec::new();
    for setting in list.split(separator).filter(|setting| !setting.is_empty()) {
        match setting.split_once('=') {
            Some(("sslmode", mode)) => (wanted.mode, wanted.check) = ssl_mode(mode)?,
            Some(("sslrootcert", "system")) => wanted.roots = None,
            Some(("sslrootcert", file)) => wanted.roots = Some(PathBuf::from(percent_decoded(file))),
            _other => others.push(setting),
        }
    }
    // As libpq has it: whoever names authorities wants them asked.
    if wanted.roots.is_some() && wanted.mode == SslMode::Require && wanted.check == Check::Nothing {
        wanted.check = Check::Authority;
    }
    let others = others.join(&separator.to_string());
    let rest = match (is_url, others.is_empty()) {
        (true, true) => base.to_owned(),
        (true, false) => format!("{base}?{others}"),
        (false, _) => others,
    };
    Ok((rest, wanted))
}

fn ssl_mode(mode: &str) -> Result<(SslMode, Check), String> {
    Ok(match mode {
        "disable" => (SslMode::Disable, Check::Nothing),
        "prefer" => (SslMode::Prefer, Check::Nothing),
        "require" => (SslMode::Require, Check::Nothing),
        "verify-ca" => (SslMode::Require, Check::Authority),
        "verify-full" => (SslMode::Require, Check::Host),
        other => return Err(format!("sslmode={other}; it is one of disable, prefer, require, verify-ca, verify-full")),
    })
}

fn percent_decoded(raw: &str) -> String {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let hex = others.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        (bytes, rest) = match hex.filter(|_| first == b'%') {
            Some(byte) => ([bytes, vec![byte]].concat(), &others[2..]),
            None => ([bytes, vec![first]].concat(), others),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_url_says_how_the_connection_is_secured() {
        for (url, rest, mode, check, roots) in [
            ("postgres://u:p@h/d", "postgres://u:p@h/d", SslMode::Prefer, Check::Nothing, None),
            (
                "postgres://h/d?sslmode=verify-full&connect_timeout=3",
                "postgres://h/d?connect_timeout=3",
                SslMode::Require,
                Check::Host,
                None,
            ),
            (
                "postgres://h/d?sslmode=require&sslrootcert=/a%20b.pem",
                "postgres://h/d",
                SslMode::Require,
                Check::Authority,
                Some("/a b.pem"),
            ),
            ("host=h user=u sslmode=disable", "host=h user=u", SslMode::Disable, Check::Nothing, None),
            ("postgresql://h/d?sslmode=verify-ca", "postgresql://h/d", SslMode::Require, Check::Authority, None),
        ] {
            let (left, wanted) = split(url).unwrap();
            assert_eq!((left.as_str(), wanted.mode, wanted.check), (rest, mode, check), "{url}");
            assert_eq!(wanted.roots, roots.map(PathBuf::from), "{url}");
            assert!(left.parse::<Config>().is_ok(), "{url}");
        }
        assert!(split("postgres://h/d?sslmode=maybe").is_err());
    }
}
