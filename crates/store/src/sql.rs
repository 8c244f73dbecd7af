//! The seam between the use cases and the databases: statements that both understand, their arguments, the rows they give.
//!
//! A use case is written once against it. It is synchronous: whoever carries a use case out does so on a thread that may wait.

use std::ops::ControlFlow;

use mstore_protocol::{BranchId, BranchKey, DeviceId, MerchantId, Quantity, Timestamp, limits::QUANTITY_MILLI_MAX};

use crate::StoreError;

/// Which database is below, for the few statements that one of them does not need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// One writer at a time: whatever a use case reads stays as it is until it ends.
    Sqlite,
    /// Writers beside each other, each statement with a snapshot of its own.
    Postgres,
}

/// A transaction of one database. Statements have positional parameters, `?1`, `?2`, …
pub(crate) trait Sql {
    /// Carries a statement out and answers how many rows it changed.
    fn execute(&self, sql: &str, args: &Args<'_>) -> Result<usize, StoreError>;

    /// Carries a statement out whose outcome nobody asks for: it may go out with the next one, and what goes wrong is told then.
    fn send(&self, sql: &str, args: &Args<'_>) -> Result<(), StoreError> {
        self.execute(sql, args).map(|_| ())
    }

    /// Hands over the rows of a statement until there are no more or one is enough.
    fn query(&self, sql: &str, args: &Args<'_>, each: &mut Each<'_>) -> Result<(), StoreError>;

    /// The transaction is gone, and with it everything that was done in it.
    fn is_lost(&self) -> bool;

    /// Which database it is.
    fn dialect(&self) -> Dialect;
}

/// Takes the rows of a query.
pub(crate) type Each<'a> = dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>, StoreError> + 'a;

impl dyn Sql + '_ {
    /// The first row, if there is one.
    pub(crate) fn row<T>(
        &self,
        sql: &str,
        args: &Args<'_>,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut found = None;
        self.query(sql, args, &mut |row| {
            found = Some(read(row)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// All rows.
    pub(crate) fn rows<T>(
        &self,
        sql: &str,
        args: &Args<'_>,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        self.query(sql, args, &mut |row| {
            found.push(read(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Whether there is a row.
    pub(crate) fn exists(&self, sql: &str, args: &Args<'_>) -> Result<bool, StoreError> {
        Ok(self.row(sql, args, |_| Ok(()))?.is_some())
    }
}

/// What a parameter is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arg<'a> {
    /// NULL.
    Null,
    /// An integer; truth is 1 or 0.
    Integer(i64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

/// What can be bound to a parameter.
pub(crate) trait ToArg {
    /// As it is bound.
    fn to_arg(&self) -> Arg<'_>;
}

/// The arguments of a statement, in the order of its parameters.
pub(crate) type Args<'a> = [&'a dyn ToArg];

/// The arguments of a statement: `args![name, 7, None::<&str>]`.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$(&$value as &dyn $crate::sql::ToArg),*] };
}
pub(crate) use args;

impl ToArg for Arg<'_> {
    fn to_arg(&self) -> Arg<'_> {
        *self
    }
}

impl ToArg for str {
    fn to_arg(&self) -> Arg<'_> {
        Arg::Text(self)
    }
}

impl ToArg for String {
    fn to_arg(&self) -> Arg<'_> {
        Arg::Text(self)
    }
}

impl ToArg for Box<str> {
    fn to_arg(&self) -> Arg<'_> {
        Arg::Text(self)
    }
}

impl ToArg for [u8] {
    fn to_arg(&self) -> Arg<'_> {
        Arg::Blob(self)
    }
}

impl ToArg for [u8; 32] {
    fn to_arg(&self) -> Arg<'_> {
        Arg::Blob(self)
    }
}

impl ToArg for i64 {
    fn to_arg(&self) -> Arg<'_> {
        Arg::Integer(*self)
    }
}

/// Databases count with a sign; what we count never comes near the end of it.
impl ToArg for u64 {
    fn to_arg(&self) -> Arg<'_> {
        Arg::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl ToArg for usize {
    fn to_arg(&self) -> Arg<'_> {
        Arg::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl ToArg for bool {
    fn to_arg(&self) -> Arg<'_> {
        Arg::Integer(i64::from(*self))
    }
}

impl<T: ToArg> ToArg for Option<T> {
    fn to_arg(&self) -> Arg<'_> {
        self.as_ref().map_or(Arg::Null, ToArg::to_arg)
    }
}

impl<T: ToArg + ?Sized> ToArg for &T {
    fn to_arg(&self) -> Arg<'_> {
        (**self).to_arg()
    }
}

/// A value as the database gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    /// NULL.
    Null,
    /// An integer; truth is 1 or 0.
    Integer(i64),
    /// A text, which a foreign writer may have left in any encoding.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
    /// Something that none of our columns holds.
    Foreign,
}

/// The values of a row, by their place.
pub(crate) trait Cells {
    /// How many there are.
    fn count(&self) -> usize;

    /// What the statement calls the one at a place.
    fn name(&self, i: usize) -> &str;

    /// The one at a place.
    fn cell(&self, i: usize) -> Cell<'_>;
}

