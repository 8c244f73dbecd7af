//! What a server is started with: checked values only, nothing is looked up elsewhere.

use std::{fmt, sync::Arc, time::Duration};

use mstore_broker::{Certificate, EmbeddedConfig, EmqxApi, ExternalConfig, NatsConfig, Proxies, RabbitMqApi, Rate};
use mstore_protocol::{Env, Profile, Timestamp, limits::HEAD_INTERVAL_S};

use crate::{AdminToken, HooksConfig, MasterKey, WebhookConfig};

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
    /// What the HTTP listener shows, which then speaks TLS.
    pub certificate: Option<Arc<Certificate>>,
    /// Addresses of proxies that end TLS in front: what they say about a client's address counts, and no per-address bound holds for them.
    pub proxies: Proxies,
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
            certificate: None,
            proxies: Proxies::default(),
            broker: broker.into(),
            accounts: BrokerAccounts::default(),
            public: PublicUrls::default(),
            webhook: None,
            file_token_name: "bootstrap".to_owned(),
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
            "ServerConfig({}, {}, {:?}, {:?}, {:?}, {:?}, {:?}, {:?}, {:?}, {:?}, secrets …)",
            self.env,
            self.profile,
            self.certificate,
            self.proxies,
            self.broker,
            self.accounts,
            self.public,
            self.webhook,
            self.limits,
            self.timing
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
    /// Open HTTP connections at one time, default 20,000; further ones are closed at once.
    pub connections_max: usize,
    /// The same from one address, default 8,000: a whole chain may sit behind one.
    pub connections_per_address_max: usize,
    /// Requests worked on at one time, default 4,096; further ones are answered 503 with `Retry-After: 1`.
    pub requests_max: usize,
    /// The same from one address, default 768.
    pub requests_per_address_max: usize,
    /// From the end of one answer to the end of the next request's head, default 30 s: a slow or hostile client, or an idle connection, is
    /// closed then. Lower and devices connect more often; higher and idle ones cost memory.
    pub header_timeout: Duration,
    /// For a request's body, default 30 s.
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer, default 20 s.
    pub write_timeout: Duration,
    /// Memory of cached `/changes` answers, default 64 MiB; beyond it the longest unused ones go.
    pub answers_bytes_max: usize,
    /// Wrong claim codes from one address, default 20 and one more every 3 s.
    pub wrong_claims: Rate,
    /// Wrong credentials from one address, default 600 and one more every second; right ones are let in all the same.
    pub wrong_logins: Rate,
    /// Uploads of one device, default 600 and one more every 50 ms.
    pub uploads: Rate,
    /// Snapshots of one device from their beginning, default 60 and one more every 2 s.
    pub snapshots: Rate,
    /// How long requests under way may take after a shutdown began, default 10 s.
    pub shutdown_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            connections_per_address_max: 8_000,
            requests_max: 4_096,
            requests_per_address_max: 768,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(20),
            answers_bytes_max: 64 * 1024 * 1024,
            wrong_claims: Rate { burst: 20, refill_ms: 3_000 },
            wrong_logins: Rate { burst: 600, refill_ms: 1_000 },
            uploads: Rate { burst: 600, refill_ms: 50 },
            snapshots: Rate { burst: 60, refill_ms: 2_000 },
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
    /// Between two looks at the certificate's files, default 60 s.
    pub certificate_interval: Duration,
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
            certificate_interval: Duration::from_secs(60),
            survey_interval: Duration::from_secs(300),
        }
    }
}
