//! The one binary: reads the command line, runs a command, turns its outcome into an exit code.
//!
//! Exit codes: 0 ok, 1 a check failed, 2 usage or configuration, 3 something needed is unavailable.

mod api;
mod args;
mod attach;
mod audit;
mod audit_log;
mod backend_config;
mod backup;
mod bench;
mod broker;
mod broker_accounts;
mod broker_config;
mod config;
mod data;
mod database;
mod demo;
mod descriptors;
mod device;
mod environment;
mod failure;
mod limits_config;
mod logging;
mod private_file;
mod serve;
mod server_process;
mod settings;
mod shop;
mod stock;
mod table;
mod tail;
mod tls_config;
mod tls_dev;
mod token;
mod trigger;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    args::{Cli, Command},
    failure::Failure,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // A name that is not text is not one of ours.
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    if let Err(failure) = environment::check(names) {
        return failure.report();
    }
    // One provider for every TLS connection of the process; a second installation would only say that there is one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::unavailable(format!("the async runtime did not start: {error}")).report(),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(*args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Device(args) => device::run(args).await,
        Command::Token(args) => token::run(args).await,
        Command::Audit(args) => audit_log::run(args).await,
        Command::Stock(args) => stock::run(args).await,
        Command::Tail(args) => tail::run(args).await,
        Command::Trigger(args) => trigger::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Attach(args) => attach::run(args).await,
        Command::Detach(args) => attach::detach(args).await,
        Command::Broker(args) => broker::run(args).await,
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Tls(args) => tls_dev::run(args),
        Command::Bench(args) => bench::run(args).await,
        Command::Explain(args) => failure::explain(&args.code),
    }
}
