//! The settings that say who makes devices' accounts at an external broker: whoever runs it, or this server, and how.

use std::{net::SocketAddr, path::PathBuf};

use mstore_broker::{BrokerUrl, EmqxApi, ExternalConfig, Login, NatsConfig, RabbitMqApi};
use mstore_server::{BrokerAccounts, HooksConfig, HooksSecret};

use crate::broker_config::{Wrong, login, read_secret};

/// Who makes the accounts, and the settings for it; files are read when the server starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// Whoever runs the broker.
    Operators,
    /// Mosquitto's plugin is told by this account.
    Mosquitto(Admin),
    /// RabbitMQ asks here; its management API ends sessions.
    RabbitMq(Asked, Api),
    /// EMQX asks here; its REST API ends sessions.
    Emqx(Asked, Api),
    /// NATS reads its users from a file: that, the file of its process id, and the URL of its monitoring.
    Nats(PathBuf, PathBuf, String),
}

/// A name and the file of its password.
pub(crate) type Admin = (String, PathBuf);

/// A listener and the file of what is shown there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    listen: SocketAddr,
    secret_file: PathBuf,
}

/// A way to the broker beside MQTT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Api {
    url: String,
    admin: Admin,
}

const KIND: &str = "broker_kind";
const NAME: &str = "broker_admin_username";
const PASSWORD: &str = "broker_admin_password_file";
const URL: &str = "broker_admin_url";
const HOOKS: &str = "hooks_listen";
const SECRET: &str = "hooks_secret_file";
const USERS: &str = "broker_users_file";
const PID: &str = "broker_pid_file";

impl Keeping {
    /// The settings that are read here.
    pub(crate) const KEYS: [&str; 8] = [KIND, NAME, PASSWORD, URL, HOOKS, SECRET, USERS, PID];

    pub(crate) fn check<'a>(get: impl Fn(&'static str) -> &'a str) -> Result<Self, Wrong> {
        let kind = get(KIND);
        let needed = |key: &'static str| match get(key) {
            "" => Err((key, format!("broker_kind {kind} needs it; see: mstore-sync broker setup {kind}"))),
            value => Ok(value.to_owned()),
        };
        let useless = |keys: &[&'static str]| match keys.iter().find(|key| !get(key).is_empty()) {
            Some(key) if kind.is_empty() => Err((*key, "it is for keeping accounts; set broker_kind too".to_owned())),
            Some(key) => Err((*key, format!("broker_kind {kind} has no use for it"))),
            None => Ok(()),
        };
        let admin = || Ok::<_, Wrong>((needed(NAME)?, PathBuf::from(needed(PASSWORD)?)));
        let url = || {
            let url = needed(URL)?.trim_end_matches('/').to_owned();
            let is_http = url.starts_with("http://") || url.starts_with("https://");
            if is_http { Ok(url) } else { Err((URL, format!("{url:?} is not http://HOST:PORT"))) }
        };
        let api = || Ok::<_, Wrong>(Api { url: url()?, admin: admin()? });
        let file = |key| needed(key).map(PathBuf::from);
        let asked = || {
            let listen = needed(HOOKS)?;
            let listen = listen.parse().map_err(|_| (HOOKS, format!("{listen:?} is not an address like 127.0.0.1:8090")))?;
            Ok::<_, Wrong>(Asked { listen, secret_file: PathBuf::from(needed(SECRET)?) })
        };
        match kind {
            "" => useless(&Self::KEYS).map(|()| Self::Operators),
            "mosquitto" => useless(&[URL, HOOKS, SECRET, USERS, PID]).and_then(|()| admin()).map(Self::Mosquitto),
            "rabbitmq" => useless(&[USERS, PID]).and_then(|()| Ok(Self::RabbitMq(asked()?, api()?))),
            "emqx" => useless(&[USERS, PID]).and_then(|()| Ok(Self::Emqx(asked()?, api()?))),
            "nats" => useless(&[NAME, PASSWORD, HOOKS, SECRET]).and_then(|()| Ok(Self::Nats(file(USERS)?, file(PID)?, url()?))),
            other => Err((KIND, format!("{other:?} is none of mosquitto, rabbitmq, emqx, nats"))),
        }
    }

    /// Whether they live in one broker's own files: other nodes would not have them.
    pub(crate) fn is_of_one_node(&self) -> bool {
        match self {
            Self::Mosquitto(_) | Self::Nats(..) => true,
            Self::Operators | Self::RabbitMq(..) | Self::Emqx(..) => false,
        }
    }

    /// Reads the files.
    pub(crate) fn load(&self, way: &ExternalConfig) -> Result<BrokerAccounts, Wrong> {
        Ok(match self {
            Self::Operators => BrokerAccounts::Operators,
            Self::Mosquitto(admin) => BrokerAccounts::Mosquitto(account_keeper(way, way.url.clone(), Some(read_login(admin)?))),
            Self::RabbitMq(asked, Api { url, admin }) => {
                let own = [&way.login, &way.canary].into_iter().flatten().map(|login| login.username.clone()).collect();
                let api = RabbitMqApi { url: url.clone(), login: read_login(admin)?, vhost: "/".to_owned(), own };
                BrokerAccounts::RabbitMq(asked.load()?, api)
            }
            Self::Emqx(asked, Api { url, admin }) => {
                BrokerAccounts::Emqx(asked.load()?, EmqxApi { url: url.clone(), login: read_login(admin)? })
            }
            Self::Nats(users, pid, url) => BrokerAccounts::Nats(NatsConfig {
                users_file: users.clone(),
                pid_file: pid.clone(),
                monitor_url: url.clone(),
                env: way.env.clone(),
                backend: way.login.clone(),
                canary: way.canary.clone(),
            }),
        })
    }
}

