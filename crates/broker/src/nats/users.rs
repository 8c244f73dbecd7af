//! The file of NATS's users: one line each between two marks, everything around them as the operator wrote it.

use std::collections::{BTreeMap, BTreeSet};

use mstore_protocol::{DeviceId, Env};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    external::{Login, canary},
    registrar::Account,
};

/// The line above ours.
pub const NATS_BEGIN: &str = "# BEGIN mstore-sync: these lines are written by the server";
/// The line below ours.
pub const NATS_END: &str = "# END mstore-sync";
/// What a device needs beside its topics on 2.9, or every QoS 1 subscription is refused; it gives access to nothing.
const QOS1: &str = "$MQTT.sub.>";
/// 1 ms. A dearer one would protect passwords that people choose, and would take the server down when all devices come back.
const BCRYPT_COST: u32 = 4;
/// Stands behind each of our lines, before the hash of what the line was made from.
const MADE_FROM: &str = " # made from ";

/// All users of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Users {
    before: String,
    after: String,
    /// By name, each a line of ours.
    lines: BTreeMap<String, String>,
    /// The names of the server's own accounts.
    own: BTreeSet<String>,
    is_changed: bool,
}

/// Which subjects a user may use.
struct Rights {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl Users {
    /// Reads a file with both marks in it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (before, rest) = text.split_once(NATS_BEGIN).ok_or("it lacks the line that begins our users; see: broker setup nats")?;
        let (ours, after) = rest.split_once(NATS_END).ok_or("it lacks the line that ends our users; see: broker setup nats")?;
        let name = |line: &str| Some(line.split_once("user: \"")?.1.split_once('"')?.0.to_owned());
        let lines = ours.lines().filter_map(|line| Some((name(line)?, line.trim().to_owned()))).collect();
        Ok(Self { before: before.to_owned(), after: after.to_owned(), lines, own: BTreeSet::new(), is_changed: false })
    }

    /// The whole file.
    pub(super) fn to_text(&self) -> String {
        let lines: String = self.lines.values().map(|line| format!("  {line}\n")).collect();
        format!("{}{NATS_BEGIN}\n{lines}{NATS_END}{}", self.before, self.after)
    }

    /// The names of our users that are devices.
    pub(super) fn devices(&self) -> BTreeSet<String> {
        self.lines.keys().filter(|name| !self.own.contains(*name)).cloned().collect()
    }

    /// Whether the name is one of the server's own accounts, or of a user that the operator wrote: a second one would spoil the whole file.
    pub(super) fn is_taken(&self, name: &str) -> bool {
        let wrote = |text: &str| {
            let words: Vec<&str> =
                text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).filter(|word| !word.is_empty()).collect();
            words.windows(2).any(|pair| ["user", "username"].contains(&pair[0]) && pair[1] == name)
        };
        self.own.contains(name) || wrote(&self.before) || wrote(&self.after)
    }

    pub(super) fn is_changed(&self) -> bool {
        self.is_changed
    }

    pub(super) fn saved(&mut self) {
        self.is_changed = false;
    }

    /// Puts a device in, or changes it; whether that was needed.
    pub(super) fn put(&mut self, account: &Account) -> Result<bool, bcrypt::BcryptError> {
        let subscribe = account.filters().iter().map(|filter| subject(filter)).chain([QOS1.to_owned()]).collect();
        self.put_line(account.device.as_str(), account.token.as_bytes(), &Rights { publish: Vec::new(), subscribe }, false)
    }

    /// Puts the server's own accounts in.
    pub(super) fn put_own(&mut self, env: &Env, backend: Option<&Login>, canary: Option<&Login>) {
        if let Some(Login { username, password }) = backend {
            let publish = [format!("{env}.*.*.*.updates"), format!("{env}.*.*.sync.head")].to_vec();
            self.own.insert(username.clone());
            let _kept = self.put_line(username, password, &Rights { publish, subscribe: Vec::new() }, true);
        }
        if let Some(Login { username, password }) = canary {
            let subscribe = canary::topics(env).iter().map(|topic| subject(topic)).chain([QOS1.to_owned()]).collect();
            self.own.insert(username.clone());
            let _kept = self.put_line(username, password, &Rights { publish: Vec::new(), subscribe }, false);
        }
    }

    /// Takes a device out; whether it was there.
    pub(super) fn remove(&mut self, device: &DeviceId) -> bool {
        self.remove_named(device.as_str())
    }

    pub(super) fn remove_named(&mut self, name: &str) -> bool {
        let was_there = self.lines.remove(name).is_some();
        self.is_changed |= was_there;
        was_there
    }

    fn put_line(&mut self, name: &str, password: &[u8], rights: &Rights, is_backend: bool) -> Result<bool, bcrypt::BcryptError> {
        let connections = if is_backend { json!(["MQTT", "STANDARD"]) } else { json!(["MQTT"]) };
        let side = |allowed: &[String]| if allowed.is_empty() { json!({"deny": ">"}) } else { json!({"allow": allowed}) };
        let permissions = json!({"publish": side(&rights.publish), "subscribe": side(&rights.subscribe)});
        let made_from = made_from(password, &format!("{connections}{permissions}"));
        if self.lines.get(name).is_some_and(|line| line.ends_with(&made_from)) {
            return Ok(false);
        }
        let hash = bcrypt::hash(password, BCRYPT_COST)?;
        let line = format!(
            "{{user: {}, password: \"{hash}\", allowed_connection_types: {connections}, permissions: {permissions}}}{made_from}",
            json!(name)
        );
        self.lines.insert(name.to_owned(), line);
        self.is_changed = true;
        Ok(true)
    }
}

