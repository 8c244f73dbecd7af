//! The options of a till on this terminal.

use std::path::PathBuf;

use clap::Args;
use mstore_protocol::Profile;

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The server's URL.
    #[arg(long, env = "MSTORE_SERVER", default_value = "http://127.0.0.1:8080")]
    pub(crate) server: String,
    /// production: tokens leave this machine over TLS only; development: they may cross a network in the clear.
    #[arg(long, env = "MSTORE_PROFILE", default_value_t = Profile::Production)]
    pub(crate) profile: Profile,
    /// PEM file of the only authorities to believe [default: the system's].
    #[arg(long, env = "MSTORE_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The till's local database.
    #[arg(long, default_value = "./till.db")]
    pub(crate) db: PathBuf,
    /// Claim code from `device add`, or the text of its QR code, which names the server, too: the first time, and after the till was moved, revoked or lost its
    /// token. A command line is public on its machine: MSTORE_CLAIM is not.
    #[arg(long, env = "MSTORE_CLAIM", hide_env_values = true)]
    pub(crate) claim: Option<String>,
    /// One JSON line per change of status instead of the table; commands come from stdin all the same.
    #[arg(long)]
    pub(crate) json: bool,
}
