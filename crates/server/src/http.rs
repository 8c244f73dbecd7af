//! The HTTP contract (§4.5 of the design): one file per endpoint, one router that is also the OpenAPI document.

mod admin;
mod body;
mod caller;
mod changes;
mod credentials;
mod dead_letters;
mod digests;
mod drain;
mod enrol;
mod events;
mod extract;
mod head;
mod health;
mod home;
mod openapi;
mod operations;
mod parameters;
mod problem;
mod rate_limit;
mod report;
mod roles;
mod rotate;
mod router;
mod rows;
mod stream;
mod web;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use mstore_broker::Visitors;
use mstore_protocol::{BranchKey, Collection};
use mstore_store::Store;
use tokio_util::sync::CancellationToken;

pub use openapi::openapi_json;
pub(crate) use router::router;

use crate::{
    ServerConfig,
    answers::Answers,
    auth::Directory,
    broker_slot::BrokerSlot,
    fleet::{Fleet, Levels},
    meters::Meters,
    renewal::Renewal,
    tail::Tail,
    webhook::Webhook,
};
pub(crate) use enrol::{http_url, mqtt_url, ws_url};
pub(crate) use health::Proof;
use problem::Refusal;
pub(crate) use rate_limit::Rates;

/// What every endpoint works with.
pub(crate) struct App {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) broker: Arc<BrokerSlot>,
    pub(crate) answers: Answers,
    pub(crate) tail: Arc<Tail>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) http_addr: SocketAddr,
    pub(crate) rates: Rates,
    /// Requests worked on.
    pub(crate) requests: Arc<Visitors>,
    /// The certificate, if there is TLS.
    pub(crate) renewal: Option<Renewal>,
    pub(crate) proof: Proof,
    pub(crate) fleet: Fleet,
    pub(crate) levels: Levels,
    pub(crate) webhook: Option<Arc<Webhook>>,
    /// A background task that panicked.
    pub(crate) failed_task: OnceLock<&'static str>,
    /// Ends streams that would otherwise last for ever.
    pub(crate) stopping: CancellationToken,
}

impl App {
    /// The head of a branch that must exist.
    async fn head_of(&self, key: &BranchKey) -> Result<mstore_protocol::Head, Refusal> {
        self.store.head(key).await?.ok_or_else(|| Refusal::no_branch(key))
    }

    /// A collection that must exist.
    fn check_collection(collection: &Collection) -> Result<(), Refusal> {
        let known = Directory::collections();
        if known.contains(collection) { Ok(()) } else { Err(Refusal::no_collection(collection, &known)) }
    }
}

/// What handlers are given.
pub(crate) type State = axum::extract::State<Arc<App>>;
