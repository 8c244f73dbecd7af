//! Statements through `psql`: a writer that is not ours.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use super::tool;

/// Runs statements on the database at an address, one after the other; what they print, unaligned and without headings, fields divided by `|`.
///
/// # Panics
/// At the first statement that fails.
pub fn psql(url: &str, sql: &str) -> String {
    try_psql(url, sql).unwrap_or_else(|complaint| panic!("psql: {complaint}\n{sql}"))
}

/// As [`psql()`].
///
/// # Errors
/// What psql complained about, at the first statement that fails.
pub fn try_psql(url: &str, sql: &str) -> Result<String, String> {
    let mut child =
        command(url).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql comes with PostgreSQL");
    let mut input = child.stdin.take().expect("piped above");
    let sql = sql.to_owned();
    // Beside it, as it may print before it has read everything.
    let writer = std::thread::spawn(move || {
        let _ended_early = input.write_all(sql.as_bytes());
    });
    let output = child.wait_with_output().expect("a child can be waited for");
    let _ended_early = writer.join();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn command(url: &str) -> Command {
    let mut command = tool("psql");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]);
    command
}
