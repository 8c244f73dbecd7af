//! The settings that say which broker is used: the embedded one, or the account, the trust and the canary at an external one.

use std::path::{Path, PathBuf};

use mstore_broker::{BrokerUrl, ExternalConfig, Login, TlsFiles};
use mstore_protocol::Env;
use mstore_server::BrokerAccounts;

use crate::broker_accounts::Keeping;

/// A setting that is wrong, and why.
pub(crate) type Wrong = (&'static str, String);

/// The settings of an external broker's URL, checked; files are read when the server starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExternalBroker {
    url: BrokerUrl,
    client_id: Option<String>,
    login: Option<(String, PathBuf)>,
    authorities: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    canary: Option<(String, PathBuf)>,
    accounts: Keeping,
}

/// The settings that mean nothing to the embedded broker.
const EXTERNAL_ONLY: [&str; 8] = [
    "broker_client_id",
    "broker_username",
    "broker_password_file",
    "broker_ca",
    "broker_cert",
    "broker_key",
    "broker_canary_username",
    "broker_canary_password_file",
];

impl ExternalBroker {
    /// Where it is.
    pub(crate) fn url(&self) -> String {
        self.url.to_string()
    }

    /// Reads the settings; `None` for the embedded broker.
    pub(crate) fn check<'a>(get: impl Fn(&'static str) -> &'a str) -> Result<Option<Self>, Wrong> {
        let set = |key| Some(get(key)).filter(|value| !value.is_empty());
        if get("broker") == "embedded" {
            return match EXTERNAL_ONLY.into_iter().chain(Keeping::KEYS).find(|key| set(key).is_some()) {
                Some(key) => Err((key, "this is for an external broker; set broker to its URL, or leave it out".into())),
                None => Ok(None),
            };
        }
        let url: BrokerUrl =
            get("broker").parse().map_err(|error| ("broker", format!("{error}; \"embedded\" is the broker of this program")))?;
        let pair = |first: &'static str, second: &'static str| match (set(first), set(second)) {
            (Some(a), Some(b)) => Ok(Some((a.to_owned(), PathBuf::from(b)))),
            (None, None) => Ok(None),
            (Some(_), None) => Err((first, format!("it needs {second} too"))),
            (None, Some(_)) => Err((second, format!("it needs {first} too"))),
        };
        let identity = pair("broker_cert", "broker_key")?.map(|(chain, key)| (PathBuf::from(chain), key));
        let authorities = set("broker_ca").map(PathBuf::from);
        if !url.tls && authorities.is_some() {
            return Err(("broker_ca", "certificates are for mqtts:// brokers".into()));
        }
        if !url.tls && identity.is_some() {
            return Err(("broker_cert", "certificates are for mqtts:// brokers".into()));
        }
        let accounts = Keeping::check(&get)?;
        if url.is_cluster() && accounts.is_of_one_node() {
            return Err(("broker_kind", "the accounts of this kind of broker can be kept on one node, not on those of a cluster".into()));
        }
        Ok(Some(Self {
            url,
            client_id: set("broker_client_id").map(str::to_owned),
            login: pair("broker_username", "broker_password_file")?,
            authorities,
            identity,
            canary: pair("broker_canary_username", "broker_canary_password_file")?,
            accounts,
        }))
    }

    /// Reads the files: the way to the broker, and how its accounts are kept. Servers of a shared database have client ids of their own unless they are told:
    /// with the same one they would end each other's connections.
    pub(crate) fn load(&self, env: &Env, is_shared: bool) -> Result<(ExternalConfig, BrokerAccounts), Wrong> {
        let mut config = ExternalConfig::new(self.url.clone(), env.clone());
        match &self.client_id {
            Some(id) => config.client_id.clone_from(id),
            None if is_shared => config.client_id = format!("{}-{:08x}", config.client_id, rand::random::<u32>()),
            None => {}
        }
        config.login = login("broker_password_file", self.login.as_ref())?;
        config.canary = login("broker_canary_password_file", self.canary.as_ref())?;
        let identity = self.identity.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
        config.tls = TlsFiles::read(self.authorities.as_deref(), identity).map_err(|error| ("broker_ca", error.to_string()))?;
        let accounts = self.accounts.load(&config)?;
        Ok((config, accounts))
    }
}

pub(crate) fn login(key: &'static str, account: Option<&(String, PathBuf)>) -> Result<Option<Login>, Wrong> {
    let Some((username, file)) = account else { return Ok(None) };
    let password = read_secret(file).map_err(|error| (key, format!("{}: {error}", file.display())))?;
    Ok(Some(Login { username: username.clone(), password: password.into() }))
}

/// A line break at the end is the editor's, not the password's.
pub(crate) fn read_secret(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut secret = std::fs::read(file)?;
    while secret.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        secret.pop();
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(settings: &[(&'static str, &'static str)]) -> Result<Option<ExternalBroker>, Wrong> {
        ExternalBroker::check(|key| settings.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value))
    }

    #[test]
    fn what_belongs_together_comes_together() {
        for (settings, wrong) in [
            (&[("broker", "embedded"), ("broker_ca", "x")][..], "broker_ca"),
            (&[("broker", "amqp://x")], "broker"),
            (&[("broker", "mqtt://me:pw@x")], "broker"),
            (&[("broker", "mqtt://x"), ("broker_username", "me")], "broker_username"),
            (&[("broker", "mqtt://x"), ("broker_canary_password_file", "f")], "broker_canary_password_file"),
            (&[("broker", "mqtt://x"), ("broker_ca", "f")], "broker_ca"),
            (&[("broker", "mqtt://x"), ("broker_cert", "f"), ("broker_key", "f")], "broker_cert"),
            (
                &[
                    ("broker", "mqtt://x,y"),
                    ("broker_kind", "mosquitto"),
                    ("broker_admin_username", "a"),
                    ("broker_admin_password_file", "f"),
                ],
                "broker_kind",
            ),
        ] {
            assert_eq!(check(settings).unwrap_err().0, wrong, "{settings:?}");
        }
        assert_eq!(check(&[("broker", "embedded")]).unwrap(), None);
    }

    #[test]
    fn a_password_is_a_files_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "two words\n").unwrap();
        let mut external = check(&[("broker", "mqtt://x"), ("broker_username", "me"), ("broker_password_file", "f")]).unwrap().unwrap();
        let env = Env::parse("dev").unwrap();
        external.login = Some(("me".into(), file));
        assert_eq!(external.load(&env, false).unwrap().0.login.unwrap().password, "two words");
        external.login = Some(("me".into(), dir.path().join("none")));
        assert_eq!(external.load(&env, false).unwrap_err().0, "broker_password_file");
    }

    #[test]
    fn servers_of_one_database_have_client_ids_of_their_own() {
        let id =
            |settings: &[_], is_shared| check(settings).unwrap().unwrap().load(&Env::parse("dev").unwrap(), is_shared).unwrap().0.client_id;
        let unnamed = [("broker", "mqtt://x")];
        assert_eq!(id(&unnamed, false), "mstore-backend-dev");
        assert_ne!(id(&unnamed, true), id(&unnamed, true));
        assert_eq!(id(&[("broker", "mqtt://x"), ("broker_client_id", "one")], true), "one");
    }
}
