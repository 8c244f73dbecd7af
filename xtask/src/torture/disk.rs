//! A disk that fills up: a small tmpfs where the run has mounts of its own, a limit on the size of files elsewhere.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::process;

/// Room for the database of one run and its log.
const SIZE: &str = "96m";

pub(super) struct Disk {
    path: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// Makes the directory; mounted only where the kernel takes the mount away with the run.
    pub(super) fn make(path: &Path, has_walls: bool) -> Result<Self> {
        fs::create_dir_all(path)?;
        if has_walls {
            process::output(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "tmpfs"]).arg(path))?;
        }
        Ok(Self { path: path.to_owned(), is_mounted: has_walls })
    }

    /// How it is made full.
    pub(super) fn kind(&self) -> &'static str {
        if self.is_mounted {
            "a small tmpfs filled to the last byte"
        } else {
            "a limit on the size of files (no tmpfs may be mounted here)"
        }
    }

    /// No byte more can be written by the process `pid`.
    pub(super) fn fill(&self, pid: Option<u32>) {
        if self.is_mounted {
            if let Ok(mut filler) = File::create(self.filler()) {
                let block = vec![0; 64 * 1024];
                while filler.write_all(&block).is_ok() {}
                while filler.write_all(&[0]).is_ok() {}
            }
        } else if let Some(pid) = pid {
            // Files that are smaller grow up to it, those that are larger no further.
            limit(pid, "4096:unlimited");
        }
    }

    /// There is room again.
    pub(super) fn free(&self, pid: Option<u32>) {
        if self.is_mounted {
            let _none_there = fs::remove_file(self.filler());
        } else if let Some(pid) = pid {
            limit(pid, "unlimited:unlimited");
        }
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

fn limit(pid: u32, size: &str) {
    // A process that was killed meanwhile has no limit to set.
    let _gone = process::output(Command::new("prlimit").args([format!("--pid={pid}"), format!("--fsize={size}")]));
}

/// What was on it is kept beside it, for whoever looks for the reason of a failure.
impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            self.free(None);
            let _best_effort = Command::new("cp").arg("-r").arg(&self.path).arg(self.path.with_extension("kept")).status();
            let _busy = Command::new("umount").arg("-l").arg(&self.path).status();
        }
    }
}
