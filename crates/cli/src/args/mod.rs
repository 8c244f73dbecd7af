//! The command line: names, defaults and help of every command. No behaviour.

mod access;
mod attach;
mod backend;
mod backup;
mod bench;
mod broker;
mod desk;
mod external;
mod limits;
mod run;
mod tls;

use std::{net::SocketAddr, path::PathBuf};

pub(crate) use access::{AuditArgs, Role, TokenAction, TokenArgs, time};
pub(crate) use attach::{AttachArgs, DetachArgs, OnOff};
pub(crate) use backup::{BackupArgs, RestoreArgs};
pub(crate) use bench::{BenchArgs, BenchName, Via};
pub(crate) use broker::{BrokerAction, BrokerArgs, BrokerKind, SetupArgs, VerifyBrokerArgs};
use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use desk::{Arrival, Letter, LetterAction, StockAction, StockArgs, Where};
pub(crate) use external::ExternalArgs;
pub(crate) use limits::LimitArgs;
use mstore_protocol::Profile;
pub(crate) use run::RunArgs;
pub(crate) use tls::{TlsAction, TlsArgs, TlsDevArgs, TlsServeArgs};

/// Keeps a shop's tills true: changes in milliseconds, sales exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "mstore-sync",
    version,
    about,
    after_help = "Exit codes: 0 ok, 1 a check failed, 2 usage or configuration, 3 something needed is unavailable."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server: HTTP API, sequencer, and the embedded broker or the way to yours.
    Serve(Box<ServeArgs>),
    /// A shop whose tills stay true, from one command: server, broker and real tills over loopback, then a verdict.
    Demo(DemoArgs),
    /// Add, list, rotate, revoke, lose, move or run a till.
    Device(DeviceArgs),
    /// Admin tokens: add, list, rotate, revoke.
    Token(TokenArgs),
    /// Who did what to tills, tokens and the books, when, and from where.
    Audit(AuditArgs),
    /// The books of the stock: exceptions, goods in transit.
    Stock(StockArgs),
    /// Watch what is published, live and decoded.
    Tail(TailArgs),
    /// Make something happen: a price change, a stock movement, a whole shop.
    Trigger(TriggerArgs),
    /// Compare source, mirror and tills; exit 1 if anything differs.
    Verify(VerifyArgs),
    /// Put capture on tables of your own PostgreSQL: look, propose a mapping, ask, install.
    Attach(AttachArgs),
    /// Take capture off again, without a trace.
    Detach(DetachArgs),
    /// Prepare a broker of your own, and try every forbidden thing on it.
    Broker(BrokerArgs),
    /// Copy the data directory of an embedded database while its server runs.
    Backup(BackupArgs),
    /// Put a backup where a server will find it.
    Restore(RestoreArgs),
    /// Certificates for trying things out.
    Tls(TlsArgs),
    /// Measure; ratios side by side in one run are worth more than absolute times.
    Bench(BenchArgs),
    /// What an error code means and what to do.
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The code, such as snapshot_required.
    pub(crate) code: String,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file (TOML). Order: file < environment (MSTORE_…) < flags.
    #[arg(long, env = "MSTORE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where the database, the keys and the lock live [default: ./mstore-data].
    #[arg(long)]
    pub(crate) data_dir: Option<String>,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
    #[command(flatten)]
    pub(crate) personal_data: PersonalDataArgs,
    /// First level of every topic [default: dev].
    #[arg(long)]
    pub(crate) env: Option<String>,
    /// production or development: whether tokens may cross a network in the clear [default: production].
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// HTTP address [default: 127.0.0.1:8080, 443 with TLS in the production profile].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// MQTT address [default: 127.0.0.1:1883, 8883 with TLS].
    #[arg(long, value_name = "ADDR")]
    pub(crate) mqtt_listen: Option<String>,
    /// MQTT over WebSocket address [default: 127.0.0.1:8083].
    #[arg(long, value_name = "ADDR")]
    pub(crate) ws_listen: Option<String>,
    /// embedded, or the URL of a broker: mqtt://host:port, mqtts://host:port; a cluster's nodes with commas between them [default: embedded].
    #[arg(long)]
    pub(crate) broker: Option<String>,
    #[command(flatten)]
    pub(crate) external: ExternalArgs,
    #[command(flatten)]
    pub(crate) backend: backend::BackendArgs,
    /// Days after which a till's token is refused; the till rotates it before [default: 0, never].
    #[arg(long, value_name = "DAYS")]
    pub(crate) device_token_max_age_days: Option<String>,
    #[command(flatten)]
    pub(crate) tls: TlsServeArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Log filter, such as info or mstore_server=debug [default: info].
    #[arg(long)]
    pub(crate) log: Option<String>,
    /// text or json [default: text].
    #[arg(long)]
    pub(crate) log_format: Option<String>,
    /// Print the configuration and where each value came from, then exit.
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Print one JSON line with the bound addresses when ready (for programs that start a server).
    #[arg(long, hide = true)]
    pub(crate) ready_json: bool,
}

