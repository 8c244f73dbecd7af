//! Who may do what on MQTT: one pure function behind every adapter. An allow-list, compared as strings; what it does not name is refused.
//!
//! *Invariant:* nothing here matches filters against topics. A filter is allowed because it *is* one of the strings a device may use.

use std::fmt;

use mstore_protocol::{Collection, DeviceId, Env, Scope, Topic};

use crate::external::canary;

/// Who may do what, case by case, as a table: every broker has to answer like this, whoever decides there.
pub const ACL_MATRIX: &str = include_str!("../acl-matrix.csv");

/// Who is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A till of one branch.
    Device {
        /// Its id, which is also its user name and its client id.
        device: DeviceId,
        /// The branch it belongs to now.
        scope: Scope,
        /// The collections it may follow.
        collections: Vec<Collection>,
    },
    /// The server's own account on a broker.
    Backend {
        /// The deployment it publishes for.
        env: Env,
    },
    /// The throw-away device that listens whether the backend's publishing arrives.
    Canary {
        /// Its name, which is also its client id.
        name: String,
        /// The deployment it listens to.
        env: Env,
    },
}

/// What someone wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Open a connection.
    Connect {
        /// The client id of the CONNECT packet.
        client_id: &'a str,
        /// Whether it carries a will, which the broker would publish later in the client's name.
        has_will: bool,
    },
    /// Subscribe to this filter, taken as it was sent (`$share/…` included).
    Subscribe(&'a str),
    /// Publish to this topic.
    Publish {
        /// The topic as it was sent.
        topic: &'a str,
    },
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Refused, and why.
    Deny(Denial),
}

/// Why something was refused: stable words for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denial {
    /// A device connected with a client id that is not its device id.
    ForeignClientId,
    /// The connection carries a will.
    Will,
    /// The filter is none of those that the device may use.
    ForeignFilter,
    /// Devices publish nothing on MQTT; they upload over HTTP.
    DevicePublish,
    /// The backend subscribes to nothing.
    BackendSubscribe,
    /// The topic is not an update or head topic of the backend's env.
    ForeignTopic,
    /// The registry no longer knows who is connected; [`decide`] is not asked about nobody.
    Revoked,
}

