//! How a command fails: an exit code that scripts rely on, a sentence that says what and why, and the next step.

use std::process::ExitCode;

use mstore_protocol::{Code, Problem};

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    message: String,
    next: Option<String>,
}

impl Failure {
    /// A check failed: exit code 1.
    pub(crate) fn check(message: impl Into<String>) -> Self {
        Self { exit: 1, message: message.into(), next: None }
    }

    /// Wrong usage or configuration: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: 2, message: message.into(), next: None }
    }

    /// Something needed is unavailable: exit code 3.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self { exit: 3, message: message.into(), next: None }
    }

    /// With what to do about it.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Says it on stderr and gives the exit code.
    #[allow(clippy::print_stderr)]
    pub(crate) fn report(self) -> ExitCode {
        eprintln!("mstore-sync: {}", self.message);
        if let Some(next) = self.next {
            eprintln!("  next: {next}");
        }
        ExitCode::from(self.exit)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// The server's refusals keep their code; what can be had by waiting is "unavailable", the rest a failed check.
impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = match problem.status {
            429 | 500..=599 => 3,
            400 | 401 | 403 | 413 => 2,
            _ => 1,
        };
        Self { exit, message: format!("{} ({})", problem.detail, problem.code), next: Some(problem.next) }
    }
}

/// `explain CODE`: what a code means and what to do.
#[allow(clippy::print_stdout)]
pub(crate) fn explain(raw: &str) -> Result<(), Failure> {
    let Some(code) = Code::parse(raw) else {
        let all = Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("{raw} is not a code")).next(format!("one of {all}")));
    };
    println!(
        "{code}\n  {}\n  HTTP {}, {}",
        code.title(),
        code.http_status(),
        if code.is_retryable() { "worth trying again" } else { "not worth trying again as it is" }
    );
    println!("  next: {}", code.next_step());
    Ok(())
}