impl Asked {
    fn load(&self) -> Result<HooksConfig, Wrong> {
        let file = self.secret_file.display();
        let secret = read_secret(&self.secret_file).map_err(|error| (SECRET, format!("{file}: {error}")))?;
        let secret = HooksSecret::parse(&String::from_utf8_lossy(&secret))
            .ok_or_else(|| (SECRET, format!("{file} holds no secret: at least {} letters, digits, - and _", HooksSecret::CHARS_MIN)))?;
        Ok(HooksConfig { listen: self.listen, secret, vhost: "/".to_owned() })
    }
}

fn read_login(admin: &Admin) -> Result<Login, Wrong> {
    let missing = || (PASSWORD, "there is no account".to_owned());
    login(PASSWORD, Some(admin))?.ok_or_else(missing)
}

/// The second way to the same broker, with the account that keeps accounts.
pub(crate) fn account_keeper(way: &ExternalConfig, url: BrokerUrl, login: Option<Login>) -> ExternalConfig {
    let client_id = format!("mstore-accounts-{}", way.env);
    ExternalConfig { url, client_id, login, canary: None, ..way.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(settings: &[(&'static str, &'static str)]) -> Result<Keeping, Wrong> {
        Keeping::check(|key| settings.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value))
    }

    #[test]
    fn what_belongs_together_comes_together() {
        let (name, file) = ((NAME, "a"), (PASSWORD, "f"));
        let (mosquitto, rabbit) = ((KIND, "mosquitto"), (KIND, "rabbitmq"));
        let (url, hooks, secret) = ((URL, "http://127.0.0.1:15672/"), (HOOKS, "127.0.0.1:8090"), (SECRET, "s"));
        for (settings, wrong) in [
            (&[name][..], NAME),
            (&[file], PASSWORD),
            (&[mosquitto], NAME),
            (&[mosquitto, name], PASSWORD),
            (&[mosquitto, name, file, hooks], HOOKS),
            (&[(KIND, "vernemq")], KIND),
            (&[rabbit, name, file, url, secret], HOOKS),
            (&[rabbit, name, file, url, hooks], SECRET),
            (&[rabbit, name, file, hooks, secret], URL),
            (&[rabbit, name, file, (URL, "127.0.0.1:15672"), hooks, secret], URL),
            (&[rabbit, name, file, url, (HOOKS, "8090"), secret], HOOKS),
            (&[(KIND, "nats"), url, (USERS, "u")], PID),
            (&[(KIND, "nats"), url, (USERS, "u"), (PID, "p"), name], NAME),
        ] {
            assert_eq!(check(settings).unwrap_err().0, wrong, "{settings:?}");
        }
        assert_eq!(check(&[]).unwrap(), Keeping::Operators);
        assert_eq!(check(&[mosquitto, name, file]).unwrap(), Keeping::Mosquitto(("a".into(), "f".into())));
        let Keeping::RabbitMq(_, api) = check(&[rabbit, name, file, url, hooks, secret]).unwrap() else { panic!("it is RabbitMQ") };
        assert_eq!(api.url, "http://127.0.0.1:15672");
    }
}