/// Too little to find a password, enough to see that it is another one.
fn made_from(password: &[u8], rights: &str) -> String {
    let hash = Sha256::new().chain_update(password).chain_update([0]).chain_update(rights).finalize();
    let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{MADE_FROM}{hex}")
}

/// A topic or filter as NATS calls it. Our names hold neither dots nor blanks.
fn subject(filter: &str) -> String {
    filter.replace('/', ".").replace('+', "*")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mstore_protocol::{BranchKey, Collection, Scope};

    use super::*;

    fn account(device: &str, branch: &str, token: &str) -> Account {
        Account {
            device: DeviceId::parse(device).unwrap(),
            scope: Scope::new(Env::parse("prod").unwrap(), BranchKey::parse("m1", branch).unwrap()),
            collections: vec![Collection::parse("product").unwrap()],
            token: token.into(),
        }
    }

    fn empty() -> Users {
        Users::parse(&format!("users: [\n  {{user: me, password: x}}\n{NATS_BEGIN}\n{NATS_END}\n]\n")).unwrap()
    }

    #[test]
    fn a_line_says_what_a_device_may() {
        let mut users = empty();
        assert!(users.put(&account("till-1", "b1", "mst_a")).unwrap());
        let text = users.to_text();
        assert!(text.contains(r#""publish":{"deny":">"}"#) && text.contains(r#"allowed_connection_types: ["MQTT"]"#), "{text}");
        assert!(text.contains(r#"["prod.m1.b1.sync.head","prod.m1.b1.product.updates","prod.m1.b1.*.updates","$MQTT.sub.>"]"#), "{text}");
        assert!(text.contains("password: \"$2b$04$") && !text.contains("mst_a"), "{text}");
        assert!(text.starts_with("users: [\n  {user: me, password: x}\n") && text.ends_with("\n]\n"), "what others wrote stays: {text}");
    }

    #[test]
    fn what_is_in_step_stays_as_it_is() {
        let mut users = empty();
        users.put(&account("till-1", "b1", "mst_a")).unwrap();
        let text = users.to_text();
        let mut again = Users::parse(&text).unwrap();
        assert!(!again.put(&account("till-1", "b1", "mst_a")).unwrap() && !again.is_changed());
        assert_eq!(again.to_text(), text, "the same hash, and so no connection closed");
        assert!(again.put(&account("till-1", "b2", "mst_a")).unwrap(), "another branch");
        assert!(again.put(&account("till-1", "b2", "mst_b")).unwrap(), "another token");
        assert!(again.remove_named("till-1") && !again.remove_named("till-1"));
    }

    #[test]
    fn the_servers_own_accounts_are_no_devices() {
        let mut users = empty();
        let login = |name: &str| Login { username: name.into(), password: b"pw"[..].into() };
        users.put_own(&Env::parse("prod").unwrap(), Some(&login("backend")), Some(&login("canary")));
        users.put(&account("till-1", "b1", "mst_a")).unwrap();
        assert_eq!(users.devices().into_iter().collect::<Vec<_>>(), ["till-1"]);
        assert!(users.is_taken("backend") && users.is_taken("me") && !users.is_taken("till-1"));
        assert!(users.to_text().contains(r#""publish":{"allow":["prod.*.*.*.updates","prod.*.*.sync.head"]},"subscribe":{"deny":">"}"#));
    }

    #[test]
    fn a_file_without_marks_is_nobodys() {
        assert!(Users::parse("users: []").is_err());
    }
}
