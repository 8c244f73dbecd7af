//! PostgreSQL below the seam: a synchronous facade over one connection, for a thread that may wait.
//!
//! What begins or ends a savepoint, and whatever else nobody asks the outcome of, goes out together with the next statement: it costs no round trip of its own.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    ops::ControlFlow,
};

use bytes::{BufMut as _, BytesMut};
use deadpool_postgres::Object;
use futures_util::future;
use mstore_protocol::Code;
use tokio::runtime::Handle;
use tokio_postgres::{
    Statement,
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

/// What goes out with the next statement.
enum Waiting {
    /// As it is.
    Text(String),
    /// With arguments.
    Prepared(Statement, Vec<Owned>),
}

/// No more than these wait.
const WAITING_MAX: usize = 50;

/// A transaction on a connection of the pool.
pub(super) struct Session {
    object: Object,
    handle: Handle,
    waiting: RefCell<Vec<Waiting>>,
    trouble: Cell<Trouble>,
    /// A statement failed; until the savepoint is undone the database hears nothing else.
    is_failed: Cell<bool>,
    /// It will not be done again, so a conflict that stays is a failure like any other.
    is_last: bool,
}

impl Session {
    /// Begins a transaction, which the first statement brings along.
    pub(super) fn begin(object: Object, handle: Handle, mode: &str, is_last: bool) -> Self {
        let waiting = RefCell::new(vec![Waiting::Text(format!("BEGIN {mode}"))]);
        Self { object, handle, waiting, trouble: Cell::new(Trouble::None), is_failed: Cell::new(false), is_last }
    }

    /// What became of it so far.
    pub(super) fn trouble(&self) -> Trouble {
        self.trouble.get()
    }

    /// Keeps what was done.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        self.end("COMMIT")
    }

    /// Keeps nothing of it.
    pub(super) fn undo(self) -> Result<(), StoreError> {
        self.waiting.borrow_mut().clear();
        self.end("ROLLBACK")
    }

    /// Gives the connection back to the pool; one whose state nobody knows is not used again.
    fn end(self, how: &str) -> Result<(), StoreError> {
        let ended = match self.trouble.get() {
            Trouble::Gone => Err(StoreError::Busy { code: Code::Unavailable, detail: "the connection to the database was lost".into() }),
            Trouble::None | Trouble::Conflict => self.behind_others(self.object.batch_execute(how)),
        };
        if ended.is_err() {
            drop(Object::take(self.object));
        }
        ended
    }

    /// Sends what waits, then this, and waits for all of it. The first error is the one that tells.
    fn behind_others<T>(&self, last: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
        let waiting = self.waiting.take();
        let before = future::join_all(waiting.iter().map(|one| one.send(&self.object)));
        // Each sends when it is polled for the first time, which is in this order.
        let (before, answer) = self.handle.block_on(future::join(before, last));
        let before: Result<(), tokio_postgres::Error> = before.into_iter().collect();
        before.and(answer).map_err(|error| self.failed(&error).unwrap_or_else(|| error.into()))
    }

    /// Prepares a statement, unless this connection has it already.
    fn prepare(&self, sql: &str) -> Result<Statement, StoreError> {
        if self.is_failed.take() {
            self.behind_others(future::ready(Ok(())))?;
        }
        let sql = dollars(sql);
        let prepared = self.object.prepare_cached(&sql);
        self.handle.block_on(prepared).map_err(|error| self.failed(&error).unwrap_or_else(|| error.into()))
    }

    /// Takes down what an error means for the transaction; an error of its own for what may be done again.
    fn failed(&self, error: &tokio_postgres::Error) -> Option<StoreError> {
        self.is_failed.set(true);
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
        if ["SAVEPOINT ", "RELEASE ", "ROLLBACK TO ", "NOTIFY "].iter().any(|word| sql.starts_with(word)) {
            self.waiting.borrow_mut().push(Waiting::Text(sql.to_owned()));
            return Ok(0);
        }
        let args = kept(args)?;
        let statement = self.prepare(sql)?;
        let changed = self.behind_others(self.object.execute(&statement, &values(&args)))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    fn send(&self, sql: &str, args: &Args<'_>) -> Result<(), StoreError> {
        if self.waiting.borrow().len() >= WAITING_MAX {
            return self.execute(sql, args).map(|_| ());
        }
        let args = kept(args)?.into_iter().map(Owned::from).collect();
        let waiting = Waiting::Prepared(self.prepare(sql)?, args);
        self.waiting.borrow_mut().push(waiting);
        Ok(())
    }

    fn query(&self, sql: &str, args: &Args<'_>, each: &mut Each<'_>) -> Result<(), StoreError> {
        let args = kept(args)?;
        let statement = self.prepare(sql)?;
        let rows = self.behind_others(self.object.query(&statement, &values(&args)))?;
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

impl Waiting {
    async fn send(&self, client: &Object) -> Result<(), tokio_postgres::Error> {
        match self {
            Self::Text(text) => client.batch_execute(text).await,
            Self::Prepared(statement, args) => client.execute(statement, &values(args)).await.map(|_| ()),
        }
    }
}

/// An argument that waits.
#[derive(Debug)]
enum Owned {
    Null,
    Integer(i64),
    Text(Box<str>),
    Blob(Box<[u8]>),
}

impl From<Arg<'_>> for Owned {
    fn from(arg: Arg<'_>) -> Self {
        match arg {
            Arg::Null => Self::Null,
            Arg::Integer(value) => Self::Integer(value),
            Arg::Text(text) => Self::Text(text.into()),
            Arg::Blob(bytes) => Self::Blob(bytes.into()),
        }
    }
}

impl Owned {
    fn arg(&self) -> Arg<'_> {
        match self {
            Self::Null => Arg::Null,
            Self::Integer(value) => Arg::Integer(*value),
            Self::Text(text) => Arg::Text(text),
            Self::Blob(bytes) => Arg::Blob(bytes),
        }
    }
}

/// The arguments, all of which this database can keep.
fn kept<'a>(args: &'a Args<'_>) -> Result<Vec<Arg<'a>>, StoreError> {
    let args: Vec<Arg<'_>> = args.iter().map(|arg| arg.to_arg()).collect();
    for arg in &args {
        if let Arg::Text(text) = arg
            && text.contains('\0')
        {
            let beginning: String = text.chars().take(40).collect();
            return Err(StoreError::refused(Code::MalformedRow, format!("{beginning:?}: this database keeps no text with U+0000")));
        }
    }
    Ok(args)
}

fn values<T: ToSql + Sync>(args: &[T]) -> Vec<&(dyn ToSql + Sync)> {
    args.iter().map(|arg| arg as &(dyn ToSql + Sync)).collect()
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
            Arg::Integer(_) | Arg::Text(_) | Arg::Blob(_) => return Err(format!("a parameter of type {of} cannot be {self:?}").into()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl ToSql for Owned {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        self.arg().to_sql(of, out)
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
