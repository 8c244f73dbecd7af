//! The arguments of `attach` and `detach`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The database with your tables: postgres://user:password@host:port/database?sslmode=verify-full
    #[arg(long, env = "MSTORE_DATABASE", value_name = "URL", hide_env_values = true)]
    pub(crate) database: String,
    /// The mapping: read if it is there, otherwise proposed and written.
    #[arg(long, value_name = "FILE", default_value = "./attach.toml")]
    pub(crate) config: PathBuf,
    /// For a new mapping: the merchant, where no column names one [default: the database's name].
    #[arg(long, value_name = "ID")]
    pub(crate) merchant: Option<String>,
    /// For a new mapping: the ISO 4217 code of its prices, which no catalogue tells.
    #[arg(long, value_name = "CODE")]
    pub(crate) currency: Option<String>,
    /// For a new mapping: the branch, where no column of any table names one.
    #[arg(long, value_name = "ID", default_value = "main")]
    pub(crate) branch: String,
    /// Whether operations of tills are put into mstore.operation_inbox for your backend to decide [default: as the database has it, on in a new one].
    #[arg(long, value_name = "WHICH")]
    pub(crate) operation_inbox: Option<OnOff>,
    /// Show every statement.
    #[arg(long)]
    pub(crate) print_sql: bool,
    /// Stop before anything in the database is changed.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// A switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// On.
    On,
    /// Off.
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// The database.
    #[arg(long, env = "MSTORE_DATABASE", value_name = "URL", hide_env_values = true)]
    pub(crate) database: String,
    /// The collections; all when left out.
    pub(crate) collections: Vec<String>,
    /// Drop our schema as well, with everything in it: devices, operations, receipts.
    #[arg(long)]
    pub(crate) purge: bool,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}
