//! Options of `backup` and `restore`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The server's data directory; the server may run.
    #[arg(long, value_name = "DIR", default_value = "./mstore-data")]
    pub(crate) data_dir: PathBuf,
    /// The directory to make; it must not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// A directory that `backup` made.
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// The data directory to make; it must not exist.
    #[arg(long, value_name = "DIR", default_value = "./mstore-data")]
    pub(crate) data_dir: PathBuf,
}
