//! Arguments of `bench`.

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) name: BenchName,
}

/// Options that every benchmark has.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchCommon {
    /// Print one JSON object on stdout and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
    /// Run the server on PostgreSQL: postgres://USER:PASSWORD@HOST/DATABASE. A database of the benchmark's own is made beside that one, and dropped at the
    /// end; without the right to make one, a schema `mstore` is made in it instead.
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// Stock movements through the HTTP API.
    Api,
    /// UPDATE statements by a foreign connection to the server's database.
    Sql,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchName {
    /// Writer's commit → device's own commit.
    Latency {
        #[arg(long, default_value_t = 1)]
        devices: usize,
        /// Writes per second.
        #[arg(long, default_value_t = 50)]
        rate: u64,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        #[arg(long, value_enum, default_value_t = Via::Api)]
        via: Via,
        #[command(flatten)]
        common: BenchCommon,
    },
    /// Changes per second to one device.
    Throughput {
        #[arg(long, default_value_t = 20_000)]
        changes: usize,
        #[arg(long, value_enum, default_value_t = Via::Sql)]
        via: Via,
        #[command(flatten)]
        common: BenchCommon,
    },
    /// Commits to many devices of one branch.
    Fanout {
        #[arg(long, default_value_t = 50)]
        devices: usize,
        #[arg(long, default_value_t = 2_000)]
        commits: usize,
        #[command(flatten)]
        common: BenchCommon,
    },
    /// First sync of one device.
    Snapshot {
        #[arg(long, default_value_t = 10_000)]
        rows: usize,
        #[command(flatten)]
        common: BenchCommon,
    },
    /// Many devices that start from nothing at the same moment.
    Storm {
        #[arg(long, default_value_t = 20)]
        devices: usize,
        #[arg(long, default_value_t = 20_000)]
        rows: usize,
        #[command(flatten)]
        common: BenchCommon,
    },
    /// Back online after many changes.
    Catchup {
        #[arg(long, default_value_t = 10_000)]
        changes: usize,
        #[command(flatten)]
        common: BenchCommon,
    },
    /// Writers' transactions per second with and without the triggers on their table; needs --database.
    Capture {
        /// Connections that write at one time.
        #[arg(long, default_value_t = 8)]
        writers: usize,
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// On an attached table instead of one of ours.
        #[arg(long)]
        attached: bool,
        #[command(flatten)]
        common: BenchCommon,
    },
    /// What it costs when there is much: a catalogue imported into all branches, commits, a price that changes everywhere, bytes on disk, memory.
    Growth {
        #[arg(long, default_value_t = 100)]
        branches: usize,
        /// Products of the catalogue; every branch has all of them.
        #[arg(long, default_value_t = 1_000)]
        rows: usize,
        /// Stock movements, each a commit of another branch.
        #[arg(long, default_value_t = 200)]
        commits: usize,
        #[command(flatten)]
        common: BenchCommon,
    },
    /// The embedded broker goes and comes again under many live tills: how soon they are live again, and what they ask for.
    Reconnect {
        #[arg(long, default_value_t = 5_000)]
        devices: usize,
        /// Branches that they are spread over.
        #[arg(long, default_value_t = 100)]
        branches: usize,
        /// Products; every branch has all of them.
        #[arg(long, default_value_t = 200)]
        rows: usize,
        #[command(flatten)]
        common: BenchCommon,
    },
    /// The tills of `reconnect`, in a process of their own.
    #[command(hide = true)]
    Fleet {
        #[command(flatten)]
        common: BenchCommon,
    },
    /// What it costs when nothing happens.
    Idle {
        #[arg(long, default_value_t = 50)]
        devices: usize,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        #[command(flatten)]
        common: BenchCommon,
    },
}

impl BenchName {
    /// The options that every benchmark has.
    pub(crate) fn common(&self) -> &BenchCommon {
        match self {
            Self::Latency { common, .. }
            | Self::Throughput { common, .. }
            | Self::Fanout { common, .. }
            | Self::Snapshot { common, .. }
            | Self::Storm { common, .. }
            | Self::Catchup { common, .. }
            | Self::Capture { common, .. }
            | Self::Growth { common, .. }
            | Self::Reconnect { common, .. }
            | Self::Fleet { common }
            | Self::Idle { common, .. } => common,
        }
    }
}
