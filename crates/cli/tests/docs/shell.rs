//! One `bash -e` for a page: commands go in one by one, output comes back line by line, everything is ended with the page.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::page::{Step, first_missing};
use crate::ports::Ports;

/// How long a command may take, and a background one to print what is waited for.
const STEP_MAX: Duration = Duration::from_secs(120);
/// How long a server may take to end once it has been asked to.
const GOODBYE_MAX: Duration = Duration::from_secs(10);
/// Printed by the shell when a command has ended well.
const DONE: &str = "\u{1}done\u{1}";

/// A running shell in a process group of its own.
pub(crate) struct Shell {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
    background: Vec<Receiver<String>>,
    directory: PathBuf,
    ports: Ports,
}

impl Shell {
    /// Starts in `directory`, which is also the home, with `programs` first on the path and nothing else inherited.
    pub(crate) fn start(directory: &Path, programs: &Path, ports: Ports) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc", "-e"])
            .current_dir(directory)
            .env_clear()
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", programs.display()))
            .envs([("HOME", directory), ("TMPDIR", directory)])
            .envs([("LANG", "C.UTF-8"), ("TERM", "dumb")])
            .envs(ports.variables())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("bash is installed");
        let mut input = child.stdin.take().expect("stdin was asked for");
        let output = lines_of(child.stdout.take().expect("stdout was asked for"));
        writeln!(input, "exec 2>&1").expect("a shell that has just started reads");
        Self { child, input, output, background: Vec::new(), directory: directory.to_owned(), ports }
    }

    /// Runs one command of a page; a fault says what was missing and shows what was printed.
    pub(crate) fn run(&mut self, step: &Step) -> Result<(), String> {
        let command = self.ports.put_into(&step.command);
        check_syntax(&command)?;
        let mut expected: Vec<String> = step.expected.iter().map(|line| self.ports.put_into(line)).collect();
        if !step.is_background {
            let output = self.foreground(&command)?;
            return match first_missing(&output, &expected) {
                Some(line) => Err(format!("did not print `{line}`, but:\n{}", output.join("\n"))),
                None => Ok(()),
            };
        }
        let output = self.start_in_background(&command)?;
        let text: Vec<String> = step.wait_for.iter().map(|text| self.ports.put_into(text)).collect();
        let has_all = |seen: &[String]| first_missing(seen, &expected).is_none() && first_missing(seen, &text).is_none();
        let waited = wait_until(&output, has_all);
        self.background.push(output);
        waited.map_err(|(why, seen)| {
            expected.extend(text);
            format!("{why} before it printed `{}`, but:\n{}", expected.join("`, `"), seen.join("\n"))
        })
    }

    /// Runs a command to its end; its output, or the fault that it did not end well.
    fn foreground(&mut self, command: &str) -> Result<Vec<String>, String> {
        self.send(&format!("{{\n{command}\n}} </dev/null\nprintf '\\n%s\\n' '{DONE}'"))?;
        let mut lines = Vec::new();
        let deadline = Instant::now() + STEP_MAX;
        loop {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == DONE => return Ok(lines),
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Timeout) => return Err(format!("took over {STEP_MAX:?}:\n{}", lines.join("\n"))),
                Err(RecvTimeoutError::Disconnected) => return Err(format!("failed:\n{}", lines.join("\n"))),
            }
        }
    }

    fn start_in_background(&mut self, command: &str) -> Result<Receiver<String>, String> {
        let pipe = format!(".background-{}", self.background.len());
        let path = self.directory.join(&pipe);
        self.foreground(&format!("mkfifo '{}'", path.display()))?;
        self.send(&format!("{{\n{command}\n}} </dev/null >'{}' 2>&1 &", path.display()))?;
        // Opens as soon as the command's side does.
        let output = File::open(&path).map_err(|fault| format!("cannot read the command's output: {fault}"))?;
        Ok(lines_of(output))
    }

    fn send(&mut self, script: &str) -> Result<(), String> {
        // In one write: a shell that a command of the script ends must not be gone before its last byte is sent.
        self.input.write_all(format!("{script}\n").as_bytes()).map_err(|_closed| "an earlier command ended the shell".to_owned())
    }

    /// Sends a signal to the shell and to all that it started.
    fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let mut kill = Command::new("kill");
        kill.args(["-s", name, "--", &group]).stdout(Stdio::null()).stderr(Stdio::null());
        // Nobody left to signal is what is wanted.
        let _nobody_left = kill.status();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.signal("TERM");
        let deadline = Instant::now() + GOODBYE_MAX;
        for output in &self.background {
            while output.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        }
        self.signal("KILL");
        // The shell has been killed; its exit status says only that.
        let _killed = self.child.wait();
    }
}

