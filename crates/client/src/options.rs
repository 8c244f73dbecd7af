//! How a client behaves.

use std::{path::PathBuf, time::Duration};

use mstore_protocol::{Enrolment, Profile, limits::POLL_INTERVAL_S};

use crate::{error::OpenError, trust::Trust};

/// Settings of a client; the defaults are right for a till.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the device's token may travel. Default production: over TLS, or on loopback; every other address is refused with `insecure_url`.
    /// Development lets it cross any network in the clear, where whoever listens becomes this device.
    pub profile: Profile,
    /// PEM file of the authorities that may have signed the server's and the broker's certificates. Default none: the operating system's. With
    /// one, nobody else is believed.
    pub ca_file: Option<PathBuf>,
    /// Time between two polls while MQTT is down: the bound of staleness. Default 300 s.
    pub poll_interval: Duration,
    /// Time between two reports to the server; `None` switches them off. Default 60 s.
    pub report_interval: Option<Duration>,
    /// How long to wait for frames that overtook each other before asking. Default 100 ms.
    pub reorder_window: Duration,
    /// Seed of all jitter and of the first of several broker nodes; `None` takes one from the operating system. Give one in tests.
    pub seed: Option<u64>,
    /// Trouble made on purpose, for tests and demos. Default none.
    pub faults: Faults,
    /// MQTT over this address instead of the one from enrolment: `mqtt://host:port` or `mqtts://host:port`; nodes of a cluster with
    /// commas between them, of which every connection takes the next. Default none.
    pub mqtt_url: Option<String>,
    /// Whether the client starts with a network ([`crate::Client::set_online`]). Default true.
    pub online: bool,
    /// Version of the app, for reports. Default: this crate's.
    pub client_version: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::Production,
            ca_file: None,
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

impl Options {
    /// Whom the device believes.
    pub(crate) fn trust(&self) -> Result<Trust, OpenError> {
        Trust::read(self.ca_file.as_deref())
    }

    /// The broker's address, from here or from the enrolment.
    pub(crate) fn broker_url<'a>(&'a self, enrolment: &'a Enrolment) -> &'a str {
        self.mqtt_url.as_deref().unwrap_or(&enrolment.mqtt_url)
    }

    /// Refuses a device whose token would go where it may not go.
    pub(crate) fn check_urls(&self, server_url: &str, enrolment: &Enrolment) -> Result<(), OpenError> {
        self.check_url(server_url)?;
        self.check_url(self.broker_url(enrolment))
    }

    /// Refuses an address to which the device's token may not go.
    pub(crate) fn check_url(&self, url: &str) -> Result<(), OpenError> {
        if self.profile.allows(url) { Ok(()) } else { Err(OpenError::Insecure { url: url.to_owned() }) }
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