impl Denial {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ForeignClientId => "foreign_client_id",
            Self::Will => "will",
            Self::ForeignFilter => "foreign_filter",
            Self::DevicePublish => "device_publish",
            Self::BackendSubscribe => "backend_subscribe",
            Self::ForeignTopic => "foreign_topic",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Decision {
    /// Whether to go on.
    pub fn is_allowed(self) -> bool {
        self == Self::Allow
    }

    fn allow_if(allowed: bool, otherwise: Denial) -> Self {
        if allowed { Self::Allow } else { Self::Deny(otherwise) }
    }
}

/// Decides one action of one principal.
pub fn decide(principal: &Principal, action: &Action<'_>) -> Decision {
    match (principal, action) {
        (_, Action::Connect { has_will: true, .. }) => Decision::Deny(Denial::Will),
        (Principal::Device { device, .. }, Action::Connect { client_id, .. }) => {
            Decision::allow_if(device.as_str() == *client_id, Denial::ForeignClientId)
        }
        (Principal::Device { scope, collections, .. }, Action::Subscribe(filter)) => {
            Decision::allow_if(is_own_filter(scope, collections, filter), Denial::ForeignFilter)
        }
        (Principal::Device { .. }, Action::Publish { .. }) => Decision::Deny(Denial::DevicePublish),
        (Principal::Canary { name, .. }, Action::Connect { client_id, .. }) => {
            Decision::allow_if(name == client_id, Denial::ForeignClientId)
        }
        (Principal::Canary { env, .. }, Action::Subscribe(filter)) => {
            Decision::allow_if(canary::topics(env).iter().any(|own| own == filter), Denial::ForeignFilter)
        }
        (Principal::Canary { .. }, Action::Publish { .. }) => Decision::Deny(Denial::DevicePublish),
        (Principal::Backend { .. }, Action::Connect { .. }) => Decision::Allow,
        (Principal::Backend { .. }, Action::Subscribe(_)) => Decision::Deny(Denial::BackendSubscribe),
        (Principal::Backend { env }, Action::Publish { topic }) => {
            // No merchant can be called as the canary's is, so its topics are no branch's.
            let own = Topic::parse(topic).is_ok_and(|topic| topic.scope.env == *env) || canary::topics(env).iter().any(|own| own == topic);
            Decision::allow_if(own, Denial::ForeignTopic)
        }
    }
}

fn is_own_filter(scope: &Scope, collections: &[Collection], filter: &str) -> bool {
    filter == Topic::updates_filter(scope) || own_topics(scope, collections).any(|own| filter == own)
}

/// Every topic that a device of the branch receives, written out: also what other brokers are told, which decide for themselves.
pub(crate) fn own_topics(scope: &Scope, collections: &[Collection]) -> impl Iterator<Item = String> {
    let updates = collections.iter().map(|collection| Topic::updates(scope, collection).to_string());
    std::iter::once(Topic::head(scope).to_string()).chain(updates)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mstore_protocol::BranchKey;

    use super::*;

    fn device(name: &str, branch: &str) -> Principal {
        let scope = Scope::new(Env::parse("prod").unwrap(), BranchKey::parse("m1", branch).unwrap());
        let device = DeviceId::parse(name).unwrap();
        Principal::Device { device, scope, collections: Collection::built_in().to_vec() }
    }

    fn principal(actor: &str) -> Principal {
        match actor {
            "devA" | "devM" | "devR" | "devN" => device(actor, "b1"),
            "devB" => device(actor, "b2"),
            "backend" => Principal::Backend { env: Env::parse("prod").unwrap() },
            other => panic!("no principal {other}"),
        }
    }

    /// The matrix's cases that are about what a known principal may do; the others are about the registry and sessions.
    #[test]
    fn the_access_matrix_in_process() {
        let mut reader = csv::Reader::from_reader(ACL_MATRIX.as_bytes());
        let mut decided = 0;
        for case in reader.records() {
            let case = case.unwrap();
            let (name, actor, what, raw, expected) = (&case[0], &case[1], &case[2], &case[3], &case[4]);
            let topic = match raw {
                r#"prod/ + 300 levels of "a/""# => format!("prod/{}", "a/".repeat(300)),
                r#"65535 x "x""# => "x".repeat(65_535),
                raw => raw.to_owned(),
            };
            let action = match (&name[..1], what) {
                ("C", "connect valid token") => Action::Connect { client_id: actor, has_will: false },
                ("C", "connect with devA client id while devA is online (takeover)") => {
                    Action::Connect { client_id: "devA", has_will: false }
                }
                ("S", _) | ("K", "subscribe") | ("D", _) => Action::Subscribe(&topic),
                ("P", what) if what.starts_with("will") => Action::Connect { client_id: actor, has_will: true },
                ("P" | "K", _) => Action::Publish { topic: &topic },
                _ => continue,
            };
            let decision = decide(&principal(actor), &action);
            assert_eq!(decision.is_allowed(), expected == "allow", "{name}: {decision:?}");
            decided += 1;
        }
        assert_eq!(decided, 56, "the matrix has lost or won cases");
    }

    #[test]
    fn a_device_follows_its_own_collections_only() {
        let Principal::Device { device, scope, .. } = device("till", "b1") else { unreachable!() };
        let narrow = Principal::Device { device, scope, collections: vec![Collection::parse("price_list").unwrap()] };
        let may = |filter| decide(&narrow, &Action::Subscribe(filter)).is_allowed();
        assert!(may("prod/m1/b1/price_list/updates") && may("prod/m1/b1/sync/head") && may("prod/m1/b1/+/updates"));
        assert!(!may("prod/m1/b1/product/updates") && !may("prod/m1/b1/sync/updates") && !may("prod/m1/b1/price_list/+"));
    }

    #[test]
    fn the_canary_hears_the_backend_and_nothing_else() {
        let canary = Principal::Canary { name: "canary".into(), env: Env::parse("prod").unwrap() };
        let song = "prod/devices/canary/product/updates";
        assert!(decide(&canary, &Action::Subscribe(song)).is_allowed());
        assert!(decide(&principal("backend"), &Action::Publish { topic: song }).is_allowed());
        assert!(!decide(&canary, &Action::Subscribe("prod/m1/b1/product/updates")).is_allowed());
        assert!(!decide(&canary, &Action::Subscribe("prod/devices/canary/+/updates")).is_allowed());
        assert!(!decide(&canary, &Action::Publish { topic: song }).is_allowed());
        assert!(!decide(&canary, &Action::Connect { client_id: "devA", has_will: false }).is_allowed());
        assert!(!decide(&principal("backend"), &Action::Publish { topic: "dev/devices/canary/product/updates" }).is_allowed());
    }

    #[test]
    fn even_the_backend_has_no_will() {
        let connect = Action::Connect { client_id: "server-1", has_will: true };
        assert_eq!(decide(&principal("backend"), &connect), Decision::Deny(Denial::Will));
    }
}