/// A quote that is not closed would take the next commands for its text, and the page would hang.
fn check_syntax(command: &str) -> Result<(), String> {
    let check = Command::new("bash").args(["-n", "-c", command]).output().map_err(|fault| fault.to_string())?;
    let complaint = String::from_utf8_lossy(&check.stderr);
    if check.status.success() { Ok(()) } else { Err(format!("is no command: {complaint}")) }
}

/// Reads lines on a thread of their own, so that they can be waited for with a deadline.
fn lines_of(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Collects lines until they suffice; otherwise why no more came, and those that did.
fn wait_until(output: &Receiver<String>, suffice: impl Fn(&[String]) -> bool) -> Result<(), (String, Vec<String>)> {
    let deadline = Instant::now() + STEP_MAX;
    let mut seen = Vec::new();
    while !suffice(&seen) {
        match output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => seen.push(line),
            Err(RecvTimeoutError::Timeout) => return Err((format!("{STEP_MAX:?} passed"), seen)),
            Err(RecvTimeoutError::Disconnected) => return Err(("it ended".to_owned(), seen)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::parse;

    /// Runs a page's block; the first fault.
    fn run(block: &str) -> Result<(), String> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut shell = Shell::start(directory.path(), Path::new("/usr/bin"), Ports::free());
        let steps = parse(&format!("```console run\n{block}\n```\n")).expect("the page is well written");
        steps.iter().try_for_each(|step| shell.run(step))
    }

    #[test]
    fn commands_share_one_shell_and_one_directory() {
        run("$ export NAME=till\n$ echo \"a $NAME\" > file\n$ cat file\na … till\n$ printf no-newline\nno-newline").expect("all good");
    }

    #[test]
    fn a_wrong_output_is_a_fault() {
        let fault = run("$ echo three\nfour").expect_err("it prints something else");
        assert!(fault.contains("`four`") && fault.contains("three"), "{fault}");
    }

    #[test]
    fn a_failing_command_is_a_fault_with_its_output() {
        let fault = run("$ echo why >&2; false\n$ echo next").expect_err("it fails");
        assert!(fault.starts_with("failed") && fault.contains("why"), "{fault}");
        assert!(run("$ no-such-command-here").expect_err("it does not exist").contains("command not found"));
    }

    #[test]
    fn a_command_that_is_none_is_a_fault_at_once() {
        assert!(run("$ echo 'open\n$ echo next").expect_err("the quote is open").starts_with("is no command"));
        assert!(run("$ { sleep 1000 &").expect_err("the brace is open").starts_with("is no command"));
    }

    #[test]
    fn commands_do_not_read_each_other() {
        run("$ cat\n$ echo still here\nstill here").expect("the second command was not eaten");
    }

    #[test]
    fn a_background_command_is_waited_for() {
        let page = "$ mkfifo gate\n$ { echo loading; cat gate; echo done; sleep 1000; } & # wait for: loading\n";
        run(&format!("{page}$ echo open > gate\n$ echo x\nx")).expect("the text came, and the page went on");
    }

    #[test]
    fn default_ports_stand_for_free_ones() {
        run("$ { echo ready at 8080; sleep 1000; } & # wait for: ready at 8080\n$ echo $MSTORE_LISTEN\n127.0.0.1:8080")
            .expect("the page and the variables agree");
    }

    #[test]
    fn a_background_command_that_ends_too_early_is_a_fault() {
        let fault = run("$ { echo port in use; exit 3; } & # wait for: ready").expect_err("it ends");
        assert!(fault.starts_with("it ended") && fault.contains("port in use") && fault.contains("`ready`"), "{fault}");
    }

    #[test]
    fn nothing_outlives_the_page() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut shell = Shell::start(directory.path(), Path::new("/usr/bin"), Ports::free());
        let page = "```console run\n$ { trap '' TERM; echo deaf; exec sleep 1000; } & # wait for: deaf\n```\n";
        let steps = parse(page).expect("the page is well written");
        shell.run(&steps[0]).expect("it starts");
        let output = shell.background.remove(0);
        drop(shell);
        let end = output.recv_timeout(GOODBYE_MAX);
        assert_eq!(end, Err(RecvTimeoutError::Disconnected), "it still holds its output open");
    }
}
