//! The commands in the README and the guides are run as a reader would run them, and must print what the page promises.
//!
//! A block marked `console run` is run; every other block is only text. `page` says how such a block is written,
//! `shell` how it is run.

mod page;
mod ports;
mod shell;

use std::io::Write;
use std::path::{Path, PathBuf};

use page::Page;
use ports::Ports;
use shell::Shell;

/// Set by `cargo xtask test --no-install`: a foreign program that is missing is a reason to skip.
const SKIP_MISSING: &str = "MSTORE_TEST_SKIP_MISSING";
/// The page that a newcomer follows: if it exists, it is followed here too.
const QUICK_START: &str = "docs/src/quick-start.md";

#[test]
fn commands_in_the_docs_do_what_the_page_says() {
    let pages: Vec<Page> = documentation().iter().map(|path| Page::read(path)).collect();
    if let Some(quick_start) = pages.iter().find(|page| page.path.ends_with(QUICK_START)) {
        assert!(!quick_start.steps.is_empty(), "{QUICK_START} has no block marked `console run`");
    }
    let runnable: Vec<Page> = pages.into_iter().filter(|page| !page.steps.is_empty()).collect();
    if runnable.is_empty() {
        return;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_mstore-sync"));
    let faults: Vec<String> = runnable.iter().filter_map(|page| fault(page, program)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// Runs a page in a directory of its own; what went wrong, if anything did.
fn fault(page: &Page, program: &Path) -> Option<String> {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let beside = program.parent().expect("the program is in a directory");
    let mut shell = Shell::start(directory.path(), beside, Ports::free());
    let fault = page.steps.iter().find_map(|step| {
        let fault = shell.run(step).err()?;
        Some(format!("{}:{}: $ {}\n{fault}", page.path.display(), step.line, step.command))
    })?;
    if std::env::var_os(SKIP_MISSING).is_some() && fault.contains("command not found") {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nskipped: {}: needs a program that is not installed", page.path.display()).expect("stdout is open");
        return None;
    }
    Some(fault)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/cli is in the workspace")
}

/// The README and every page of the book, in a stable order; those that exist.
fn documentation() -> Vec<PathBuf> {
    let pages = root().join("docs/src").read_dir().into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut all: Vec<PathBuf> = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    all.sort();
    all.insert(0, root().join("README.md"));
    all.retain(|path| path.is_file());
    all
}
