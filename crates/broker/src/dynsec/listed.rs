//! A device's client as the plugin knows it, and how it differs from the account that it should be.

use mstore_protocol::Env;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::roles::Role;
use crate::registrar::Account;

/// A client of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) username: String,
    client_id: Option<String>,
    /// Who made it, and which password it has.
    note: String,
    roles: Vec<String>,
    has_groups: bool,
    is_disabled: bool,
}

impl Client {
    /// What it should be.
    pub(super) fn wanted(account: &Account) -> Self {
        let username = account.device.to_string();
        Self {
            client_id: Some(username.clone()),
            username,
            note: note(&account.scope.env, &account.token),
            roles: vec![Role::branch(account).name],
            has_groups: false,
            is_disabled: false,
        }
    }

    /// As the plugin lists it.
    pub(super) fn read(listed: &Value) -> Option<Self> {
        let text = |key: &str| listed[key].as_str().map(str::to_owned);
        let names = |role: &Value| role["rolename"].as_str().map(str::to_owned);
        Some(Self {
            username: text("username")?,
            client_id: text("clientid"),
            note: text("textdescription").unwrap_or_default(),
            roles: listed["roles"].as_array().into_iter().flatten().filter_map(names).collect(),
            has_groups: listed["groups"].as_array().is_some_and(|groups| !groups.is_empty()),
            is_disabled: listed["disabled"] == true,
        })
    }

    /// Whether a server of this env made it: only these are changed and removed.
    pub(super) fn is_ours(&self, env: &Env) -> bool {
        self.note.starts_with(&prefix(env))
    }

    /// `createClient` or `modifyClient`, with everything that it should be; the plugin closes the connection of a client that it changes.
    pub(super) fn commands(&self, known: Option<&Self>, token: &str) -> Vec<Value> {
        let command = if known.is_some() { "modifyClient" } else { "createClient" };
        let roles: Vec<Value> = self.roles.iter().map(|role| json!({"rolename": role, "priority": 0})).collect();
        let mut commands = vec![json!({
            "command": command, "username": self.username, "password": token, "clientid": self.client_id,
            "textdescription": self.note, "roles": roles, "groups": [],
        })];
        if known.is_some_and(|known| known.is_disabled) {
            commands.push(json!({"command": "enableClient", "username": self.username}));
        }
        commands
    }
}

/// The plugin keeps a password to itself, so what it was made from stands beside it: too little to find the token, enough to see that it is
/// another one.
fn note(env: &Env, token: &str) -> String {
    let hash: String = Sha256::digest(token.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}{hash}", prefix(env))
}

fn prefix(env: &Env) -> String {
    format!("mstore-sync {env} token ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mstore_protocol::{BranchKey, Collection, DeviceId, Scope};

    use super::*;

    fn account(branch: &str, token: &str) -> Account {
        Account {
            device: DeviceId::parse("till-1").unwrap(),
            scope: Scope::new(Env::parse("prod").unwrap(), BranchKey::parse("m1", branch).unwrap()),
            collections: Collection::built_in().to_vec(),
            token: token.into(),
        }
    }

    #[test]
    fn what_differs_shows() {
        let wanted = Client::wanted(&account("b1", "mst_a"));
        let made = &wanted.commands(None, "mst_a")[0];
        assert_eq!((made["command"].as_str(), made["password"].as_str()), (Some("createClient"), Some("mst_a")));
        assert_eq!(Client::read(made).unwrap(), wanted);
        assert_ne!(Client::wanted(&account("b2", "mst_a")), wanted, "another branch");
        assert_ne!(Client::wanted(&account("b1", "mst_b")), wanted, "another token");
        for (key, value) in [("clientid", Value::Null), ("disabled", json!(true)), ("groups", json!([{"groupname": "g"}]))] {
            let mut listed = made.clone();
            listed[key] = value;
            assert_ne!(Client::read(&listed).unwrap(), wanted, "{key}");
        }
    }

    #[test]
    fn only_ours_are_touched() {
        let ours = Client::wanted(&account("b1", "mst_a"));
        assert!(ours.is_ours(&Env::parse("prod").unwrap()) && !ours.is_ours(&Env::parse("dev").unwrap()));
        let admin = Client::read(&json!({"username": "till-1", "textname": "Dynsec admin user", "roles": []})).unwrap();
        assert!(!admin.is_ours(&Env::parse("prod").unwrap()));
    }

    #[test]
    fn a_disabled_client_is_enabled_again() {
        let wanted = Client::wanted(&account("b1", "mst_a"));
        let disabled = Client { is_disabled: true, ..wanted.clone() };
        assert_eq!(wanted.commands(Some(&disabled), "mst_a")[1]["command"], "enableClient");
    }
}
