//! Who may do what on MQTT: one pure function behind every adapter. An allow-list, compared as strings; what it does not name is refused.
//!
//! *Invariant:* nothing here matches filters against topics. A filter is allowed because it *is* one of the strings a device may use.

use std::fmt;

use mstore_protocol::{Collection, DeviceId, Env, Scope, Topic};

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
        (Principal::Backend { .. }, Action::Connect { .. }) => Decision::Allow,
        (Principal::Backend { .. }, Action::Subscribe(_)) => Decision::Deny(Denial::BackendSubscribe),
        (Principal::Backend { env }, Action::Publish { topic }) => {
            let own = Topic::parse(topic).is_ok_and(|topic| topic.scope.env == *env);
            Decision::allow_if(own, Denial::ForeignTopic)
        }
    }
}

fn is_own_filter(scope: &Scope, collections: &[Collection], filter: &str) -> bool {
    filter == Topic::head(scope).to_string()
        || filter == Topic::updates_filter(scope)
        || collections.iter().any(|collection| filter == Topic::updates(scope, collection).to_string())
}
