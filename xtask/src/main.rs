//! All automation of the project as one small program: `cargo xtask --help`.
//!
//! It is compiled before every use, so it knows few libraries and none of our crates.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program talks through its terminal")]

mod cargo;
mod demo;
mod lint;
mod setup;
mod soak;
mod suite;
mod tidy;
mod torture;
mod totals;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, checks and shows MStore Sync")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the program and run its demo; what follows is passed on to `mstore-sync demo`
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Install what the tests need, run all of them, end with the totals
    Test {
        /// Install nothing: say what is missing, and let the tests that need it say that they are skipped
        #[arg(long)]
        no_install: bool,
        /// Run only the tests whose name contains this
        #[arg(long)]
        filter: Option<String>,
    },
    /// Run the simulation with ever new seeds; ends at the first that breaks a promise and prints the smallest run that does
    Soak {
        /// How long, minutes; 0: the first seed only
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// The first seed; none: another one every time
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Install the Debian packages that the tests need
    Setup,
    /// Build the web till into the directory that the server embeds (Node 20.19 or later)
    Web,
    /// Kill, stop, cut off and starve a server, a Mosquitto and a dozen tills, then look for every sale that a till confirmed
    Torture(torture::TortureArgs),
    /// Check the dependency rules and the shape of the sources
    Tidy {
        /// Record improvements in the ratchet; a worse count is refused
        #[arg(long)]
        bless: bool,
    },
    /// Formatting, clippy, tidy, and cargo-deny where it is installed; a warning is an error
    Lint,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo { args } => demo::run(&args),
        Command::Test { no_install, filter } => suite::run(no_install, filter.as_deref()),
        Command::Soak { minutes, seed } => soak::run(minutes, seed),
        Command::Web => web::fetch().and_then(|()| web::build()).map(|()| ExitCode::SUCCESS),
        Command::Torture(args) => torture::run(&args),
        Command::Setup => setup::install_missing().map(|()| ExitCode::SUCCESS),
        Command::Tidy { bless } => tidy::run(bless),
        Command::Lint => lint::run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
