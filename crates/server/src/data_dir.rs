//! The data directory: the database's place, the two secrets, and a lock so that one server uses it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use mstore_protocol::Code;

use crate::{AdminToken, MasterKey, Secrets};

const LOCK_FILE: &str = "lock";
const MASTER_KEY_FILE: &str = "master.key";
const ADMIN_TOKEN_FILE: &str = "admin.token";
const SERVER_NAME_FILE: &str = "server.name";
const DATABASE_FILE: &str = "mstore.db";

/// An opened data directory; the lock ends when it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    secrets: Secrets,
    created: bool,
    _lock: File,
}

/// Why a data directory cannot be used; nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server has it.
    #[error("another server uses {}; stop it, or choose another --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be made, or written into.
    #[error("cannot write to {}: {source}; give it to this user, or choose another --data-dir", path.display())]
    NotWritable {
        /// The directory, or the file in it.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// A secret's file holds something else.
    #[error("{} does not hold {what}; restore it from a backup (a new master key would end every device's token)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A secret's file is gone although there is a database.
    #[error("{} is gone but the database is there; restore it from a backup (a new master key would end every device's token)", path.display())]
    SecretMissing {
        /// The file.
        path: PathBuf,
    },
}

impl DataDirError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::InUse { .. } => Code::DataDirInUse,
            Self::NotWritable { .. } => Code::Unavailable,
            Self::Damaged { .. } | Self::SecretMissing { .. } => Code::Conflict,
        }
    }
}

impl DataDir {
    /// Opens it; on first use makes the directory (0700) and the secrets (0600).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataDirError> {
        let path = path.into();
        make_dir(&path).map_err(|source| DataDirError::NotWritable { path: path.clone(), source })?;
        let lock = lock(&path)?;
        let fresh = !path.join(DATABASE_FILE).exists();
        let created = fresh && !path.join(MASTER_KEY_FILE).exists();
        let master_key = secret(&path.join(MASTER_KEY_FILE), "a master key", fresh, MasterKey::parse, || {
            let key = MasterKey::generate();
            (key.to_text(), key)
        })?;
        // An admin token protects nothing that is stored: a lost one is made anew.
        let admin_token = secret(&path.join(ADMIN_TOKEN_FILE), "an admin token", true, AdminToken::parse, || {
            let token = AdminToken::generate();
            (token.reveal().to_owned(), token)
        })?;
        Ok(Self { path, secrets: Secrets { master_key, admin_token }, created, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the embedded database is or will be.
    pub fn database_path(&self) -> PathBuf {
        self.path.join(DATABASE_FILE)
    }

    /// Where the admin token can be read.
    pub fn admin_token_path(&self) -> PathBuf {
        self.path.join(ADMIN_TOKEN_FILE)
    }

    /// The name of this directory's server among those of a shared database, the same at every start; made on first use. It protects nothing: one that cannot
    /// be read is made anew.
    pub fn server_name(&self) -> Result<String, DataDirError> {
        let path = self.path.join(SERVER_NAME_FILE);
        let kept = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
        if !kept.is_empty() && kept.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(kept);
        }
        let name = format!("{:016x}", rand::random::<u64>());
        write_new(&path, &name).map_err(|source| DataDirError::NotWritable { path, source })?;
        Ok(name)
    }

    /// Both secrets.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What device tokens are derived from.
    pub fn master_key(&self) -> &MasterKey {
        &self.secrets.master_key
    }

    /// What opens `/v1/admin`.
    pub fn admin_token(&self) -> &AdminToken {
        &self.secrets.admin_token
    }

    /// Whether this was its first use.
    pub fn created(&self) -> bool {
        self.created
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK_FILE);
    let file = private().truncate(false).open(&path).map_err(|source| DataDirError::NotWritable { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(DataDirError::NotWritable { path, source }),
    }
}

fn secret<T>(
    path: &Path,
    what: &'static str,
    may_make: bool,
    parse: impl Fn(&str) -> Option<T>,
    make: impl Fn() -> (String, T),
) -> Result<T, DataDirError> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).ok_or_else(|| DataDirError::Damaged { path: path.to_owned(), what }),
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_make => {
            let (text, value) = make();
            write_new(path, &text).map_err(|source| DataDirError::NotWritable { path: path.to_owned(), source })?;
            Ok(value)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DataDirError::SecretMissing { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(DataDirError::Damaged { path: path.to_owned(), what }),
        Err(source) => Err(DataDirError::NotWritable { path: path.to_owned(), source }),
    }
}

/// Whole or not at all: a crash never leaves half a key.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = private().truncate(true).open(&draft)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn makes_its_secrets_once_and_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        let token = first.admin_token().reveal().to_owned();
        assert!(first.created());
        assert_eq!(DataDir::open(&path).unwrap_err().code(), Code::DataDirInUse);
        drop(first);
        let second = DataDir::open(&path).unwrap();
        assert!(!second.created());
        assert_eq!(second.admin_token().reveal(), token);
        let name = second.server_name().unwrap();
        drop(second);
        assert_eq!(DataDir::open(&path).unwrap().server_name().unwrap(), name);
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path().join("data")).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(data.path().to_owned()), 0o700);
        assert_eq!(mode(data.path().join(MASTER_KEY_FILE)), 0o600);
        assert_eq!(mode(data.admin_token_path()), 0o600);
    }

    #[test]
    fn a_file_in_the_way_and_a_damaged_or_lost_key_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(DataDir::open(file.join("data")), Err(DataDirError::NotWritable { .. })));

        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::write(path.join(MASTER_KEY_FILE), "not a key").unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Damaged { .. })));
        fs::remove_file(path.join(MASTER_KEY_FILE)).unwrap();
        fs::write(path.join(DATABASE_FILE), "").unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::SecretMissing { .. })));
    }
}
