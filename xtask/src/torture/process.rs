//! A child process that is read line by line, stopped, continued and killed; it dies with its owner.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, ensure};

pub(super) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it; every line that it prints goes to `heard`, and what it complains about to the end of the file `complaints`.
    pub(super) fn start(command: &mut Command, complaints: &Path, mut heard: impl FnMut(&str) + Send + 'static) -> Result<Self> {
        let log = File::options().create(true).append(true).open(complaints).with_context(|| complaints.display().to_string())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let output = child.stdout.take().expect("piped above");
        let input = child.stdin.take();
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                heard(&line);
            }
        });
        Ok(Self { child, input, reader: Some(reader) })
    }

    /// Gives it a line; a process that is gone does not hear it.
    pub(super) fn say(&mut self, line: &str) {
        if let Some(input) = &mut self.input {
            let _deaf = writeln!(input, "{line}");
        }
    }

    /// SIGKILL; returns when it is gone and everything that it printed was heard.
    pub(super) fn kill(mut self) {
        self.end();
    }

    /// Waits for an end that it was told to come to, or that it came to on its own.
    pub(super) fn ended(mut self) -> Result<ExitStatus> {
        drop(self.input.take());
        let status = self.child.wait()?;
        self.join();
        Ok(status)
    }

    /// How it ended, if it has.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal by name.
    pub(super) fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "kill -{name} failed");
        Ok(())
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn end(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        self.join();
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has said so.
            let _said = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a program to its end; its output, or what it complained about.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {}", command.get_program().display(), complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn what_was_printed_before_a_kill_is_heard() {
        let (sender, heard) = mpsc::sync_channel(8);
        let complaints = std::env::temp_dir().join(format!("complaints-{}", std::process::id()));
        let mut cat = Process::start(&mut Command::new("cat"), &complaints, move |line| sender.send(line.to_owned()).unwrap()).unwrap();
        cat.say("one");
        assert_eq!(heard.recv().unwrap(), "one");
        assert!(cat.has_ended().is_none());
        cat.kill();
        assert!(heard.recv().is_err(), "the reader is gone");
        std::fs::remove_file(complaints).unwrap();
    }
}
