//! Ends a server whose test process died: a shell that waits for the end of a pipe which only that process holds open.
//!
//! Not the kernel's parent-death signal: that one comes when the *thread* ends that started the server, and tests are threads.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

/// `$1` process, `$2` signal that ends it, `$3` directory. A line on the pipe releases; its end without one means that nobody else cleans up.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
read -r released && exit 0
kill -CONT "$1"; kill -"$2" "$1"
timeout 10 tail --pid="$1" -s 0.1 -f /dev/null
kill -KILL "$1"
rm -rf "$3"
"#;

/// Watches over one server process.
#[derive(Debug)]
pub(crate) struct Guardian {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Guardian {
    pub(crate) fn watch(process: u32, end_signal: &str, directory: &Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "guardian", &process.to_string(), end_signal]).arg(directory);
        // Out of reach of whatever ends the test's own process group.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut shell = command.spawn().expect("`sh` is everywhere");
        let pipe = shell.stdin.take();
        Self { shell, pipe }
    }
}

impl Drop for Guardian {
    /// The server has ended: nothing is left to watch.
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _gone = writeln!(pipe, "released");
        }
        let _gone = self.shell.wait();
    }
}
