//! The commands of a manager's desk: rejected operations and the books of the stock.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::AdminArgs;

/// Whose dead letters: a till's own, by its database, or the server's.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// A till's local database; without it the server is asked. What is decided there is sent when the till runs next.
    #[arg(long, value_name = "FILE")]
    pub(crate) db: Option<PathBuf>,
    /// The merchant, at the server.
    #[arg(long, required_unless_present = "db", conflicts_with = "db")]
    pub(crate) merchant: Option<String>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// One dead letter.
#[derive(Debug, Args)]
pub(crate) struct Letter {
    /// The rejected operation.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) at: Where,
    /// Why, for the server's records.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LetterAction {
    /// List rejected operations that nobody has decided about.
    List {
        #[command(flatten)]
        at: Where,
        /// Of one branch only.
        #[arg(long)]
        branch: Option<String>,
        /// Of one till only.
        #[arg(long)]
        till: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send one again as it was, under a new id.
    Retry(Letter),
    /// Send something else in its place.
    Edit {
        #[command(flatten)]
        letter: Letter,
        /// File with the operation as JSON: `type` and what belongs to it; - reads standard input.
        #[arg(long, value_name = "FILE")]
        operation: PathBuf,
    },
    /// Give one up; it stays in the records.
    Discard(Letter),
}

#[derive(Debug, Args)]
pub(crate) struct StockArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) action: StockAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrival {
    /// In the commit that sends them.
    AtOnce,
    /// When the receiving branch says so.
    OnReceipt,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StockAction {
    /// What was sold or sent although the books said that it was not there.
    Oversells {
        /// The merchant.
        merchant: String,
        /// Of one branch only.
        #[arg(long)]
        branch: Option<String>,
        /// What is settled, too.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Somebody has looked after an exception.
    Settle {
        /// The merchant.
        merchant: String,
        /// The exception's number.
        n: u64,
        /// What was found out.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Goods on their way between branches.
    Transfers {
        /// The merchant.
        merchant: String,
        /// To or from one branch only.
        #[arg(long)]
        branch: Option<String>,
        /// Those that arrived, too.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Goods in transit are here.
    Receive {
        /// merchant/branch that has them now.
        branch: String,
        /// The transfer.
        id: String,
    },
    /// When transfers arrive, from now on.
    Arrival {
        /// The merchant.
        merchant: String,
        /// When.
        #[arg(value_enum)]
        arrival: Arrival,
    },
    /// Check that nothing was lost between branches; exit 1 if something was.
    Balance {
        /// The merchant.
        merchant: String,
    },
}
