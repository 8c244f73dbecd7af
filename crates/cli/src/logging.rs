//! Where log lines go: stderr, as text or JSON, so that stdout belongs to the command.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

use crate::failure::Failure;

/// Starts logging; a filter that cannot be parsed is a configuration error.
pub(crate) fn start(filter: &str, json: bool) -> Result<(), Failure> {
    // The MQTT library logs whole packets below this level, credentials among them.
    let filter = EnvFilter::try_new(format!("{filter},rmqtt=warn,rmqtt_net=warn,rmqtt_codec=warn"))
        .map_err(|error| Failure::usage(format!("log = {filter:?}: {error}")))?;
    // Otherwise a line that cannot be written is reported on stderr, and a stderr that cannot be written is a panic: a full log disk would end
    // the thread that logs.
    let builder = fmt().log_internal_errors(false).with_env_filter(filter);
    let builder = builder.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let started = if json { builder.json().flatten_event(true).try_init() } else { builder.with_target(false).try_init() };
    // A second start in one process (tests) keeps the first.
    drop(started);
    Ok(())
}