/// A row; whoever reads a value says what it must be, and anything else is damage.
pub(crate) struct Row<'a>(pub(crate) &'a dyn Cells);

impl<'a> Row<'a> {
    /// The value at a place, whatever it is.
    pub(crate) fn cell(&self, i: usize) -> Cell<'a> {
        self.0.cell(i)
    }

    /// Each value with its name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'a str, Cell<'a>)> + use<'a> {
        let cells = self.0;
        (0..cells.count()).map(move |i| (cells.name(i), cells.cell(i)))
    }

    fn damage(&self, i: usize, wanted: &str) -> StoreError {
        damaged(self.0.name(i), format!("not {wanted}"))
    }

    fn is_null(&self, i: usize) -> bool {
        self.cell(i) == Cell::Null
    }

    /// A text.
    pub(crate) fn text(&self, i: usize) -> Result<&'a str, StoreError> {
        let Cell::Text(bytes) = self.cell(i) else { return Err(self.damage(i, "a text")) };
        std::str::from_utf8(bytes).map_err(|error| damaged(self.0.name(i), error))
    }

    /// A text or NULL.
    pub(crate) fn optional_text(&self, i: usize) -> Result<Option<&'a str>, StoreError> {
        if self.is_null(i) { Ok(None) } else { self.text(i).map(Some) }
    }

    /// A text, kept.
    pub(crate) fn string(&self, i: usize) -> Result<String, StoreError> {
        self.text(i).map(str::to_owned)
    }

    /// A text or NULL, kept.
    pub(crate) fn optional_string(&self, i: usize) -> Result<Option<String>, StoreError> {
        Ok(self.optional_text(i)?.map(str::to_owned))
    }

    /// The bytes of a text or blob.
    pub(crate) fn bytes(&self, i: usize) -> Result<&'a [u8], StoreError> {
        match self.cell(i) {
            Cell::Text(bytes) | Cell::Blob(bytes) => Ok(bytes),
            Cell::Null | Cell::Integer(_) | Cell::Foreign => Err(self.damage(i, "bytes")),
        }
    }

    /// So many bytes.
    pub(crate) fn array<const N: usize>(&self, i: usize) -> Result<[u8; N], StoreError> {
        self.bytes(i)?.try_into().map_err(|_| self.damage(i, "as long as it should be"))
    }

    /// An integer.
    pub(crate) fn integer(&self, i: usize) -> Result<i64, StoreError> {
        let Cell::Integer(value) = self.cell(i) else { return Err(self.damage(i, "an integer")) };
        Ok(value)
    }

    /// A count, or a number that somebody gave.
    pub(crate) fn number(&self, i: usize) -> Result<u64, StoreError> {
        u64::try_from(self.integer(i)?).map_err(|error| damaged(self.0.name(i), error))
    }

    /// The same or NULL.
    pub(crate) fn optional_number(&self, i: usize) -> Result<Option<u64>, StoreError> {
        if self.is_null(i) { Ok(None) } else { self.number(i).map(Some) }
    }

    /// Yes or no.
    pub(crate) fn flag(&self, i: usize) -> Result<bool, StoreError> {
        Ok(self.integer(i)? != 0)
    }

    /// Thousandths, however many.
    pub(crate) fn milli(&self, i: usize) -> Result<Quantity, StoreError> {
        self.integer(i).map(Quantity::from_milli)
    }

    /// A quantity within the range of the protocol.
    pub(crate) fn quantity(&self, i: usize) -> Result<Quantity, StoreError> {
        let milli = self.integer(i)?;
        if milli.unsigned_abs() > QUANTITY_MILLI_MAX.unsigned_abs() {
            return Err(damaged(self.0.name(i), format!("{milli} thousandths; a quantity has at most {QUANTITY_MILLI_MAX}")));
        }
        Ok(Quantity::from_milli(milli))
    }

    /// A time.
    pub(crate) fn time(&self, i: usize) -> Result<Timestamp, StoreError> {
        Timestamp::parse(self.text(i)?).map_err(|error| damaged(self.0.name(i), error))
    }

    /// A time or NULL.
    pub(crate) fn optional_time(&self, i: usize) -> Result<Option<Timestamp>, StoreError> {
        if self.is_null(i) { Ok(None) } else { self.time(i).map(Some) }
    }

    /// A branch of a merchant that is known.
    pub(crate) fn branch(&self, i: usize) -> Result<BranchId, StoreError> {
        BranchId::parse(self.text(i)?).map_err(|error| damaged(self.0.name(i), error))
    }

    /// A branch named by two columns.
    pub(crate) fn key(&self, i: usize) -> Result<BranchKey, StoreError> {
        let merchant = MerchantId::parse(self.text(i)?).map_err(|error| damaged(self.0.name(i), error))?;
        Ok(BranchKey { merchant, branch: self.branch(i + 1)? })
    }

    /// A device.
    pub(crate) fn device(&self, i: usize) -> Result<DeviceId, StoreError> {
        DeviceId::parse(self.text(i)?).map_err(|error| damaged(self.0.name(i), error))
    }
}

/// Something in the database that its own rules do not allow.
pub(crate) fn damaged(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("the database holds {what} that this version cannot read: {error}"))
}
