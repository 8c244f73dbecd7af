//! The journal of a till's database, without a network: for a till that does not run, or will never run again.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use mstore_protocol::{Code, Operation, OperationId, OperationKind, Timestamp};

use crate::{
    client::DeadLetter,
    db::{Export, LocalDb, NewOperation, Unsaved},
    error::{CommitError, ExportError, OpenError, WipeError},
    sale::Committed,
    shared::wall,
};

/// A till's journal opened by itself. What is decided here is sent when the till runs next.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    db: LocalDb,
}

/// A journal that is in a file now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Where.
    pub path: PathBuf,
    /// Operations in it.
    pub operations: usize,
    /// Those of them that the server has not judged.
    pub waiting: u64,
}

impl Journal {
    /// Opens the file of an enrolled device.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        // Opening would make one.
        if !path.exists() {
            return Err(OpenError::NotEnrolled);
        }
        let db = LocalDb::open(path)?;
        if db.state("enrolment")?.is_none() {
            return Err(OpenError::NotEnrolled);
        }
        Ok(Self { path: path.to_owned(), db })
    }

    /// Rejected operations that somebody must look at.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, CommitError> {
        Ok(self.db.dead_letters()?.into_iter().map(DeadLetter::from).collect())
    }

    /// Sends a rejected operation again as it was, under a new id that names the old one, when the till runs next.
    pub fn retry(&mut self, id: OperationId) -> Result<Committed, CommitError> {
        let old = open_letter(&self.db, id)?;
        replace(&mut self.db, &old, old.kind.clone())
    }

    /// Sends something else in its place.
    pub fn edit(&mut self, id: OperationId, kind: OperationKind) -> Result<Committed, CommitError> {
        let old = open_letter(&self.db, id)?;
        replace(&mut self.db, &old, kind)
    }

    /// Gives a rejected operation up. The journal keeps it for the record.
    pub fn discard(&mut self, id: OperationId) -> Result<(), CommitError> {
        if self.db.discard(id)? { Ok(()) } else { Err(CommitError::NotRejected { id }) }
    }

    /// Writes the journal into a file that the server accepts (`mstore-sync device hand-in FILE`). Handing it in does no harm, before or after the till's own upload.
    pub fn export(&self, to: impl AsRef<Path>) -> Result<Exported, ExportError> {
        export(&self.db, to.as_ref(), wall())
    }

    /// Deletes the database. Refused while it holds anything that is neither at the server nor in an exported file.
    pub fn wipe(mut self) -> Result<(), WipeError> {
        empty(&mut self.db)?;
        let Self { path, db } = self;
        drop(db);
        remove_files(&path)
    }
}

/// A rejected operation about which the till may still decide.
pub(crate) fn open_letter(db: &LocalDb, id: OperationId) -> Result<Operation, CommitError> {
    let letter = db.dead_letter(id)?.ok_or(CommitError::NotRejected { id })?;
    if letter.code == Some(Code::AlreadyDecided) {
        return Err(CommitError::AlreadyDecided { id });
    }
    Ok(letter.operation)
}

fn replace(db: &mut LocalDb, old: &Operation, kind: OperationKind) -> Result<Committed, CommitError> {
    let new = NewOperation { id: OperationId::from_parts(wall(), rand::random()), occurred_at: old.occurred_at, replaces: Some(old.id) };
    db.commit(&new, move |_, _| Ok(kind), checked).map(|operation| Committed::of(&operation))
}

/// The canonical body of an operation that keeps the rules.
pub(crate) fn checked(operation: &Operation) -> Result<String, CommitError> {
    let text = serde_json::to_string(operation).expect("an operation is always JSON");
    Ok(Operation::parse(&text)?.1)
}

/// Writes the file whole or not at all, and notes it once it is on disk.
pub(crate) fn export(db: &LocalDb, to: &Path, now: Timestamp) -> Result<Exported, ExportError> {
    let export = db.export(now)?.ok_or(ExportError::NotEnrolled)?;
    let failed = |source| ExportError::Io { path: to.to_owned(), source };
    write_durably(to, &export).map_err(failed)?;
    db.exported(&export)?;
    Ok(Exported { path: to.to_owned(), operations: export.file.operations.len(), waiting: export.waiting })
}

fn write_durably(to: &Path, export: &Export) -> std::io::Result<()> {
    let text = serde_json::to_vec(&export.file).expect("a journal is always JSON");
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = std::fs::File::create(&part)?;
    file.write_all(&text)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&part, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A directory cannot be opened everywhere; where it can, the name is on disk as well.
    std::fs::File::open(folder).map_or(Ok(()), |folder| folder.sync_all())
}

/// Empties the database, unless something would be lost.
pub(crate) fn empty(db: &mut LocalDb) -> Result<(), WipeError> {
    match db.wipe()? {
        None => Ok(()),
        Some(Unsaved { waiting, rejected }) => Err(WipeError::UnsentWork { waiting, rejected }),
    }
}

/// Removes the files of a database that was emptied.
pub(crate) fn remove_files(path: &Path) -> Result<(), WipeError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(WipeError::Io { path: PathBuf::from(name), source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
