//! The settings as raw strings in layers: default < file < environment < flag. What they mean is `config`'s business.
//!
//! Every setting is one line of [`SETTINGS`]; a key that is not there is refused with what it may have meant.

use std::collections::BTreeMap;

use mstore_protocol::{Profile, did_you_mean};

use crate::{args::ServeArgs, failure::Failure};

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

/// Where HTTP is by default when it speaks TLS to everybody.
const HTTPS: &str = "127.0.0.1:443";

/// Every setting there is. The environment variable is `MSTORE_` and the key in capitals.
const SETTINGS: &[Setting] = &[
    Setting { key: "data_dir", default: "./mstore-data", doc: "where the database, the keys and the lock live" },
    Setting {
        key: "database",
        default: "",
        doc: "postgres://USER@HOST/DATABASE, without a password; empty: the embedded SQLite in data_dir",
    },
    Setting { key: "database_password_file", default: "", doc: "file with the password of that user" },
    Setting { key: "transaction_window_days", default: "7", doc: "days that a transaction stays on the devices" },
    Setting {
        key: "deletion_keep_days",
        default: "30",
        doc: "days that deletions are remembered: a device away for longer fetches everything",
    },
    Setting { key: "operation_keep_days", default: "60", doc: "days that the bodies of operations are kept; their ids stay for ever" },
    Setting { key: "alarm_keep_days", default: "90", doc: "days that alarms are kept once they are over" },
    Setting { key: "audit_keep_days", default: "400", doc: "days that acts stay in the audit log" },
    Setting {
        key: "ledger_keep_days",
        default: "0",
        doc: "days that movements of the ledger are kept one by one; older ones become one per item, and go to an archive; 0: for ever",
    },
    Setting {
        key: "commits_keep_max",
        default: "1000000",
        doc: "commits of a branch that are remembered, whatever their age: a device further behind fetches everything",
    },
    Setting {
        key: "outbox_per_branch_max",
        default: "10000",
        doc: "frames of a branch that wait for the broker; beyond that devices pull",
    },
    Setting {
        key: "personal_data_refused",
        default: "card,email,phone",
        doc: "kinds of personal data that no row and no operation may hold, or off",
    },
    Setting {
        key: "personal_data_exempt",
        default: "",
        doc: "fields that may hold anything, beside id, sku, barcode, receipt_no and those that end in _id",
    },
    Setting { key: "env", default: "dev", doc: "first level of every topic" },
    Setting { key: "profile", default: "production", doc: "production or development: whether tokens may cross a network in the clear" },
    Setting { key: "listen", default: "127.0.0.1:8080", doc: "HTTP address; 127.0.0.1:443 by default with TLS in the production profile" },
    Setting { key: "mqtt_listen", default: "", doc: "MQTT address; empty: 127.0.0.1:1883, or 8883 with TLS" },
    Setting { key: "ws_listen", default: "127.0.0.1:8083", doc: "MQTT over WebSocket address" },
    Setting {
        key: "broker",
        default: "embedded",
        doc: "embedded, or the URL of a broker: mqtt://host:port, mqtts://host:port; a cluster's nodes with commas between them",
    },
    Setting {
        key: "broker_client_id",
        default: "",
        doc: "our client id at an external broker; empty: mstore-backend-ENV, with a database another one at each start",
    },
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
    Setting {
        key: "broker_kind",
        default: "",
        doc: "mosquitto, rabbitmq, emqx or nats: how this server keeps the devices' accounts there; empty: whoever runs the broker does",
    },
    Setting { key: "broker_admin_username", default: "", doc: "account that keeps the devices' accounts" },
    Setting { key: "broker_admin_password_file", default: "", doc: "file with its password" },
    Setting { key: "broker_admin_url", default: "", doc: "RabbitMQ's management API, EMQX's REST API, or NATS's monitoring" },
    Setting { key: "broker_users_file", default: "", doc: "file of NATS's users" },
    Setting { key: "broker_pid_file", default: "", doc: "file with NATS's process id" },
    Setting { key: "hooks_listen", default: "", doc: "private address where RabbitMQ or EMQX asks who may do what" },
    Setting { key: "hooks_secret_file", default: "", doc: "file with the secret that it shows there" },
    Setting { key: "public_url", default: "", doc: "what devices call over HTTP; empty: the address that is listened on" },
    Setting { key: "public_mqtt_url", default: "", doc: "what devices connect to over MQTT; empty: the broker's address" },
    Setting { key: "public_ws_url", default: "", doc: "the same over WebSocket" },
    Setting { key: "webhook_url", default: "", doc: "where operations of merchants whose backend decides are posted" },
    Setting { key: "webhook_secret_file", default: "", doc: "file with the secret that deliveries are signed with, at least 16 bytes" },
    Setting {
        key: "operation_inbox",
        default: "",
        doc: "on or off: such operations are put into operation_inbox; empty: on with a webhook, else as the database has it",
    },
    Setting {
        key: "device_token_max_age_days",
        default: "0",
        doc: "days after which a till's token is refused; the till rotates it when two thirds are over; 0: never",
    },
    Setting { key: "tls_cert", default: "", doc: "certificate chain, PEM file: HTTP, MQTT and WebSocket speak TLS" },
    Setting { key: "tls_key", default: "", doc: "its private key, PEM file" },
    Setting {
        key: "tls_proxy",
        default: "",
        doc: "proxies that end TLS in front of this server, addresses or networks: their X-Forwarded-For counts",
    },
    Setting { key: "connections_max", default: "20000", doc: "open connections, over HTTP and over MQTT each" },
    Setting { key: "connections_per_address_max", default: "8000", doc: "the same from one address" },
    Setting { key: "requests_max", default: "4096", doc: "HTTP requests worked on at one time" },
    Setting { key: "requests_per_address_max", default: "768", doc: "the same from one address" },
    Setting { key: "login_timeout_s", default: "10", doc: "seconds from an MQTT connection's beginning to its login" },
    Setting { key: "request_timeout_s", default: "30", doc: "seconds for a request's head, and again for its body" },
    Setting { key: "wrong_claims_rate", default: "20+20/min", doc: "wrong claim codes from one address: at once, and from then on" },
    Setting { key: "wrong_logins_rate", default: "600+60/min", doc: "wrong credentials from one address" },
    Setting { key: "uploads_rate", default: "600+1200/min", doc: "uploads of one device" },
    Setting { key: "snapshots_rate", default: "60+30/min", doc: "snapshots of one device" },
    Setting { key: "log", default: "info", doc: "log filter" },
    Setting { key: "log_format", default: "text", doc: "text or json" },
];

