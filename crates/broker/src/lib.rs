//! The server side of MQTT: who may do what, the broker that runs inside the server, and the way to one outside.
//!
//! It decides nothing about data: a payload is bytes and a topic is a string. It stores nothing: what a device missed, it reads over HTTP.
//! Authorisation is one pure function, [`decide`]; every adapter asks it and nothing else. Brokers that decide for themselves are told what it would
//! say, through a [`Registrar`].

mod allowance;
mod auth;
mod broker;
mod certificate;
mod dynsec;
mod embedded;
mod emqx;
mod external;
mod nats;
mod policy;
mod proxies;
mod rabbitmq;
mod receipt;
mod registrar;
mod visitors;

pub use allowance::{Allowance, Network, Rate};
pub use auth::DeviceAuth;
pub use broker::{Broker, BrokerStats, Kicked, Message, PublishError};
pub use certificate::{Certificate, CertificateError};
pub use dynsec::{Dynsec, DynsecAccounts, DynsecSetup};
pub use embedded::{BrokerLimits, EmbeddedBroker, EmbeddedConfig, ListenAddrs, StartError, TlsListen};
pub use emqx::{Emqx, EmqxApi, emqx_rules};
pub use external::{
    BrokerNode, BrokerUrl, BrokerUrlError, CanaryState, ExternalBroker, ExternalConfig, ExternalState, ExternalTiming, Login, TlsFiles,
    TlsFilesError,
};
pub use nats::{NATS_BEGIN, NATS_END, Nats, NatsConfig};
pub use policy::{ACL_MATRIX, Action, Decision, Denial, Principal, decide};
pub use proxies::Proxies;
pub use rabbitmq::{RabbitMq, RabbitMqApi, RabbitMqAsk, decide_rabbitmq};
pub use receipt::Receipt;
pub use registrar::{Account, AccountBook, AccountPage, Registrar, RegistrarError, Settled};
pub use visitors::{Visit, Visitors};
