//! What a server is started with: checked values only, nothing is looked up elsewhere.

use std::{fmt, sync::Arc, time::Duration};

use mstore_broker::{EmbeddedConfig, EmqxApi, ExternalConfig, NatsConfig, RabbitMqApi};
use mstore_protocol::{Env, Profile, Timestamp, limits::HEAD_INTERVAL_S};

use crate::{AdminToken, HooksConfig, MasterKey, TrustedProxies, WebhookConfig};

/// Tells the time; tests bring their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The system's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}

/// Everything a server needs besides its store and its listener.
#[derive(Clone)]
pub struct ServerConfig {
    /// The deployment: first level of every topic.
    pub env: Env,
    /// Whether tokens may cross a network in the clear, default production: then a server that tells devices such a URL says so when it starts.
    pub profile: Profile,
    /// What tokens are made and checked with.
    pub secrets: Secrets,
    /// The broker that devices are reached through.
    pub broker: BrokerConfig,
    /// How an external broker knows the devices; means nothing to the embedded one.
    pub accounts: BrokerAccounts,
    /// What devices are told to connect to, where it differs from the bound addresses.
    pub public: PublicUrls,
    /// Where operations of merchants whose backend decides are delivered; none: the backend reads them where they are.
    pub webhook: Option<WebhookConfig>,
    /// What the token of [`Secrets`] is called in the database, default `bootstrap`. Servers that share a database and have files of their own need names of
    /// their own.
    pub file_token_name: String,
    /// Proxies whose word for a caller's address counts, default none.
    pub trusted_proxies: TrustedProxies,
    /// A device's token is refused when it is older, default never; a device rotates it when two thirds of that are over.
    pub device_token_max_age: Option<Duration>,
    /// Bounds.
    pub limits: ServerLimits,
    /// Intervals of the background work.
    pub timing: Timing,
    /// The clock of claims, reports and readiness.
    pub clock: Clock,
}

impl ServerConfig {
    /// Default bounds and intervals, the system's clock, addresses as they are bound.
    pub fn new(env: Env, secrets: Secrets, broker: impl Into<BrokerConfig>) -> Self {
        Self {
            env,
            profile: Profile::default(),
            secrets,
            broker: broker.into(),
            accounts: BrokerAccounts::default(),
            public: PublicUrls::default(),
            webhook: None,
            file_token_name: "bootstrap".to_owned(),
            trusted_proxies: TrustedProxies::default(),
            device_token_max_age: None,
            limits: ServerLimits::default(),
            timing: Timing::default(),
            clock: system_clock(),
        }
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ServerConfig({}, {}, {:?}, {:?}, {:?}, {:?}, {:?}, {:?}, secrets …)",
            self.env, self.profile, self.broker, self.accounts, self.public, self.webhook, self.limits, self.timing
        )
    }
}

/// The broker that devices are reached through.
#[derive(Debug, Clone)]
pub enum BrokerConfig {
    /// One in this process.
    Embedded(EmbeddedConfig),
    /// One that others run; devices' accounts there are theirs too.
    External(ExternalConfig),
}

impl From<EmbeddedConfig> for BrokerConfig {
    fn from(config: EmbeddedConfig) -> Self {
        Self::Embedded(config)
    }
}

impl From<ExternalConfig> for BrokerConfig {
    fn from(config: ExternalConfig) -> Self {
        Self::External(config)
    }
}

/// How an external broker knows the devices.
#[derive(Debug, Clone, Default)]
pub enum BrokerAccounts {
    /// Whoever runs it makes their accounts.
    #[default]
    Operators,
    /// Mosquitto's dynamic-security plugin, told by this account.
    Mosquitto(ExternalConfig),
    /// RabbitMQ asks, and its management API ends sessions.
    RabbitMq(HooksConfig, RabbitMqApi),
    /// EMQX asks, and its REST API ends sessions.
    Emqx(HooksConfig, EmqxApi),
    /// NATS reads its users from a file on this machine.
    Nats(NatsConfig),
}

impl BrokerAccounts {
    /// Where the broker asks, if it does.
    pub(crate) fn hooks(&self) -> Option<&HooksConfig> {
        match self {
            Self::Operators | Self::Mosquitto(_) | Self::Nats(_) => None,
            Self::RabbitMq(hooks, _) | Self::Emqx(hooks, _) => Some(hooks),
        }
    }
}

/// The two secrets of a server.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// Device tokens are derived from it.
    pub master_key: MasterKey,
    /// The first platform token. The database keeps its hash; a token that ended there opens nothing any more.
    pub admin_token: AdminToken,
}

/// URLs that devices are told, when a proxy or a name stands before the server. Unset ones are built from the bound addresses, or are the
/// external broker's; a listener on all interfaces is named by the `Host` that the device called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicUrls {
    /// `https://sync.example.com`.
    pub http: Option<String>,
    /// `mqtts://sync.example.com:8883`.
    pub mqtt: Option<String>,
    /// `wss://sync.example.com/mqtt`.
    pub ws: Option<String>,
}

/// Bounds of the HTTP side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Open HTTP connections at one time, default 20,000; further ones wait in the listener's backlog.
    pub connections_max: usize,
    /// Requests worked on at one time, default 1,024; further ones are answered 503 with `Retry-After: 1`.
    pub requests_max: usize,
    /// From the end of one answer to the end of the next request's head, default 30 s: a slow or hostile client, or an idle connection, is
    /// closed then. Lower and devices connect more often; higher and idle ones cost memory.
    pub header_timeout: Duration,
    /// For a request's body, default 30 s.
    pub body_timeout: Duration,
    /// Memory of cached `/changes` answers, default 64 MiB; beyond it the longest unused ones go.
    pub answers_bytes_max: usize,
    /// Wrong claim codes from one address before it must wait, default 20; one more every 3 s.
    pub wrong_claims_max: u32,
    /// How long requests under way may take after a shutdown began, default 10 s.
    pub shutdown_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            requests_max: 1_024,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            answers_bytes_max: 64 * 1024 * 1024,
            wrong_claims_max: 20,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// Intervals of the background work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// A changed branch's head is sent this long after its first unsent change, default 1 s: at most one head a second.
    pub head_after_change: Duration,
    /// A quiet branch's head is sent again after this, default 60 s. Above 90 s devices poll although MQTT works.
    pub head_interval: Duration,
    /// Between two slices of the sweep, default 2 s; slices are sized so that everything is compared within the hour.
    pub sweep_interval: Duration,
    /// Between two rounds of upkeep, default 5 min.
    pub upkeep_interval: Duration,
    /// Between two readings of the gauges, default 5 s.
    pub gauges_interval: Duration,
    /// Between two looks over the fleet, default 30 s; a look that takes long makes the pause longer.
    pub fleet_interval: Duration,
    /// Between two comparisons of an external broker's accounts with the registry, default 5 min: what somebody changed there lasts that long.
    pub survey_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            head_after_change: Duration::from_secs(1),
            head_interval: Duration::from_secs(HEAD_INTERVAL_S),
            sweep_interval: Duration::from_secs(2),
            upkeep_interval: Duration::from_secs(300),
            gauges_interval: Duration::from_secs(5),
            fleet_interval: Duration::from_secs(30),
            survey_interval: Duration::from_secs(300),
        }
    }
}
