//! The roles that accounts have: allow-lists of literal filters and topics, made for a plugin that denies by default.

use std::collections::BTreeSet;

use mstore_protocol::Env;
use serde_json::{Value, json};

use super::control::ANSWERS;
use crate::{external::canary, registrar::Account};

/// A role by name, and what it allows: pairs of the plugin's kind of access and a topic or filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) allows: BTreeSet<(String, String)>,
}

impl Role {
    fn new<'a>(name: String, allows: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        Self { name, allows: allows.into_iter().map(|(kind, topic)| (kind.to_owned(), topic)).collect() }
    }

    /// A branch's devices: four filters as strings, and what comes through them. A device that moves away receives nothing more of it, be its
    /// subscription still there.
    pub(super) fn branch(account: &Account) -> Self {
        let filters = account.filters().into_iter().map(|filter| ("subscribeLiteral", filter));
        let topics = account.topics().into_iter().map(|topic| ("publishClientReceive", topic));
        Self::new(format!("mstore:{}", account.scope), filters.chain(topics))
    }

    /// The server's own: publishes to update and head topics of its env, reads nothing.
    pub(super) fn backend(env: &Env) -> Self {
        let topics = [format!("{env}/+/+/+/updates"), format!("{env}/+/+/sync/head")];
        Self::new(format!("mstore-backend:{env}"), topics.map(|topic| ("publishClientSend", topic)))
    }

    /// The throw-away device that listens whether the server's publishing arrives.
    pub(super) fn canary(env: &Env) -> Self {
        let both = canary::topics(env).into_iter().flat_map(|topic| [("subscribeLiteral", topic.clone()), ("publishClientReceive", topic)]);
        Self::new(format!("mstore-canary:{env}"), both)
    }

    /// Whoever keeps the accounts: asks the plugin and hears its answers, and sees no message of anybody.
    pub(super) fn accounts(env: &Env) -> Self {
        let commands = ("publishClientSend", super::control::COMMANDS.to_owned());
        let answers = ["subscribeLiteral", "publishClientReceive"].map(|kind| (kind, ANSWERS.to_owned()));
        Self::new(format!("mstore-accounts:{env}"), std::iter::once(commands).chain(answers))
    }

    /// As the plugin lists it.
    pub(super) fn read(listed: &Value) -> Option<Self> {
        let name = listed["rolename"].as_str()?.to_owned();
        let access = |acl: &Value| {
            // A refusal among them is none of ours: it makes the role another one.
            let allow = if acl["allow"] == true { "" } else { "!" };
            Some((format!("{allow}{}", acl["acltype"].as_str()?), acl["topic"].as_str()?.to_owned()))
        };
        let allows = listed["acls"].as_array()?.iter().map(access).collect::<Option<_>>()?;
        Some(Self { name, allows })
    }

    /// `createRole` or `modifyRole`.
    pub(super) fn command(&self, command: &str) -> Value {
        let acls = self.allows.iter().map(|(kind, topic)| json!({"acltype": kind, "topic": topic, "priority": 0, "allow": true}));
        json!({"command": command, "rolename": self.name, "textdescription": "made by mstore-sync", "acls": acls.collect::<Vec<_>>()})
    }
}

/// What nobody may do who has no role that lets him.
pub(super) fn default_access() -> Value {
    json!([
        {"acltype": "publishClientSend", "allow": false},
        {"acltype": "publishClientReceive", "allow": false},
        {"acltype": "subscribe", "allow": false},
        {"acltype": "unsubscribe", "allow": true},
    ])
}

/// Whether the plugin's answer says the same.
pub(super) fn is_default_access(said: &Value) -> bool {
    let wanted = default_access();
    let of = |list: &Value, kind: &Value| {
        let found = list.as_array().into_iter().flatten().find(|entry| entry["acltype"] == *kind);
        found.map(|entry| entry["allow"].clone())
    };
    wanted.as_array().into_iter().flatten().all(|entry| of(&said["acls"], &entry["acltype"]).as_ref() == Some(&entry["allow"]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mstore_protocol::{BranchKey, Collection, DeviceId, Scope};

    use super::*;

    fn account() -> Account {
        Account {
            device: DeviceId::parse("till-1").unwrap(),
            scope: Scope::new(Env::parse("prod").unwrap(), BranchKey::parse("m1", "b1").unwrap()),
            collections: Collection::built_in().to_vec(),
            token: "mst_secret".into(),
        }
    }

    #[test]
    fn what_is_listed_is_what_was_made() {
        let role = Role::branch(&account());
        let made = role.command("createRole");
        assert_eq!(Role::read(&made), Some(role));
        let mut changed = made.clone();
        changed["acls"][0]["allow"] = json!(false);
        assert_ne!(Role::read(&changed), Role::read(&made), "a refusal is not the permission");
        assert!(!made.to_string().contains("secret"));
    }

    #[test]
    fn a_device_may_use_literal_filters_only() {
        let role = Role::branch(&account());
        let of = |kind: &str| role.allows.iter().filter(|(k, _)| k == kind).map(|(_, topic)| topic.as_str()).collect::<Vec<_>>();
        let topics =
            ["prod/m1/b1/inventory/updates", "prod/m1/b1/product/updates", "prod/m1/b1/sync/head", "prod/m1/b1/transaction/updates"];
        assert_eq!(of("publishClientReceive"), topics);
        assert_eq!(of("subscribeLiteral"), [&["prod/m1/b1/+/updates"], &topics[..]].concat());
        assert_eq!(role.allows.len(), 9, "and nothing else");
    }

    #[test]
    fn the_default_must_refuse_what_is_received() {
        let mut said = json!({ "acls": default_access() });
        assert!(is_default_access(&said));
        said["acls"][1]["allow"] = json!(true);
        assert!(!is_default_access(&said));
        assert!(!is_default_access(&Value::Null));
    }
}