/// A raw value and where it came from.
#[derive(Clone, PartialEq, Eq)]
struct Raw {
    value: String,
    from: String,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} (from {})", without_password(&self.value), self.from)
    }
}

/// The raw layers, merged.
#[derive(Debug)]
pub(crate) struct RawConfig(BTreeMap<&'static str, Raw>);

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
        let has_tls = !raw["tls_cert"].value.is_empty() && raw["profile"].value == Profile::Production.as_str();
        if has_tls && raw["listen"].from == "default" {
            raw.insert("listen", Raw { value: HTTPS.to_owned(), from: "default with tls_cert".to_owned() });
        }
        Ok(Self(raw))
    }

    pub(crate) fn get(&self, key: &'static str) -> &str {
        &self.0[key].value
    }

    pub(crate) fn wrong(&self, key: &'static str, why: impl std::fmt::Display) -> Failure {
        Failure::usage(format!("{key} (from {}): {why}", self.0[key].from))
            .next("mstore-sync serve --print-config shows every value and its source")
    }

    /// The values as a TOML file with a comment that names each one's source.
    pub(crate) fn render(&self) -> String {
        SETTINGS.iter().fold(String::new(), |mut out, setting| {
            let raw = &self.0[setting.key];
            // Rust's own way to quote is not TOML's: control characters look otherwise there.
            let value = toml::Value::String(without_password(&raw.value));
            out.push_str(&format!("# {} (from {})\n{} = {value}\n", setting.doc, raw.from.replace(char::is_control, "?"), setting.key));
            out
        })
    }
}

