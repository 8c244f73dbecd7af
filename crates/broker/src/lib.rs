//! The server side of MQTT: who may do what, the broker that runs inside the server, and the way to one outside.
//!
//! It decides nothing about data: a payload is bytes and a topic is a string. It stores nothing: what a device missed, it reads over HTTP.
//! Authorisation is one pure function, [`decide`]; every adapter asks it and nothing else.

mod auth;
mod broker;
mod embedded;
mod external;
mod policy;
mod receipt;

pub use auth::DeviceAuth;
pub use broker::{Broker, BrokerStats, Kicked, Message, PublishError};
pub use embedded::{BrokerLimits, EmbeddedBroker, EmbeddedConfig, ListenAddrs, StartError, TlsListen};
pub use external::{
    BrokerUrl, BrokerUrlError, CanaryState, ExternalBroker, ExternalConfig, ExternalState, ExternalTiming, Login, TlsFiles, TlsFilesError,
};
pub use policy::{Action, Decision, Denial, Principal, decide};
pub use receipt::Receipt;
