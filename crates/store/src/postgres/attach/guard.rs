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
    let begin = format!("SAVEPOINT attached; {}; {}", remembered(), set());
    client.batch_execute(&begin).await?;
    match read.await {
        Ok(value) => {
            client.batch_execute(&format!("{}; RELEASE SAVEPOINT attached", restored())).await?;
            Ok(Ok(value))
        }
        Err(AttachError::Database(error)) if is_of_the_table(&error) => {
            client.batch_execute("ROLLBACK TO SAVEPOINT attached; RELEASE SAVEPOINT attached").await?;
            Ok(Err(AttachError::Database(error).to_string()))
        }
        Err(other) => Err(other),
    }
}

/// What holds during a read. Tables of others have whatever indexes they have, so they are read by a plan for this read, not by one that a sequencer made for
/// its own: it would rather read an index from end to end for each row than a table once.
fn settings() -> [(&'static str, String); 3] {
    [("lock_timeout", LOCK_WAIT_MS.to_string()), ("enable_seqscan", "on".into()), ("plan_cache_mode", "force_custom_plan".into())]
}

fn set() -> String {
    settings().map(|(name, value)| format!("SET LOCAL {name} = {value}")).join("; ")
}

fn remembered() -> String {
    let one = |(name, _)| format!("set_config('mstore.{name}', current_setting('{name}'), true)");
    format!("SELECT {}", settings().map(one).join(", "))
}

fn restored() -> String {
    let one = |(name, _)| format!("set_config('{name}', current_setting('mstore.{name}'), true)");
    format!("SELECT {}", settings().map(one).join(", "))
}

/// Whether it was the table, not the database or the connection: a column or right that is gone, a view that divides by zero, a lock.
pub(super) fn is_of_the_table(error: &tokio_postgres::Error) -> bool {
    const CLASSES: [&str; 5] = ["42", "22", "0A", "P0", "54"];
    error.code().is_some_and(|code| *code == SqlState::LOCK_NOT_AVAILABLE || CLASSES.iter().any(|class| code.code().starts_with(class)))
}