fn flags(args: &ServeArgs) -> Vec<(&'static str, &Option<String>)> {
    vec![
        ("data_dir", &args.data_dir),
        ("database", &args.database.database),
        ("database_password_file", &args.database.database_password_file),
        ("transaction_window_days", &args.retention.transaction_window_days),
        ("deletion_keep_days", &args.retention.deletion_keep_days),
        ("operation_keep_days", &args.retention.operation_keep_days),
        ("alarm_keep_days", &args.retention.alarm_keep_days),
        ("audit_keep_days", &args.retention.audit_keep_days),
        ("personal_data_refused", &args.personal_data.personal_data_refused),
        ("personal_data_exempt", &args.personal_data.personal_data_exempt),
        ("ledger_keep_days", &args.retention.ledger_keep_days),
        ("commits_keep_max", &args.retention.commits_keep_max),
        ("outbox_per_branch_max", &args.retention.outbox_per_branch_max),
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
        ("broker_kind", &args.external.broker_kind),
        ("broker_admin_username", &args.external.broker_admin_username),
        ("broker_admin_password_file", &args.external.broker_admin_password_file),
        ("broker_admin_url", &args.external.broker_admin_url),
        ("broker_users_file", &args.external.broker_users_file),
        ("broker_pid_file", &args.external.broker_pid_file),
        ("hooks_listen", &args.external.hooks_listen),
        ("hooks_secret_file", &args.external.hooks_secret_file),
        ("public_url", &args.external.public_url),
        ("public_mqtt_url", &args.external.public_mqtt_url),
        ("public_ws_url", &args.external.public_ws_url),
        ("webhook_url", &args.backend.webhook_url),
        ("webhook_secret_file", &args.backend.webhook_secret_file),
        ("operation_inbox", &args.backend.operation_inbox),
        ("device_token_max_age_days", &args.device_token_max_age_days),
        ("tls_cert", &args.tls.tls_cert),
        ("tls_key", &args.tls.tls_key),
        ("tls_proxy", &args.tls.tls_proxy),
        ("connections_max", &args.limits.connections_max),
        ("connections_per_address_max", &args.limits.connections_per_address_max),
        ("requests_max", &args.limits.requests_max),
        ("requests_per_address_max", &args.limits.requests_per_address_max),
        ("login_timeout_s", &args.limits.login_timeout_s),
        ("request_timeout_s", &args.limits.request_timeout_s),
        ("wrong_claims_rate", &args.limits.wrong_claims_rate),
        ("wrong_logins_rate", &args.limits.wrong_logins_rate),
        ("uploads_rate", &args.limits.uploads_rate),
        ("snapshots_rate", &args.limits.snapshots_rate),
        ("log", &args.log),
        ("log_format", &args.log_format),
    ]
}

/// The settings of a file, in its order.
pub(crate) fn parse_file(text: &str) -> Result<Vec<(&'static str, String)>, String> {
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

/// A URL as it may be shown: what stands between its user and its host is nobody's business.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let hidden = without_secret_parameters(rest);
    let rest = hidden.as_str();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, password)) = authority.rsplit_once('@').and_then(|(who, _)| who.split_once(':')) else {
        return format!("{scheme}://{rest}");
    };
    let after = &rest[user.len() + 1 + password.len()..];
    format!("{scheme}://{user}:***{after}")
}

/// PostgreSQL takes passwords as parameters too.
fn without_secret_parameters(rest: &str) -> String {
    let Some((path, query)) = rest.split_once('?') else { return rest.to_owned() };
    let hide = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().ends_with("password") => format!("{name}=***"),
        Some(_) | None => parameter.to_owned(),
    };
    format!("{path}?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_printed_is_a_valid_file_whatever_the_values() {
        for odd in ["a\u{7f}b", "a\0b", "it's \"quoted\"", "two\nlines", "C:\\shop", "\u{1b}[31m", "ä😀"] {
            let env = |name: &str| (name == "MSTORE_LOG").then(|| odd.to_owned());
            let shown = RawConfig::merge(&ServeArgs::default(), env).unwrap().render();
            assert!(parse_file(&shown).unwrap().contains(&("log", odd.to_owned())), "{shown}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for (url, shown) in [
            ("postgres://shop:s3cret@db/shop", "postgres://shop:***@db/shop"),
            ("postgres://shop:p@ss:w@db:5432/shop?sslmode=require", "postgres://shop:***@db:5432/shop?sslmode=require"),
            ("postgres://shop@db/shop", "postgres://shop@db/shop"),
            ("postgres://shop@db/shop?password=s3cret&sslmode=require", "postgres://shop@db/shop?password=***&sslmode=require"),
            ("postgres://shop:p@db/shop?sslpassword=s3cret", "postgres://shop:***@db/shop?sslpassword=***"),
            ("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:1883"),
            ("./data", "./data"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_what_it_may_have_meant() {
        assert_eq!(parse_file("mqtt_lisen = \"x\"").unwrap_err(), "unknown key \"mqtt_lisen\"; did you mean \"mqtt_listen\"?");
        assert!(parse_file("colour = \"x\"").unwrap_err().contains("known: data_dir"));
        assert!(parse_file("listen = 8080").unwrap_err().contains("takes a string"));
    }

    #[test]
    fn what_is_printed_is_all_of_it() {
        let shown = RawConfig::merge(&ServeArgs::default(), |_| None).unwrap().render();
        assert_eq!(parse_file(&shown).unwrap().len(), SETTINGS.len(), "what is printed is a valid file");
    }
}
