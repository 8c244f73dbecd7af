//! The configuration, checked: what the raw settings mean to the server.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use mstore_protocol::{Env, PersonalData, Profile, ProfileError};
use mstore_server::PublicUrls;

use crate::{
    args::address,
    backend_config::BackendWay,
    broker_config::ExternalBroker,
    failure::Failure,
    limits_config::Limits,
    settings::{RawConfig, without_password},
    tls_config::TlsWay,
};

/// What the server may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    /// `None`: the embedded SQLite.
    pub(crate) database: Option<OwnDatabase>,
    pub(crate) retention: Retention,
    pub(crate) personal_data: PersonalData,
    pub(crate) env: Env,
    pub(crate) profile: Profile,
    pub(crate) listen: SocketAddr,
    pub(crate) mqtt_listen: SocketAddr,
    pub(crate) ws_listen: SocketAddr,
    pub(crate) tls: TlsWay,
    pub(crate) limits: Limits,
    /// `None`: the embedded broker.
    pub(crate) broker: Option<ExternalBroker>,
    pub(crate) public: PublicUrls,
    /// To merchants' backends that decide.
    pub(crate) backend: BackendWay,
    /// `None`: a till's token has no end.
    pub(crate) device_token_max_age: Option<Duration>,
    pub(crate) log: String,
    pub(crate) log_json: bool,
}

/// A PostgreSQL of the customer's.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OwnDatabase {
    /// As it was given; it may hold a password.
    pub(crate) url: String,
    pub(crate) password_file: Option<PathBuf>,
}

impl std::fmt::Debug for OwnDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, password_file } = self;
        f.debug_struct("OwnDatabase").field("url", &without_password(url)).field("password_file", password_file).finish()
    }
}

/// What is kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) transaction_window_days: u32,
    pub(crate) deletion_keep_days: u32,
    pub(crate) operation_keep_days: u32,
    pub(crate) alarm_keep_days: u32,
    pub(crate) audit_keep_days: u32,
    pub(crate) ledger_keep_days: u32,
    pub(crate) commits_keep_max: u32,
    pub(crate) outbox_per_branch_max: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            transaction_window_days: 7,
            deletion_keep_days: 30,
            operation_keep_days: 60,
            alarm_keep_days: 90,
            audit_keep_days: 400,
            ledger_keep_days: 0,
            commits_keep_max: 1_000_000,
            outbox_per_branch_max: 10_000,
        }
    }
}

/// Ten years: what is kept longer belongs into an archive.
const DAYS_MAX: u32 = 3_660;
/// A till that was away hands in what it sold and counted meanwhile; a count from before the closing says nothing any more.
const LEDGER_DAYS_MIN: u32 = 30;
/// About 1 GB of frames at a few hundred bytes each, for every branch.
const OUTBOX_MAX: u32 = 1_000_000;
/// About 6 GB for every branch that has so many.
const COMMITS_MAX: u32 = 100_000_000;

