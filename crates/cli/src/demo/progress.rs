//! What is shown while the shop is open: a bar on a terminal, a line per scene in a pipe, nothing with `--json`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;

/// Progress of one demo.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Progress {
    pub(crate) fn new(open_for: Duration, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(open_for.as_millis().try_into().unwrap_or(u64::MAX));
            let style = ProgressStyle::with_template("  {bar:36} {percent:>3} %  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar
        });
        Self { bar, quiet }
    }

    /// A line that stays.
    #[allow(clippy::print_stderr)]
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("  {text}")),
            None if self.quiet => {}
            None => eprintln!("  {text}"),
        }
    }

    pub(crate) fn receipts(&self, count: usize) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{count} receipts"));
        }
    }

    pub(crate) fn elapsed(&self, elapsed: Duration) {
        if let Some(bar) = &self.bar {
            bar.set_position(elapsed.as_millis().try_into().unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
