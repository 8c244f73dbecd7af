//! What an app does about rejected operations, and about the journal when the till goes.

use std::path::Path;

use mstore_protocol::{OperationId, OperationKind};

use super::{Client, DeadLetter};
use crate::{
    db::DbError,
    driver::{Command, with_db},
    error::{CommitError, ExportError, WipeError},
    journal::{self, Exported},
    sale::Committed,
    shared::wall,
};

/// A client that was not wiped, and why.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct NotWiped {
    /// It goes on working; none if its database is empty already and only a file is left.
    pub client: Option<Box<Client>>,
    /// What would have been lost, or what failed.
    #[source]
    pub why: WipeError,
}

impl Client {
    /// Rejected operations that somebody must look at: correct, retry or discard them.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, DbError> {
        let letters = with_db(&self.shared.db, true, |db| db.dead_letters()).await?;
        Ok(letters.into_iter().map(DeadLetter::from).collect())
    }

    /// Sends a rejected operation again as it was, under a new id that names the old one. Refused if it had been decided about before, at the server for one.
    pub async fn retry(&self, id: OperationId) -> Result<Committed, CommitError> {
        let old = with_db(&self.shared.db, true, move |db| journal::open_letter(db, id)).await?;
        let committed = self.write(old.occurred_at, Some(id), move |_, _| Ok(old.kind)).await?;
        self.tell(Command::DeadLetters).await;
        Ok(committed)
    }

    /// Sends something else in the place of a rejected operation.
    pub async fn edit(&self, id: OperationId, kind: OperationKind) -> Result<Committed, CommitError> {
        let old = with_db(&self.shared.db, true, move |db| journal::open_letter(db, id)).await?;
        let committed = self.write(old.occurred_at, Some(id), move |_, _| Ok(kind)).await?;
        self.tell(Command::DeadLetters).await;
        Ok(committed)
    }

    /// Gives a rejected operation up. The journal keeps it for the record; if an operator has sent it again meanwhile, that counts.
    pub async fn discard(&self, id: OperationId) -> Result<(), CommitError> {
        let done = with_db(&self.shared.db, true, move |db| db.discard(id)).await?;
        self.tell(Command::DeadLetters).await;
        if done { Ok(()) } else { Err(CommitError::NotRejected { id }) }
    }

    /// Writes the journal into a file that the server accepts, for a till that cannot reach it any more. Handing it in does no harm, before or after the till's own
    /// upload.
    pub async fn export(&self, to: impl AsRef<Path>) -> Result<Exported, ExportError> {
        let to = to.as_ref().to_owned();
        with_db(&self.shared.db, true, move |db| journal::export(db, &to, wall())).await
    }

    /// Deletes the database. Refused while it holds anything that is neither at the server nor in an exported file; the client then goes on.
    pub async fn wipe(self) -> Result<(), NotWiped> {
        if let Err(why) = with_db(&self.shared.db, true, journal::empty).await {
            return Err(NotWiped { client: Some(Box::new(self)), why });
        }
        let path = self.shared.path.clone();
        self.close().await;
        journal::remove_files(&path).map_err(|why| NotWiped { client: None, why })
    }
}
