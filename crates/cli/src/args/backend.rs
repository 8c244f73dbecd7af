//! How operations reach the backend of a merchant that decides.

use clap::Args;

/// Operations for a backend that decides. The secret comes from a file: a command line is public.
#[derive(Debug, Default, Args)]
pub(crate) struct BackendArgs {
    /// Where operations of merchants whose backend decides are posted: https://…; left out: the backend reads them from the table operation_inbox.
    #[arg(long, value_name = "URL")]
    pub(crate) webhook_url: Option<String>,
    /// File with the secret that deliveries are signed with, at least 16 bytes.
    #[arg(long, value_name = "FILE")]
    pub(crate) webhook_secret_file: Option<String>,
    /// on or off: whether operations of such merchants are put into operation_inbox [default: on with a webhook, otherwise as the database has it].
    #[arg(long, value_name = "on|off")]
    pub(crate) operation_inbox: Option<String>,
}
