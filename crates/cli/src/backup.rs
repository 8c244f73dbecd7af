//! `backup` and `restore`: the data directory of an embedded database, copied while its server runs and put in place where none does.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use mstore_store::sqlite::{self, BackupError, Copied};
use serde_json::json;

use crate::{
    args::{BackupArgs, RestoreArgs},
    failure::Failure,
};

const DATABASE: &str = "mstore.db";
/// Without the first no till can log in; a lost admin token is made anew.
const SECRETS: [(&str, bool); 2] = [("master.key", true), ("admin.token", false)];

/// Copies a data directory into a new one.
#[allow(clippy::print_stdout)]
pub(crate) fn backup(args: &BackupArgs) -> Result<(), Failure> {
    let from = args.data_dir.join(DATABASE);
    if !from.is_file() {
        return Err(Failure::usage(format!("{} holds no embedded database", args.data_dir.display()))
            .next("give --data-dir of the server; a PostgreSQL is backed up by its own tools, and master.key with it"));
    }
    let copied = into_new(&args.to, |to| {
        let copied = sqlite::backup(&from, &to.join(DATABASE)).map_err(refused)?;
        copy_secrets(&args.data_dir, to)?;
        Ok(copied)
    })?;
    if args.json {
        println!("{}", json!({"backup": args.to, "bytes": copied.bytes, "branches": copied.branches, "commits": copied.commits}));
    } else {
        println!("{}: {}", args.to.display(), described(copied));
        println!("next: keep it as safe as the server: master.key opens every till's account");
    }
    Ok(())
}

/// Puts a backup where a server will find it.
#[allow(clippy::print_stdout)]
pub(crate) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let from = args.from.join(DATABASE);
    let copied = sqlite::check(&from).map_err(|error| refused(error).next("give --from the directory that `mstore-sync backup` made"))?;
    into_new(&args.data_dir, |to| {
        copy(&from, &to.join(DATABASE))?;
        copy_secrets(&args.from, to)
    })?;
    println!("{}: {}", args.data_dir.display(), described(copied));
    println!("next: mstore-sync serve --data-dir {}", args.data_dir.display());
    println!(
        "Tills that are ahead of it begin a new epoch, hand in again what it does not have, and fetch what differs; the alarm restored_from_backup tells."
    );
    Ok(())
}

fn described(copied: Copied) -> String {
    format!("{} bytes, {} branches, {} commits; checked", copied.bytes, copied.branches, copied.commits)
}

/// Fills a directory beside the one that is wanted, and gives it its name only when it is whole.
fn into_new<T>(wanted: &Path, fill: impl FnOnce(&Path) -> Result<T, Failure>) -> Result<T, Failure> {
    let is_there = fs::read_dir(wanted).is_ok_and(|mut entries| entries.next().is_some()) || wanted.is_file();
    if is_there {
        return Err(Failure::usage(format!("{} is there already and not empty", wanted.display()))
            .next("name a directory that does not exist: nothing is overwritten"));
    }
    let mut name = wanted.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    // What an earlier attempt left.
    let _none = fs::remove_dir_all(&partial);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&partial).map_err(|error| unwritable(&partial, &error))?;
    let filled = fill(&partial).and_then(|made| {
        let _empty = fs::remove_dir(wanted);
        let sync = |dir: &Path| fs::File::open(dir).and_then(|dir| dir.sync_all());
        sync(&partial).and_then(|()| fs::rename(&partial, wanted)).map_err(|error| unwritable(wanted, &error))?;
        Ok(made)
    });
    if filled.is_err() {
        let _kept = fs::remove_dir_all(&partial);
    }
    filled
}

fn copy_secrets(from: &Path, to: &Path) -> Result<(), Failure> {
    for (name, is_needed) in SECRETS {
        let source = from.join(name);
        match source.is_file() {
            true => copy(&source, &to.join(name))?,
            false if is_needed => {
                return Err(Failure::usage(format!("{} is missing: no till could log in", source.display()))
                    .next("without it every till has to be enrolled again; put the right one there"));
            }
            false => {}
        }
    }
    Ok(())
}

/// Readable by its owner only, from its first byte on.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let copied = fs::File::open(from)
        .and_then(|mut source| options.open(to).and_then(|mut target| io::copy(&mut source, &mut target).and_then(|_| target.sync_all())));
    copied.map_err(|error| unwritable(to, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::unavailable(format!("{}: {error}", path.display()))
}

fn refused(error: BackupError) -> Failure {
    match error {
        BackupError::Damaged { .. } => Failure::check(error.to_string()),
        BackupError::Sqlite { .. } | BackupError::Io { .. } => Failure::unavailable(error.to_string()),
    }
}
