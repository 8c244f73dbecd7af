//! Configuration in two steps: raw strings in layers (default < file < environment < flag), then checked values.
//!
//! Every setting is one line of [`SETTINGS`]; a key that is not there is refused with what it may have meant.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use mstore_protocol::{Env, Profile, ProfileError, did_you_mean};
use mstore_server::PublicUrls;

use crate::{
    args::{ServeArgs, address},
    broker_config::ExternalBroker,
    failure::Failure,
};

/// One setting: key in the file, default, meaning.
struct Setting {
    key: &'static str,
    default: &'static str,
    doc: &'static str,
}

/// The variables of all settings.
pub(crate) fn variables() -> impl Iterator<Item = String> {
    SETTINGS.iter().map(|setting| variable(setting.key))
}

fn variable(key: &str) -> String {
    format!("MSTORE_{}", key.to_uppercase())
}

/// Every setting there is. The environment variable is `MSTORE_` and the key in capitals.
const SETTINGS: &[Setting] = &[
    Setting { key: "data_dir", default: "./mstore-data", doc: "where the database, the keys and the lock live" },
    Setting { key: "database", default: "", doc: "database URL; empty: the embedded SQLite in data_dir" },
    Setting { key: "env", default: "dev", doc: "first level of every topic" },
    Setting { key: "profile", default: "production", doc: "production or development: whether tokens may cross a network in the clear" },
    Setting { key: "listen", default: "127.0.0.1:8080", doc: "HTTP address" },
    Setting { key: "mqtt_listen", default: "", doc: "MQTT address; empty: 127.0.0.1:1883, or 8883 with TLS" },
    Setting { key: "ws_listen", default: "127.0.0.1:8083", doc: "MQTT over WebSocket address" },
    Setting { key: "broker", default: "embedded", doc: "embedded, or the URL of a broker: mqtt://host:port, mqtts://host:port" },
    Setting { key: "broker_client_id", default: "", doc: "our client id at an external broker; empty: mstore-backend-ENV" },
    Setting { key: "broker_username", default: "", doc: "our account at an external broker" },
    Setting { key: "broker_password_file", default: "", doc: "file with its password" },
    Setting { key: "broker_ca", default: "", doc: "authorities of an mqtts:// broker, PEM file; empty: the system's" },
    Setting { key: "broker_cert", default: "", doc: "our certificate chain at an mqtts:// broker, PEM file" },
    Setting { key: "broker_key", default: "", doc: "its private key, PEM file" },
    Setting {
        key: "broker_canary_username",
        default: "",
        doc: "account that may read env/devices/canary/…: tells whether the broker forwards",
    },
    Setting { key: "broker_canary_password_file", default: "", doc: "file with its password" },
    Setting { key: "public_url", default: "", doc: "what devices call over HTTP; empty: the address that is listened on" },
    Setting { key: "public_mqtt_url", default: "", doc: "what devices connect to over MQTT; empty: the broker's address" },
    Setting { key: "public_ws_url", default: "", doc: "the same over WebSocket" },
    Setting { key: "tls_cert", default: "", doc: "certificate chain of the MQTT listener, PEM file" },
    Setting { key: "tls_key", default: "", doc: "private key of the MQTT listener, PEM file" },
    Setting { key: "log", default: "info", doc: "log filter" },
    Setting { key: "log_format", default: "text", doc: "text or json" },
];

/// A raw value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Raw {
    value: String,
    from: String,
}

/// The raw layers, merged.
#[derive(Debug)]
pub(crate) struct RawConfig(BTreeMap<&'static str, Raw>);

/// What the server may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) env: Env,
    pub(crate) profile: Profile,
    pub(crate) listen: SocketAddr,
    pub(crate) mqtt_listen: SocketAddr,
    pub(crate) ws_listen: SocketAddr,
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// `None`: the embedded broker.
    pub(crate) broker: Option<ExternalBroker>,
    pub(crate) public: PublicUrls,
    pub(crate) log: String,
    pub(crate) log_json: bool,
}

