//! SQLite below the seam: one connection, each statement prepared once.

use std::ops::ControlFlow;

use rusqlite::{
    Connection, Statement,
    types::{ToSqlOutput, Value, ValueRef},
};

use crate::{
    StoreError,
    sql::{Arg, Args, Cell, Cells, Dialect, Each, Row, Sql},
};

impl Sql for Connection {
    fn execute(&self, sql: &str, args: &Args<'_>) -> Result<usize, StoreError> {
        let mut statement = self.prepare_cached(sql)?;
        bind(&mut statement, args)?;
        Ok(statement.raw_execute()?)
    }

    fn query(&self, sql: &str, args: &Args<'_>, each: &mut Each<'_>) -> Result<(), StoreError> {
        let mut statement = self.prepare_cached(sql)?;
        bind(&mut statement, args)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            if each(&Row(row))? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn is_lost(&self) -> bool {
        self.is_autocommit()
    }

    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }
}

fn bind(statement: &mut Statement<'_>, args: &Args<'_>) -> rusqlite::Result<()> {
    args.iter().enumerate().try_for_each(|(i, arg)| statement.raw_bind_parameter(i + 1, arg.to_arg()))
}

impl rusqlite::ToSql for Arg<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Arg::Null => ToSqlOutput::Owned(Value::Null),
            Arg::Integer(value) => ToSqlOutput::Owned(Value::Integer(*value)),
            Arg::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Arg::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

impl Cells for rusqlite::Row<'_> {
    fn count(&self) -> usize {
        self.as_ref().column_count()
    }

    fn name(&self, i: usize) -> &str {
        self.as_ref().column_name(i).unwrap_or("a column")
    }

    fn cell(&self, i: usize) -> Cell<'_> {
        match self.get_ref(i) {
            Ok(ValueRef::Null) => Cell::Null,
            Ok(ValueRef::Integer(value)) => Cell::Integer(value),
            Ok(ValueRef::Text(bytes)) => Cell::Text(bytes),
            Ok(ValueRef::Blob(bytes)) => Cell::Blob(bytes),
            Ok(ValueRef::Real(_)) | Err(_) => Cell::Foreign,
        }
    }
}
