//! The options of TLS: what the server shows, and how certificates for a first try are made.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What the server's listeners show, or who does it for them.
#[derive(Debug, Default, Args)]
pub(crate) struct TlsServeArgs {
    /// Certificate chain (PEM): HTTP, MQTT and WebSocket speak TLS. Read again at SIGHUP and when it changes.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<String>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<String>,
    /// Addresses of proxies that end TLS in front of this server, separated by commas: it may then listen without TLS for other machines.
    #[arg(long, value_name = "ADDRS")]
    pub(crate) tls_proxy: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    #[command(subcommand)]
    pub(crate) action: TlsAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TlsAction {
    /// Make an authority of your own and a server certificate from it, for trying things out. Again: the authority stays.
    Dev(TlsDevArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TlsDevArgs {
    /// Where the files go.
    #[arg(long, default_value = "./mstore-tls")]
    pub(crate) dir: PathBuf,
    /// Names and addresses that the certificate is for, beside localhost, 127.0.0.1 and ::1.
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Days until the server's certificate ends.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=825))]
    pub(crate) days: u32,
}
