//! Reads of tables that are not ours, inside a transaction that is: what their owner did to them must not undo it.

use tokio_postgres::{GenericClient, error::SqlState};

use super::AttachError;

/// How long a read waits behind somebody who holds the whole table. All branches wait behind it.
const LOCK_WAIT_MS: u32 = 250;

/// Runs a read; gives why the table cannot be read if that is what failed. Must be inside a transaction.
pub(super) async fn guarded<T>(
    client: &impl GenericClient,
    read: impl Future<Output = Result<T, AttachError>>,
) -> Result<Result<T, String>, AttachError> {
    let begin = format!(
        "SAVEPOINT attached; SELECT set_config('mstore.lock_timeout', current_setting('lock_timeout'), true); SET LOCAL lock_timeout = {LOCK_WAIT_MS}"
    );
    client.batch_execute(&begin).await?;
    match read.await {
        Ok(value) => {
            client
                .batch_execute(
                    "SELECT set_config('lock_timeout', current_setting('mstore.lock_timeout'), true); RELEASE SAVEPOINT attached",
                )
                .await?;
            Ok(Ok(value))
        }
        Err(AttachError::Database(error)) if is_of_the_table(&error) => {
            client.batch_execute("ROLLBACK TO SAVEPOINT attached; RELEASE SAVEPOINT attached").await?;
            Ok(Err(AttachError::Database(error).to_string()))
        }
        Err(other) => Err(other),
    }
}

/// Whether it was the table, not the database or the connection: a column or right that is gone, a view that divides by zero, a lock.
pub(super) fn is_of_the_table(error: &tokio_postgres::Error) -> bool {
    const CLASSES: [&str; 5] = ["42", "22", "0A", "P0", "54"];
    error.code().is_some_and(|code| *code == SqlState::LOCK_NOT_AVAILABLE || CLASSES.iter().any(|class| code.code().starts_with(class)))
}
