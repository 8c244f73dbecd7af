//! The flags of a broker of one's own, and of the URLs that devices are told.

use clap::Args;

/// How to reach an external broker, and what devices are told to reach. Passwords come from files: a command line is public.
#[derive(Debug, Default, Args)]
pub(crate) struct ExternalArgs {
    /// Our client id at an external broker [default: mstore-backend-ENV].
    #[arg(long, value_name = "ID")]
    pub(crate) broker_client_id: Option<String>,
    /// Our account at an external broker.
    #[arg(long, value_name = "NAME")]
    pub(crate) broker_username: Option<String>,
    /// File with its password.
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_password_file: Option<String>,
    /// Authorities of an mqtts:// broker (PEM) [default: the system's].
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_ca: Option<String>,
    /// Our certificate chain at an mqtts:// broker (PEM).
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_cert: Option<String>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_key: Option<String>,
    /// Account that may read ENV/devices/canary/…: tells whether the broker forwards what we publish.
    #[arg(long, value_name = "NAME")]
    pub(crate) broker_canary_username: Option<String>,
    /// File with its password.
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_canary_password_file: Option<String>,
    /// mosquitto, rabbitmq, emqx or nats: this server keeps the devices' accounts there [default: whoever runs the broker does].
    #[arg(long, value_name = "KIND")]
    pub(crate) broker_kind: Option<String>,
    /// Account that keeps the devices' accounts.
    #[arg(long, value_name = "NAME")]
    pub(crate) broker_admin_username: Option<String>,
    /// File with its password.
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_admin_password_file: Option<String>,
    /// RabbitMQ's management API, EMQX's REST API, or NATS's monitoring.
    #[arg(long, value_name = "URL")]
    pub(crate) broker_admin_url: Option<String>,
    /// File of NATS's users.
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_users_file: Option<String>,
    /// File with NATS's process id.
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_pid_file: Option<String>,
    /// Private address where RabbitMQ or EMQX asks who may do what.
    #[arg(long, value_name = "ADDR")]
    pub(crate) hooks_listen: Option<String>,
    /// File with the secret that it shows there.
    #[arg(long, value_name = "FILE")]
    pub(crate) hooks_secret_file: Option<String>,
    /// What devices call over HTTP [default: the address that is listened on].
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// What devices connect to over MQTT [default: the broker's address].
    #[arg(long, value_name = "URL")]
    pub(crate) public_mqtt_url: Option<String>,
    /// The same over WebSocket.
    #[arg(long, value_name = "URL")]
    pub(crate) public_ws_url: Option<String>,
}
