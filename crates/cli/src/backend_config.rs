//! The settings of the way to a merchant's backend, checked.

use std::path::PathBuf;

use mstore_protocol::{Code, Profile};
use mstore_server::{WebhookConfig, WebhookSecret};

use crate::broker_config::read_secret;

/// A setting and what is wrong with it.
type Wrong = (&'static str, String);

/// How operations of merchants whose backend decides get there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BackendWay {
    /// Address and the file of the secret.
    webhook: Option<(String, PathBuf)>,
    /// Whether the inbox takes operations from now on; `None`: as the database has it.
    pub(crate) inbox: Option<bool>,
}

impl BackendWay {
    /// Checks the settings, read by `get`.
    pub(crate) fn check<'a>(profile: Profile, get: impl Fn(&'static str) -> &'a str) -> Result<Self, Wrong> {
        let (url, secret) = (get("webhook_url"), get("webhook_secret_file"));
        let inbox = match get("operation_inbox") {
            "" => None,
            "on" => Some(true),
            "off" => Some(false),
            other => return Err(("operation_inbox", format!("{other:?} is neither on nor off"))),
        };
        if url.is_empty() {
            return match secret {
                "" => Ok(Self { webhook: None, inbox }),
                _alone => Err(("webhook_secret_file", "there is no webhook that it is for; set webhook_url too".into())),
            };
        }
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(("webhook_url", "it is not https://HOST/PATH".into()));
        }
        if !profile.allows(url) {
            return Err(("webhook_url", format!("{}: {}", Code::InsecureUrl, "sales would cross the network in the clear; use https://")));
        }
        if secret.is_empty() {
            return Err(("webhook_secret_file", "a webhook without a secret: its backend could not tell whose deliveries it gets".into()));
        }
        if inbox == Some(false) {
            return Err(("operation_inbox", "off, and a webhook that delivers what is in it; choose one".into()));
        }
        Ok(Self { webhook: Some((url.to_owned(), PathBuf::from(secret))), inbox: Some(true) })
    }

    /// Reads the secret.
    pub(crate) fn load(&self) -> Result<Option<WebhookConfig>, Wrong> {
        const SECRET: &str = "webhook_secret_file";
        let Some((url, file)) = &self.webhook else { return Ok(None) };
        let secret = read_secret(file).map_err(|error| (SECRET, format!("{}: {error}", file.display())))?;
        let short = || (SECRET, format!("{} holds fewer than {} bytes", file.display(), WebhookSecret::BYTES_MIN));
        Ok(Some(WebhookConfig::new(url.clone(), WebhookSecret::new(secret).ok_or_else(short)?)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(profile: Profile, settings: &[(&'static str, &'static str)]) -> Result<BackendWay, Wrong> {
        BackendWay::check(profile, |key| settings.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value))
    }

    #[test]
    fn what_belongs_together_comes_together() {
        let secret = ("webhook_secret_file", "f");
        for (settings, wrong) in [
            (&[secret][..], "webhook_secret_file"),
            (&[("webhook_url", "https://shop.example/sync")], "webhook_secret_file"),
            (&[("webhook_url", "ftp://shop.example"), secret], "webhook_url"),
            (&[("webhook_url", "http://shop.example/sync"), secret], "webhook_url"),
            (&[("webhook_url", "https://shop.example"), secret, ("operation_inbox", "off")], "operation_inbox"),
            (&[("operation_inbox", "maybe")], "operation_inbox"),
        ] {
            assert_eq!(check(Profile::Production, settings).unwrap_err().0, wrong, "{settings:?}");
        }
        assert!(check(Profile::Development, &[("webhook_url", "http://shop.example/sync"), secret]).is_ok());
        let local = check(Profile::Production, &[("webhook_url", "http://127.0.0.1:9000/sync"), secret]).unwrap();
        assert_eq!(local.inbox, Some(true), "a webhook delivers what is in the inbox");
        assert_eq!(check(Profile::Production, &[]).unwrap(), BackendWay::default());
        assert_eq!(check(Profile::Production, &[("operation_inbox", "on")]).unwrap().inbox, Some(true));
    }

    #[test]
    fn a_secret_is_long_enough() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let way = BackendWay { webhook: Some(("https://shop.example".into(), file.clone())), inbox: Some(true) };
        assert_eq!(way.load().unwrap_err().0, "webhook_secret_file");
        std::fs::write(&file, "short\n").unwrap();
        assert!(way.load().unwrap_err().1.contains("fewer than 16 bytes"));
        std::fs::write(&file, "long enough for anyone\n").unwrap();
        let config = way.load().unwrap().unwrap();
        assert_eq!(config.secret, WebhookSecret::new("long enough for anyone").unwrap());
        assert!(!format!("{config:?}").contains("long enough"));
    }
}
