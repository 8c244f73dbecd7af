//! PostgreSQL below the seam: a synchronous facade over one connection, for a thread that may wait.
//!
//! What only begins or ends a savepoint goes out together with the next statement: it costs no round trip of its own.

use std::{
    cell::{Cell, RefCell},
    fmt::Write as _,
    ops::ControlFlow,
};

use bytes::{BufMut as _, BytesMut};
use deadpool_postgres::Object;
use futures_util::future;
use mstore_protocol::Code;
use tokio::runtime::Handle;
use tokio_postgres::{
    error::SqlState,
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};

use super::error;
use crate::{
    StoreError,
    sql::{Arg, Args, Cell as Value, Cells, Dialect, Each, Row, Sql},
};

type Boxed = Box<dyn std::error::Error + Sync + Send>;

/// What became of a transaction beside its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing.
    None,
    /// Somebody else was faster: done again from the beginning it will see what they did.
    Conflict,
    /// The connection is gone.
    Gone,
}

/// A transaction on a connection of the pool.
pub(super) struct Session {
    object: Object,
    handle: Handle,
    pending: RefCell<String>,
    trouble: Cell<Trouble>,
    /// It will not be done again, so a conflict that stays is a failure like any other.
    is_last: bool,
}

impl Session {
    /// Begins a transaction, which the first statement brings along.
    pub(super) fn begin(object: Object, handle: Handle, mode: &str, is_last: bool) -> Self {
        Self { object, handle, pending: RefCell::new(format!("BEGIN {mode}")), trouble: Cell::new(Trouble::None), is_last }
    }

    /// What became of it so far.
    pub(super) fn trouble(&self) -> Trouble {
        self.trouble.get()
    }

    /// Ends the transaction as the word says and gives the connection back to the pool. A connection whose state nobody knows is not used again.
    pub(super) fn end(self, how: &str) -> Result<(), StoreError> {
        let last = self.next(how);
        let ended = match self.trouble.get() {
            Trouble::Gone => Err(StoreError::Busy { code: Code::Unavailable, detail: "the connection to the database was lost".into() }),
            Trouble::None | Trouble::Conflict => {
                self.handle.block_on(self.object.batch_execute(&last)).map_err(|error| self.failed(&error).unwrap_or_else(|| error.into()))
            }
        };
        if ended.is_err() {
            drop(Object::take(self.object));
        }
        ended
    }

    /// What waited, and one more.
    fn next(&self, statement: &str) -> String {
        let mut last = self.pending.take();
        if !last.is_empty() {
            last.push_str("; ");
        }
        last.push_str(statement);
        last
    }

    fn ask<T>(
        &self,
        sql: &str,
        args: &Args<'_>,
        ask: impl AsyncFnOnce(&tokio_postgres::Statement, &[&(dyn ToSql + Sync)]) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let args: Vec<Arg<'_>> = args.iter().map(|arg| arg.to_arg()).collect();
        if let Some(text) = args.iter().find_map(|arg| if let Arg::Text(text) = arg { text.contains('\0').then_some(text) } else { None }) {
            let start: String = text.chars().take(40).collect();
            return Err(StoreError::refused(Code::MalformedRow, format!("{start:?}: this database keeps no text with U+0000")));
        }
        let values: Vec<&(dyn ToSql + Sync)> = args.iter().map(|arg| arg as &(dyn ToSql + Sync)).collect();
        let (sql, pending) = (dollars(sql), self.pending.take());
        let asked = async {
            let statement = self.object.prepare_cached(&sql).await?;
            ask(&statement, &values).await
        };
        let answer = self.handle.block_on(async {
            if pending.is_empty() {
                return asked.await;
            }
            let (before, answer) = future::join(self.object.batch_execute(&pending), asked).await;
            before.and(answer)
        });
        answer.map_err(|error| self.failed(&error).unwrap_or_else(|| error.into()))
    }

    /// Takes down what an error means for the transaction; an error of its own for what may be done again.
    fn failed(&self, error: &tokio_postgres::Error) -> Option<StoreError> {
        if error::is_gone(error) {
            self.trouble.set(Trouble::Gone);
            return None;
        }
        let is_conflict = error::is_conflict(error) || error.code() == Some(&SqlState::UNIQUE_VIOLATION);
        if !is_conflict || self.is_last {
            return None;
        }
        self.trouble.set(Trouble::Conflict);
        let detail = error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned());
        Some(StoreError::Busy { code: Code::Unavailable, detail: format!("another transaction was faster: {detail}") })
    }
}

impl Sql for Session {
    fn execute(&self, sql: &str, args: &Args<'_>) -> Result<usize, StoreError> {
        if ["SAVEPOINT ", "RELEASE ", "ROLLBACK TO "].iter().any(|word| sql.starts_with(word)) {
            let pending = self.next(sql);
            self.pending.replace(pending);
            return Ok(0);
        }
        let changed = self.ask(sql, args, async |statement, values| self.object.execute(statement, values).await)?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    fn query(&self, sql: &str, args: &Args<'_>, each: &mut Each<'_>) -> Result<(), StoreError> {
        let rows = self.ask(sql, args, async |statement, values| self.object.query(statement, values).await)?;
        for row in &rows {
            if each(&Row(row))? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn is_lost(&self) -> bool {
        self.trouble.get() != Trouble::None
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }
}

/// `?1` becomes `$1`; no statement of ours has a question mark of another meaning.
fn dollars(sql: &str) -> String {
    sql.replace('?', "$")
}

impl ToSql for Arg<'_> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        match *self {
            Arg::Null => return Ok(IsNull::Yes),
            Arg::Integer(value) if *of == Type::INT8 => out.put_i64(value),
            Arg::Integer(value) if *of == Type::INT4 => out.put_i32(value.try_into()?),
            Arg::Text(text) if *of != Type::INT8 && *of != Type::INT4 && *of != Type::BYTEA => out.put_slice(text.as_bytes()),
            Arg::Blob(bytes) if *of == Type::BYTEA => out.put_slice(bytes),
            Arg::Integer(_) | Arg::Text(_) | Arg::Blob(_) => {
                let mut told = String::new();
                write!(told, "a parameter of type {of} cannot be {self:?}")?;
                return Err(told.into());
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A value in the form that the server sends.
struct Raw<'a>(Value<'a>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Boxed> {
        Ok(Self(match *of {
            Type::INT8 => Value::Integer(i64::from_be_bytes(raw.try_into()?)),
            Type::INT4 => Value::Integer(i32::from_be_bytes(raw.try_into()?).into()),
            Type::BOOL => Value::Integer(i64::from(raw != [0])),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => Value::Text(raw),
            Type::BYTEA => Value::Blob(raw),
            _ => Value::Foreign,
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Boxed> {
        Ok(Self(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Cells for tokio_postgres::Row {
    fn count(&self) -> usize {
        self.len()
    }

    fn name(&self, i: usize) -> &str {
        self.columns().get(i).map_or("a column", tokio_postgres::Column::name)
    }

    fn cell(&self, i: usize) -> Value<'_> {
        self.try_get::<_, Raw<'_>>(i).map_or(Value::Foreign, |raw| raw.0)
    }
}
