//! The account that a server runs under: PostgreSQL refuses to run as root, and Mosquitto would leave it on its own.

use std::{
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

/// Another account than ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// The account `name` where we are root; none where we are somebody else and stay it.
    pub(crate) fn instead_of_root(name: &str) -> Option<Self> {
        is_root().then(|| Self { user: id("-u", name), group: id("-g", name) })
    }

    /// Gives a file or directory away.
    pub(crate) fn own(self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.user), Some(self.group)).expect("root may give files away");
    }

    pub(crate) fn apply(self, command: &mut Command) {
        command.uid(self.user).gid(self.group);
    }
}

/// The name of the account that we are.
pub(crate) fn own_name() -> String {
    let output = Command::new("id").arg("-un").output().expect("`id` is everywhere");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").expect("tests run on Linux").uid() == 0
}

fn id(what: &str, name: &str) -> u32 {
    let output = Command::new("id").args([what, name]).output().expect("`id` is everywhere");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_none| panic!("there is no account `{name}`, and as root a server needs one"))
}
