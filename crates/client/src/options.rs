//! How a client behaves.

use std::time::Duration;

use mstore_protocol::limits::POLL_INTERVAL_S;

/// Settings of a client; the defaults are right for a till.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time between two polls while MQTT is down: the bound of staleness. Default 300 s.
    pub poll_interval: Duration,
    /// Time between two reports to the server; `None` switches them off. Default 60 s.
    pub report_interval: Option<Duration>,
    /// How long to wait for frames that overtook each other before asking. Default 100 ms.
    pub reorder_window: Duration,
    /// Seed of all jitter; `None` takes one from the operating system. Give one in tests.
    pub seed: Option<u64>,
    /// Trouble made on purpose, for tests and demos. Default none.
    pub faults: Faults,
    /// MQTT over this address instead of the one from enrolment: `mqtt://host:port` or `mqtts://host:port`. Default none.
    pub mqtt_url: Option<String>,
    /// Whether the client starts with a network ([`crate::Client::set_online`]). Default true.
    pub online: bool,
    /// Version of the app, for reports. Default: this crate's.
    pub client_version: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(POLL_INTERVAL_S),
            report_interval: Some(Duration::from_secs(60)),
            reorder_window: Duration::from_millis(100),
            seed: None,
            faults: Faults::default(),
            mqtt_url: None,
            online: true,
            client_version: concat!("mstore-client/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

/// Probabilities of trouble, 0 to 1; which messages are hit follows from [`Options::seed`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// A frame is lost on its way.
    pub drop_frame: f64,
    /// A frame, and all behind it, comes late.
    pub delay_frame: f64,
    /// By at most this.
    pub delay_max: Duration,
    /// An HTTP call fails before it reaches the server.
    pub fail_http: f64,
    /// The answer of an HTTP call is lost after the server has acted.
    pub lose_answer: f64,
}
