//! The command line of `broker`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::AdminArgs;

#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    #[command(subcommand)]
    pub(crate) action: BrokerAction,
}

/// The brokers that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BrokerKind {
    /// Mosquitto 2 with its dynamic-security plugin.
    Mosquitto,
    /// RabbitMQ 3 with its MQTT plugin, which asks the server.
    Rabbitmq,
    /// EMQX 5, which asks the server.
    Emqx,
    /// NATS with MQTT, whose users are lines of a file.
    Nats,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BrokerAction {
    /// Show what the broker needs: its configuration, and the server's own accounts. Nothing is changed without --apply.
    Setup(SetupArgs),
    /// Try every case of the access matrix on the live broker with throw-away devices; exit 1 if one goes wrong.
    Verify(VerifyBrokerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Which broker.
    pub(crate) kind: BrokerKind,
    /// First level of every topic.
    #[arg(long, default_value = "dev")]
    pub(crate) env: String,
    /// The broker.
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    pub(crate) url: String,
    /// Authorities of an mqtts:// broker (PEM) [default: the system's].
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_ca: Option<PathBuf>,
    /// Do it, on the running broker.
    #[arg(long, requires_all = ["admin_username", "admin_password_file"])]
    pub(crate) apply: bool,
    /// The broker's own administrator.
    #[arg(long, value_name = "NAME")]
    pub(crate) admin_username: Option<String>,
    /// File with its password.
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_password_file: Option<PathBuf>,
    /// Where the passwords of the accounts that are made are written.
    #[arg(long, value_name = "DIR", default_value = "./mstore-broker")]
    pub(crate) secrets_dir: PathBuf,
    /// Where RabbitMQ or EMQX asks: the server's --hooks-listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    pub(crate) hooks: String,
    /// File with the secret that it shows there; left out, a place in the text stands for it.
    #[arg(long, value_name = "FILE")]
    pub(crate) hooks_secret_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyBrokerArgs {
    /// Which broker.
    pub(crate) kind: BrokerKind,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// The broker [default: what the server tells devices].
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Authorities of an mqtts:// broker (PEM) [default: the system's].
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_ca: Option<PathBuf>,
    /// The server's own account there.
    #[arg(long, value_name = "NAME")]
    pub(crate) backend_username: String,
    /// File with its password.
    #[arg(long, value_name = "FILE")]
    pub(crate) backend_password_file: PathBuf,
    /// An account that may read and publish everything: without it nobody sees what arrives outside the tree, and those cases stay open.
    #[arg(long, value_name = "NAME", requires = "observer_password_file")]
    pub(crate) observer_username: Option<String>,
    /// File with its password.
    #[arg(long, value_name = "FILE", requires = "observer_username")]
    pub(crate) observer_password_file: Option<PathBuf>,
    /// RabbitMQ's management API, EMQX's REST API or NATS's monitoring, which tells the broker's version; Mosquitto tells the observer.
    #[arg(long, value_name = "URL")]
    pub(crate) broker_admin_url: Option<String>,
    /// Account there.
    #[arg(long, value_name = "NAME", requires = "broker_admin_url")]
    pub(crate) broker_admin_username: Option<String>,
    /// File with its password.
    #[arg(long, value_name = "FILE", requires = "broker_admin_username")]
    pub(crate) broker_admin_password_file: Option<PathBuf>,
    /// Only these cases, such as C05 or L.
    #[arg(long = "case", value_name = "NAME")]
    pub(crate) cases: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
