//! Lists the built pages of `web/` for embedding. It builds none itself: that takes Node, which `cargo xtask web` looks for.

#![allow(clippy::print_stdout, reason = "a build script talks to cargo through its output")]

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=web");
    let root = directory("CARGO_MANIFEST_DIR")?.join("web");
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let mut table = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        writeln!(table, "    ({name:?}, include_bytes!({:?}).as_slice()),", file.display().to_string()).map_err(io::Error::other)?;
    }
    table.push(']');
    fs::write(directory("OUT_DIR")?.join("pages.rs"), table)
}

fn directory(variable: &str) -> io::Result<PathBuf> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("cargo sets {variable}")))
}

/// Everything below, but for what git keeps.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_kept = path.file_name().is_some_and(|name| name == "README.md" || name == ".gitignore");
        if path.is_dir() {
            collect(&path, files)?;
        } else if !is_kept {
            files.push(path);
        }
    }
    Ok(())
}