impl RawConfig {
    /// Merges the layers; `env` gives the value of an environment variable.
    pub(crate) fn merge(args: &ServeArgs, env: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let mut raw: BTreeMap<_, _> =
            SETTINGS.iter().map(|s| (s.key, Raw { value: s.default.to_owned(), from: "default".to_owned() })).collect();
        if let Some(path) = &args.config {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("the configuration file {} cannot be read: {error}", path.display())))?;
            for (key, value) in parse_file(&text).map_err(|why| Failure::usage(format!("{}: {why}", path.display())))? {
                raw.insert(key, Raw { value, from: path.display().to_string() });
            }
        }
        for setting in SETTINGS {
            let name = variable(setting.key);
            if let Some(value) = env(&name) {
                raw.insert(setting.key, Raw { value, from: name });
            }
        }
        for (key, value) in flags(args) {
            if let Some(value) = value {
                raw.insert(key, Raw { value: value.clone(), from: format!("--{}", key.replace('_', "-")) });
            }
        }
        Ok(Self(raw))
    }

    fn get(&self, key: &'static str) -> &str {
        &self.0[key].value
    }

    fn wrong(&self, key: &'static str, why: impl std::fmt::Display) -> Failure {
        Failure::usage(format!("{key} (from {}): {why}", self.0[key].from))
            .next("mstore-sync serve --print-config shows every value and its source")
    }

    /// Checks every value.
    pub(crate) fn check(&self) -> Result<Config, Failure> {
        if !self.get("database").is_empty() {
            return Err(self.wrong("database", "this build keeps its data in the embedded SQLite only; leave it empty"));
        }
        let broker = ExternalBroker::check(|key| self.get(key)).map_err(|(key, why)| self.wrong(key, why))?;
        let tls = match (self.get("tls_cert"), self.get("tls_key")) {
            ("", "") => None,
            ("", _) => return Err(self.wrong("tls_key", "a key without a certificate; set tls_cert too")),
            (_, "") => return Err(self.wrong("tls_cert", "a certificate without a key; set tls_key too")),
            (cert, key) => Some((PathBuf::from(cert), PathBuf::from(key))),
        };
        let mqtt_default = if tls.is_some() { "127.0.0.1:8883" } else { "127.0.0.1:1883" };
        let mqtt = if self.get("mqtt_listen").is_empty() { mqtt_default } else { self.get("mqtt_listen") };
        let log_json = match self.get("log_format") {
            "text" => false,
            "json" => true,
            other => return Err(self.wrong("log_format", format!("{other:?} is neither text nor json"))),
        };
        let addr = |key, value| address(key, value).map_err(|why| self.wrong(key, why));
        Ok(Config {
            data_dir: PathBuf::from(self.get("data_dir")),
            env: Env::parse(self.get("env")).map_err(|why| self.wrong("env", why))?,
            profile: self.get("profile").parse().map_err(|why: ProfileError| self.wrong("profile", why))?,
            listen: addr("listen", self.get("listen"))?,
            mqtt_listen: addr("mqtt_listen", mqtt)?,
            ws_listen: addr("ws_listen", self.get("ws_listen"))?,
            tls,
            broker,
            public: PublicUrls {
                http: self.url("public_url", &["http", "https"])?,
                mqtt: self.url("public_mqtt_url", &["mqtt", "mqtts"])?,
                ws: self.url("public_ws_url", &["ws", "wss"])?,
            },
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

    /// The values as a TOML file with a comment that names each one's source.
    pub(crate) fn render(&self) -> String {
        SETTINGS.iter().fold(String::new(), |mut out, setting| {
            let raw = &self.0[setting.key];
            out.push_str(&format!("# {} (from {})\n{} = {:?}\n", setting.doc, raw.from, setting.key, raw.value));
            out
        })
    }
}

fn flags(args: &ServeArgs) -> [(&'static str, &Option<String>); 23] {
    [
        ("data_dir", &args.data_dir),
        ("database", &args.database),
        ("env", &args.env),
        ("profile", &args.profile),
        ("listen", &args.listen),
        ("mqtt_listen", &args.mqtt_listen),
        ("ws_listen", &args.ws_listen),
        ("broker", &args.broker),
        ("broker_client_id", &args.external.broker_client_id),
        ("broker_username", &args.external.broker_username),
        ("broker_password_file", &args.external.broker_password_file),
        ("broker_ca", &args.external.broker_ca),
        ("broker_cert", &args.external.broker_cert),
        ("broker_key", &args.external.broker_key),
        ("broker_canary_username", &args.external.broker_canary_username),
        ("broker_canary_password_file", &args.external.broker_canary_password_file),
        ("public_url", &args.external.public_url),
        ("public_mqtt_url", &args.external.public_mqtt_url),
        ("public_ws_url", &args.external.public_ws_url),
        ("tls_cert", &args.tls_cert),
        ("tls_key", &args.tls_key),
        ("log", &args.log),
        ("log_format", &args.log_format),
    ]
}

fn parse_file(text: &str) -> Result<Vec<(&'static str, String)>, String> {
    let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    table.into_iter().map(|(key, value)| setting_of(&key, &value)).collect()
}

fn setting_of(key: &str, value: &toml::Value) -> Result<(&'static str, String), String> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
        return Err(format!("unknown key {key:?}; {}", did_you_mean(key, SETTINGS.iter().map(|setting| setting.key))));
    };
    let text = value.as_str().ok_or_else(|| format!("{key} takes a string, not {}", value.type_str()))?;
    Ok((setting.key, text.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
        assert_eq!(parse_file(&shown).unwrap().len(), SETTINGS.len(), "what is printed is a valid file");
    }

    #[test]
    fn an_unknown_key_is_named_with_what_it_may_have_meant() {
        assert_eq!(parse_file("mqtt_lisen = \"x\"").unwrap_err(), "unknown key \"mqtt_lisen\"; did you mean \"mqtt_listen\"?");
        assert!(parse_file("colour = \"x\"").unwrap_err().contains("known: data_dir"));
        assert!(parse_file("listen = 8080").unwrap_err().contains("takes a string"));
    }

    #[test]
    fn wrong_values_are_refused() {
        for text in [
            "listen = \"8080\"",
            "env = \"a/b\"",
            "profile = \"prod\"",
            "log_format = \"xml\"",
            "tls_cert = \"a.pem\"",
            "database = \"postgres://x\"",
            "broker = \"amqp://x\"",
            "public_mqtt_url = \"broker.example\"",
        ] {
            let raw = RawConfig::merge(&with_file(text), |_| None).unwrap();
            assert!(raw.check().is_err(), "{text}");
        }
    }

    #[test]
    fn with_tls_the_mqtt_port_is_8883() {
        let args = with_file("tls_cert = \"c\"\ntls_key = \"k\"");
        assert_eq!(RawConfig::merge(&args, |_| None).unwrap().check().unwrap().mqtt_listen.port(), 8883);
    }
}
