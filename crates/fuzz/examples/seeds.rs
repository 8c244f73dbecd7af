//! Writes the seeds of every target as files, for libFuzzer to begin with: `cargo run -p mstore-fuzz --example seeds -- DIR`.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let Some(root) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "name the directory to write to"));
    };
    for target in mstore_fuzz::TARGETS {
        let dir = root.join(target.name);
        fs::create_dir_all(&dir)?;
        for (n, seed) in (target.seeds)().iter().enumerate() {
            fs::write(dir.join(format!("seed-{n:03}")), seed)?;
        }
    }
    Ok(())
}
