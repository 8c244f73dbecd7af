//! The server: HTTP API, publisher, device registry and background work, over a [`mstore_store::Store`] and a broker.
//!
//! It does not decide what a commit is (the store's sequencer does) nor who may do what on MQTT (the broker's policy does). It keeps no
//! data of its own: what is durable is in the store, what is secret in the [`DataDir`]. It draws nothing and reads no environment.

mod answers;
mod auth;
mod broker_slot;
mod claim;
mod config;
mod data_dir;
mod exposure;
mod fleet;
mod heads;
mod hooks;
mod http;
mod listen;
mod meters;
mod patience;
mod publisher;
mod renewal;
mod running;
mod steward;
mod tail;
mod tasks;
mod tokens;
mod webhook;

pub use claim::ClaimCode;
pub use config::{BrokerAccounts, BrokerConfig, Clock, PublicUrls, Secrets, ServerConfig, ServerLimits, Timing, system_clock};
pub use data_dir::{DataDir, DataDirError};
pub use hooks::{HooksConfig, HooksSecret};
pub use http::openapi_json;
pub use running::{Running, Server, StartError};
pub use tokens::{AdminToken, MasterKey};
pub use webhook::{WebhookConfig, WebhookSecret};
