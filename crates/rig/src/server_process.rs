//! A server as a child process: ready when it says so, heard to the end, stopped, continued and killed with all its own children.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::guardian::Guardian;

/// A server on a busy machine may recover from a crash before it is ready; RabbitMQ needs minutes there for nothing at all.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// Killed processes are gone as soon as the kernel comes to it.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// What a server wrote to its stderr, across restarts.
pub(crate) type Log = Arc<Mutex<String>>;

pub(crate) fn lock(log: &Log) -> MutexGuard<'_, String> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running server.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    /// Ends it at once and in order.
    end_signal: &'static str,
    _guardian: Guardian,
}

impl ServerProcess {
    /// Starts it and returns once a line on its stderr contains `ready`; what it said, if it ended instead.
    pub(crate) fn start(
        command: &mut Command,
        ready: &'static str,
        end_signal: &'static str,
        directory: &Path,
        log: &Log,
    ) -> Result<Self, String> {
        // A Ctrl-C at the terminal is for the tests, which end their servers themselves.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", command.get_program().display()));
        let guardian = Guardian::watch(child.id(), end_signal, directory);
        let stderr = child.stderr.take().expect("piped above");
        let before = lock(log).len();
        let is_ready = hear(stderr, ready, Arc::clone(log));
        let server = Self { child, end_signal, _guardian: guardian };
        match is_ready.recv_timeout(READY_WITHIN) {
            Ok(()) => Ok(server),
            Err(why) => {
                drop(server);
                Err(format!("{} did not get ready ({why}): {}", command.get_program().display(), &lock(log)[before..]))
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the server itself.
    pub(crate) fn signal(&self, name: &str) {
        signal(name, &BTreeSet::from([self.id()]));
    }

    /// SIGSTOP to all of its processes.
    pub(crate) fn pause(&self) {
        // It makes no more of them once it stands still itself.
        self.signal("STOP");
        signal("STOP", &descendants(self.id()));
    }

    /// SIGCONT to all of its processes.
    pub(crate) fn resume(&self) {
        signal("CONT", &descendants(self.id()));
        self.signal("CONT");
    }

    /// SIGKILL to all of its processes; returns when they are gone.
    pub(crate) fn kill(mut self) {
        self.signal("STOP");
        let mut processes = descendants(self.id());
        processes.insert(self.id());
        signal("KILL", &processes);
        self.child.wait().expect("a child can be waited for");
        let deadline = Instant::now() + GONE_WITHIN;
        while processes.iter().any(|process| status(*process).is_some()) {
            assert!(Instant::now() < deadline, "a killed process does not go");
            thread::yield_now();
        }
    }

    /// Asks it to end in its own time; returns when it has.
    pub(crate) fn stop(mut self, by: &str) {
        self.signal(by);
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_ended))) {
            self.resume();
            self.signal(self.end_signal);
            let _ended = self.child.wait();
        }
    }
}

/// Reads what a server says until it ends, or it would end itself at a full pipe; the answer comes at the line with `ready` in it.
fn hear(stderr: ChildStderr, ready: &'static str, log: Log) -> mpsc::Receiver<()> {
    let (sender, is_ready) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut sender = Some(sender);
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let said_so = line.contains(ready);
            lock(&log).push_str(&(line + "\n"));
            if let Some(sender) = sender.take_if(|_waiting| said_so) {
                let _gave_up = sender.send(());
            }
        }
    });
    is_ready
}

/// A process that has gone in the meantime is none that could not be signalled.
fn signal(name: &str, processes: &BTreeSet<u32>) {
    let ids = processes.iter().map(u32::to_string);
    let _gone = Command::new("kill").arg(format!("-{name}")).args(ids).stderr(Stdio::null()).status().expect("`kill` is everywhere");
}

/// The children of a process, and theirs.
fn descendants(of: u32) -> BTreeSet<u32> {
    let processes: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("tests run on Linux")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|process| Some((process, status(process)?.parent)))
        .collect();
    let mut found = BTreeSet::new();
    let mut open = vec![of];
    while let Some(parent) = open.pop() {
        let children = processes.iter().filter(|(_process, its)| *its == parent).map(|(process, _parent)| *process);
        open.extend(children.filter(|child| found.insert(*child)));
    }
    found
}

struct Status {
    parent: u32,
}

/// None for a process that is gone, be it that nobody has asked for its end yet.
fn status(process: u32) -> Option<Status> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it is in brackets and may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let is_alive = fields.next().is_some_and(|state| !matches!(state, "Z" | "X"));
    let parent = fields.next()?.parse().ok()?;
    is_alive.then_some(Status { parent })
}
