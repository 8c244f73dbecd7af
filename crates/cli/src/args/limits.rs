//! The flags of the limits against abuse.

use clap::Args;

/// What one address, one device and all of them together may use.
#[derive(Debug, Default, Args)]
pub(crate) struct LimitArgs {
    /// Open connections, over HTTP and over MQTT each [default: 20000].
    #[arg(long, value_name = "CONNECTIONS")]
    pub(crate) connections_max: Option<String>,
    /// The same from one address [default: 8000].
    #[arg(long, value_name = "CONNECTIONS")]
    pub(crate) connections_per_address_max: Option<String>,
    /// HTTP requests worked on at one time [default: 4096].
    #[arg(long, value_name = "REQUESTS")]
    pub(crate) requests_max: Option<String>,
    /// The same from one address [default: 768].
    #[arg(long, value_name = "REQUESTS")]
    pub(crate) requests_per_address_max: Option<String>,
    /// Seconds from an MQTT connection's beginning to its login [default: 10].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) login_timeout_s: Option<String>,
    /// Seconds for a request's head, and again for its body [default: 30].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) request_timeout_s: Option<String>,
    /// Wrong claim codes from one address: at once, and per minute from then on [default: 20+20/min].
    #[arg(long, value_name = "RATE")]
    pub(crate) wrong_claims_rate: Option<String>,
    /// Wrong credentials from one address [default: 600+60/min].
    #[arg(long, value_name = "RATE")]
    pub(crate) wrong_logins_rate: Option<String>,
    /// Uploads of one device [default: 600+1200/min].
    #[arg(long, value_name = "RATE")]
    pub(crate) uploads_rate: Option<String>,
    /// Snapshots of one device [default: 60+30/min].
    #[arg(long, value_name = "RATE")]
    pub(crate) snapshots_rate: Option<String>,
}