/// A database of one's own. Its password comes from a file or the environment: a command line is public.
#[derive(Debug, Default, Args)]
pub(crate) struct DatabaseArgs {
    /// postgres://USER@HOST/DATABASE?sslmode=…&sslrootcert=…; left out: the embedded SQLite in the data directory.
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// File with the password of that user.
    #[arg(long, value_name = "FILE")]
    pub(crate) database_password_file: Option<String>,
}

/// What no device may hold.
#[derive(Debug, Default, Args)]
pub(crate) struct PersonalDataArgs {
    /// Kinds of personal data that no row and no operation may hold: card, email, phone, or off [default: card,email,phone].
    #[arg(long, value_name = "KINDS")]
    pub(crate) personal_data_refused: Option<String>,
    /// Fields that may hold anything, separated by commas, beside id, sku, barcode, receipt_no and those that end in _id.
    #[arg(long, value_name = "FIELDS")]
    pub(crate) personal_data_exempt: Option<String>,
}

/// What is kept, and for how long.
#[derive(Debug, Default, Args)]
pub(crate) struct RetentionArgs {
    /// Days that a transaction stays on the devices [default: 7].
    #[arg(long, value_name = "DAYS")]
    pub(crate) transaction_window_days: Option<String>,
    /// Days that deletions are remembered: a device away for longer fetches everything [default: 30].
    #[arg(long, value_name = "DAYS")]
    pub(crate) deletion_keep_days: Option<String>,
    /// Days that the bodies of operations are kept; their ids stay for ever [default: 60].
    #[arg(long, value_name = "DAYS")]
    pub(crate) operation_keep_days: Option<String>,
    /// Days that alarms are kept once they are over [default: 90].
    #[arg(long, value_name = "DAYS")]
    pub(crate) alarm_keep_days: Option<String>,
    /// Days that acts stay in the audit log [default: 400].
    #[arg(long, value_name = "DAYS")]
    pub(crate) audit_keep_days: Option<String>,
    /// Days that movements of the ledger are kept one by one; older ones become one per item, and go to an archive [default: 0, for ever].
    #[arg(long, value_name = "DAYS")]
    pub(crate) ledger_keep_days: Option<String>,
    /// Commits of a branch that are remembered, whatever their age: a device further behind fetches everything [default: 1000000].
    #[arg(long, value_name = "COMMITS")]
    pub(crate) commits_keep_max: Option<String>,
    /// Frames of a branch that wait for the broker; beyond that devices pull [default: 10000].
    #[arg(long, value_name = "FRAMES")]
    pub(crate) outbox_per_branch_max: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Faults {
    /// No faults beyond the story's own: tills that go offline, a broker restart.
    Calm,
    /// Frames lost and delayed, requests that fail, on every till.
    Flaky,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Branches of the merchant.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) branches: u32,
    /// Tills, spread over the branches.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) devices: u32,
    /// How long the shop is open, real seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    pub(crate) seconds: u64,
    /// Shop seconds per real second when receipts are replayed; closed hours are skipped.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) speed: u64,
    /// Receipts to replay (CSV, gzip or plain); without it a deterministic generator of the same shape.
    #[arg(long, value_name = "FILE.csv.gz")]
    pub(crate) data: Option<PathBuf>,
    /// What goes wrong beyond the story.
    #[arg(long, value_enum, default_value_t = Faults::Calm)]
    pub(crate) faults: Faults,
    /// Print one JSON object with the figures on stdout and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the shop running after the verdict until Ctrl-C.
    #[arg(long)]
    pub(crate) stay: bool,
    /// Run the server as a process of its own and kill it with SIGKILL in the middle of the traffic.
    #[arg(long)]
    pub(crate) kill_server: bool,
    /// Seed of everything that is drawn by lot.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// How to reach a server as an administrator.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArgs {
    /// The server's URL.
    #[arg(long, env = "MSTORE_SERVER", default_value = "http://127.0.0.1:8080")]
    pub(crate) server: String,
    /// File with the admin token; MSTORE_ADMIN_TOKEN wins over it.
    #[arg(long, env = "MSTORE_ADMIN_TOKEN_FILE", default_value = "./mstore-data/admin.token")]
    pub(crate) admin_token_file: PathBuf,
    /// production: tokens leave this machine over TLS only; development: they may cross a network in the clear.
    #[arg(long, env = "MSTORE_PROFILE", default_value_t = Profile::Production)]
    pub(crate) profile: Profile,
    /// PEM file of the only authorities to believe [default: the system's].
    #[arg(long, env = "MSTORE_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    #[command(subcommand)]
    pub(crate) action: DeviceAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceAction {
    /// Make a one-time claim code for a new till (or for one that lost its token).
    Add {
        /// merchant/branch, such as m1/b1.
        branch: String,
        /// The till's id; made up when left out.
        #[arg(long)]
        id: Option<String>,
        /// What people call it.
        #[arg(long, default_value = "")]
        name: String,
        /// Show the code as a QR code, for the till's camera; on a terminal it is shown anyway.
        #[arg(long)]
        qr: bool,
        /// Write the QR code into this file, readable by its owner only: who has the picture has the code.
        #[arg(long, value_name = "FILE")]
        png: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List tills with their state, staleness and queue.
    List {
        /// merchant/branch; all when left out.
        branch: Option<String>,
        #[command(flatten)]
        admin: AdminArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a till a new token; the old one ends at the first use of the new.
    Rotate {
        /// The till.
        id: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Shut a till out: credential gone, connection closed.
    Revoke {
        /// The till.
        id: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Shut out a till that nobody can find, and say what it held.
    Lost {
        /// The till.
        id: String,
        #[command(flatten)]
        admin: AdminArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Move a till to another branch of the merchant.
    Move {
        /// The till.
        id: String,
        /// The branch it belongs to from now on: b2, or m1/b2 with the merchant that it has.
        branch: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Rejected operations, of a till's own database or of the server: list, retry, edit, discard.
    DeadLetters {
        #[command(subcommand)]
        action: LetterAction,
    },
    /// Write a till's journal into a file that the server accepts.
    Export {
        /// The till's local database.
        #[arg(long, default_value = "./till.db")]
        db: PathBuf,
        /// The file to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Give the server a journal file of a till that cannot reach it. Twice, or beside the till's own upload, does no harm.
    HandIn {
        /// The file that `device export` wrote.
        file: PathBuf,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Delete a till's database; refused while it holds work that is neither sent nor exported.
    Wipe {
        /// The till's local database.
        #[arg(long)]
        db: PathBuf,
    },
    /// Be a till on this terminal: live stock, state, staleness, queue; a line of input sells something.
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Only this merchant/branch.
    #[arg(long)]
    pub(crate) branch: Option<String>,
    /// Only this collection.
    #[arg(long)]
    pub(crate) collection: Option<String>,
    /// Only frames whose type contains this.
    #[arg(long = "type")]
    pub(crate) frame_type: Option<String>,
    /// Only changes of this row id.
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Heads too.
    #[arg(long)]
    pub(crate) heads: bool,
    /// One JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Stop after this many messages.
    #[arg(long)]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct TriggerArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) action: TriggerAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TriggerAction {
    /// Make merchant, branch, products and stock of a small shop.
    Shop {
        /// merchant/branch.
        branch: String,
        /// How many products.
        #[arg(long, default_value_t = 24)]
        products: u32,
    },
    /// Move a product's stock by a delta.
    Stock {
        /// merchant/branch.
        branch: String,
        /// Row id.
        product: String,
        /// Signed decimal, such as -2 or 1.25.
        #[arg(allow_hyphen_values = true)]
        delta: String,
    },
    /// Count a product: the shelf holds this much.
    Count {
        /// merchant/branch.
        branch: String,
        /// Row id.
        product: String,
        /// Decimal, such as 41.
        quantity: String,
    },
    /// Change a product's price in the merchant's catalogue.
    Price {
        /// The merchant.
        merchant: String,
        /// Row id.
        product: String,
        /// Minor units of the merchant's currency.
        amount: i64,
    },
    /// Change every price of a merchant in one transaction.
    Bulk {
        /// The merchant.
        merchant: String,
        /// Per cent added to every price.
        #[arg(long, default_value_t = 5, allow_hyphen_values = true)]
        percent: i64,
    },
    /// Delete a product from the catalogue.
    Delete {
        /// The merchant.
        merchant: String,
        /// Row id.
        product: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Till databases to compare row by row with the server, besides what the tills report.
    #[arg(long, value_name = "FILE")]
    pub(crate) db: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Parses an address and says which setting was wrong.
pub(crate) fn address(name: &str, raw: &str) -> Result<SocketAddr, String> {
    raw.parse().map_err(|_| format!("{name} = {raw:?} is not an address like 127.0.0.1:8080"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn no_command_has_two_options_of_one_name() {
        super::Cli::command().debug_assert();
    }
}