impl RawConfig {
    fn number(&self, key: &'static str, min: u32, max: u32) -> Result<u32, Failure> {
        match self.get(key).parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _other => Err(self.wrong(key, format!("{:?} is not a number from {min} to {max}", self.get(key)))),
        }
    }

    fn device_token_max_age(&self) -> Result<Option<Duration>, Failure> {
        let days = self.number("device_token_max_age_days", 0, DAYS_MAX)?;
        Ok((days > 0).then(|| Duration::from_secs(u64::from(days) * 86_400)))
    }

    fn retention(&self) -> Result<Retention, Failure> {
        let number = |key, min, max| self.number(key, min, max);
        let days = |key| number(key, 1, DAYS_MAX);
        let (transaction_window_days, operation_keep_days) = (days("transaction_window_days")?, days("operation_keep_days")?);
        let ledger_keep_days = number("ledger_keep_days", 0, DAYS_MAX)?;
        if (1..LEDGER_DAYS_MIN).contains(&ledger_keep_days) {
            let why = format!("{ledger_keep_days} is neither 0, for ever, nor {LEDGER_DAYS_MIN} or more: tills may be away for that long");
            return Err(self.wrong("ledger_keep_days", why));
        }
        let outbox_per_branch_max = number("outbox_per_branch_max", 1, OUTBOX_MAX)?;
        Ok(Retention {
            transaction_window_days,
            deletion_keep_days: days("deletion_keep_days")?,
            operation_keep_days,
            alarm_keep_days: days("alarm_keep_days")?,
            audit_keep_days: days("audit_keep_days")?,
            ledger_keep_days,
            commits_keep_max: number("commits_keep_max", 1, COMMITS_MAX)?,
            outbox_per_branch_max: usize::try_from(outbox_per_branch_max).unwrap_or(usize::MAX),
        })
    }

    fn personal_data(&self) -> Result<PersonalData, Failure> {
        const REFUSED: &str = "personal_data_refused";
        PersonalData::parse(self.get(REFUSED), self.get("personal_data_exempt")).map_err(|why| self.wrong(REFUSED, why))
    }

    fn database(&self) -> Result<Option<OwnDatabase>, Failure> {
        const PASSWORD: &str = "database_password_file";
        let password_file = Some(self.get(PASSWORD)).filter(|path| !path.is_empty()).map(PathBuf::from);
        let url = self.get("database");
        if url.is_empty() {
            return match password_file {
                None => Ok(None),
                Some(_) => Err(self.wrong(PASSWORD, "there is no database that it is for; set database too")),
            };
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(self.wrong("database", format!("{:?} is not postgres://USER@HOST/DATABASE", without_password(url))));
        }
        Ok(Some(OwnDatabase { url: url.to_owned(), password_file }))
    }

    /// Checks every value.
    pub(crate) fn check(&self) -> Result<Config, Failure> {
        let broker = ExternalBroker::check(|key| self.get(key)).map_err(|(key, why)| self.wrong(key, why))?;
        let tls = TlsWay::check(self)?;
        let log_json = match self.get("log_format") {
            "text" => false,
            "json" => true,
            other => return Err(self.wrong("log_format", format!("{other:?} is neither text nor json"))),
        };
        let profile: Profile = self.get("profile").parse().map_err(|why: ProfileError| self.wrong("profile", why))?;
        let listen = |key, is_used: bool| {
            let value = if self.get(key).is_empty() { tls.default_mqtt_listen() } else { self.get(key) };
            let addr = address(key, value).map_err(|why| self.wrong(key, why))?;
            if is_used {
                tls.check_listener(self, key, addr, profile)?;
            }
            Ok::<_, Failure>(addr)
        };
        let is_embedded = broker.is_none();
        Ok(Config {
            data_dir: PathBuf::from(self.get("data_dir")),
            database: self.database()?,
            retention: self.retention()?,
            personal_data: self.personal_data()?,
            env: Env::parse(self.get("env")).map_err(|why| self.wrong("env", why))?,
            profile,
            listen: listen("listen", true)?,
            mqtt_listen: listen("mqtt_listen", is_embedded)?,
            ws_listen: listen("ws_listen", is_embedded)?,
            limits: Limits::check(|key| self.get(key)).map_err(|(key, why)| self.wrong(key, why))?,
            tls,
            broker,
            public: PublicUrls {
                http: self.url("public_url", &["http", "https"])?,
                mqtt: self.url("public_mqtt_url", &["mqtt", "mqtts"])?,
                ws: self.url("public_ws_url", &["ws", "wss"])?,
            },
            backend: BackendWay::check(profile, |key| self.get(key)).map_err(|(key, why)| self.wrong(key, why))?,
            device_token_max_age: self.device_token_max_age()?,
            log: self.get("log").to_owned(),
            log_json,
        })
    }

    fn url(&self, key: &'static str, schemes: &[&str]) -> Result<Option<String>, Failure> {
        let raw = self.get(key).trim_end_matches('/');
        if raw.is_empty() {
            return Ok(None);
        }
        let known = raw.split_once("://").is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty());
        if known { Ok(Some(raw.to_owned())) } else { Err(self.wrong(key, format!("{raw:?} is not {}://HOST", schemes.join(":// or ")))) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::ServeArgs;

    fn with_file(text: &str) -> ServeArgs {
        let file = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
        std::fs::write(&file, text).unwrap();
        ServeArgs { config: Some(file), ..ServeArgs::default() }
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        let mut args = with_file("env = \"staging\"\nlisten = \"127.0.0.1:1\"\nlog = \"debug\"\n");
        args.listen = Some("127.0.0.1:3".into());
        let env = |name: &str| {
            (name == "MSTORE_LISTEN" || name == "MSTORE_ENV").then(|| if name == "MSTORE_ENV" { "qa".into() } else { "127.0.0.1:2".into() })
        };
        let raw = RawConfig::merge(&args, env).unwrap();
        let config = raw.check().unwrap();
        assert_eq!(config.listen.port(), 3);
        assert_eq!(config.env.as_str(), "qa");
        assert_eq!(config.log, "debug");
        assert_eq!(config.ws_listen.port(), 8083);
        let shown = raw.render();
        assert!(shown.contains("(from --listen)") && shown.contains("(from MSTORE_ENV)") && shown.contains("(from default)"), "{shown}");
    }

    #[test]
    fn wrong_values_are_refused() {
        for text in [
            "listen = \"8080\"",
            "env = \"a/b\"",
            "profile = \"prod\"",
            "log_format = \"xml\"",
            "tls_cert = \"a.pem\"",
            "tls_proxy = \"proxy.example\"",
            "listen = \"0.0.0.0:8080\"",
            "mqtt_listen = \"10.0.0.7:1883\"",
            "ws_listen = \"[::]:8083\"",
            "snapshots_rate = \"many\"",
            "login_timeout_s = \"0\"",
            "database = \"mysql://x\"",
            "transaction_window_days = \"0\"",
            "alarm_keep_days = \"-1\"",
            "audit_keep_days = \"0\"",
            "device_token_max_age_days = \"-1\"",
            "ledger_keep_days = \"7\"",
            "commits_keep_max = \"0\"",
            "outbox_per_branch_max = \"many\"",
            "database_password_file = \"pw\"",
            "broker = \"amqp://x\"",
            "public_mqtt_url = \"broker.example\"",
        ] {
            let raw = RawConfig::merge(&with_file(text), |_| None).unwrap();
            assert!(raw.check().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_kept_by_default_is_what_the_settings_say() {
        assert_eq!(RawConfig::merge(&ServeArgs::default(), |_| None).unwrap().check().unwrap().retention, Retention::default());
    }

    #[test]
    fn a_database_of_ones_own_keeps_its_password_to_itself() {
        let args = with_file("database = \"postgres://shop:s3cret@db/shop\"");
        let raw = RawConfig::merge(&args, |_| None).unwrap();
        let database = raw.check().unwrap().database.unwrap();
        assert_eq!(database.url, "postgres://shop:s3cret@db/shop");
        assert!(!raw.render().contains("s3cret") && !format!("{:?}", raw.check().unwrap()).contains("s3cret"));
    }

    #[test]
    fn with_tls_the_ports_are_those_that_everybody_knows() {
        let ports = |text: &str| {
            let config = RawConfig::merge(&with_file(text), |_| None).unwrap().check().unwrap();
            (config.listen.port(), config.mqtt_listen.port(), config.ws_listen.port())
        };
        let tls = "tls_cert = \"c\"\ntls_key = \"k\"";
        assert_eq!(ports(""), (8080, 1883, 8083));
        assert_eq!(ports(tls), (443, 8883, 8083));
        assert_eq!(ports(&format!("{tls}\nprofile = \"development\"")), (8080, 8883, 8083));
    }

    #[test]
    fn in_production_nothing_listens_in_the_clear_for_other_machines() {
        let check = |text: &str| RawConfig::merge(&with_file(text), |_| None).unwrap().check();
        let open = "listen = \"0.0.0.0:8080\"\nmqtt_listen = \"0.0.0.0:1883\"\nws_listen = \"[::]:8083\"\n";
        let refused = format!("{:?}", check(open).unwrap_err());
        assert!(
            ["0.0.0.0:8080", "insecure_listener", "tls_cert", "tls_proxy", "development"].iter().all(|part| refused.contains(part)),
            "{refused}"
        );
        for fine in ["profile = \"development\"", "tls_proxy = \"10.0.0.1, ::ffff:10.0.0.2\"", "tls_cert = \"c\"\ntls_key = \"k\""] {
            assert!(check(&format!("{open}{fine}")).is_ok(), "{fine}");
        }
        assert!(check("listen = \"127.0.0.2:8080\"\nmqtt_listen = \"[::1]:1883\"").is_ok());
        // Nobody listens there.
        assert!(check("broker = \"mqtts://broker.example\"\nmqtt_listen = \"0.0.0.0:1883\"").is_ok());
    }
}
