//! How old a row may be that devices have: the `window` of a mapping as SQL.

use super::{
    super::{
        mapping::{self, CollectionMapping},
        name::{ColumnName, literal, quoted},
        table::Family,
    },
    Scope, asks_branch,
};

/// Most days that a window may have.
const DAYS_MAX: u32 = 3_660;

/// A window that was checked.
#[derive(Debug, Clone)]
pub(in super::super) struct Window {
    /// The column with its alias.
    column: String,
    of: Of,
    /// The zone of times without one, as a literal.
    zone: String,
    /// The beginning of the window, as every statement reads it.
    cutoff: String,
    pub(in super::super) days: i32,
}

/// What the column holds.
#[derive(Debug, Clone, Copy)]
enum Of {
    Moments,
    LocalTimes,
    Dates,
}

/// Checks the window of a collection.
pub(super) fn compile(scope: &Scope<'_>, mapping: &CollectionMapping, window: &mapping::Window) -> Result<Window, String> {
    let fail = |why: String| format!("window: {why}");
    let name: &ColumnName = &window.column;
    let (alias, column) = scope.column(name).map_err(fail)?;
    if mapping.joins.iter().any(|join| asks_branch(join) && name.of.as_ref() == Some(&join.alias)) {
        return Err(fail(format!("{name}: the row itself has to say how old it is, not what one branch has of it")));
    }
    let kinds = [(Family::Time, Of::Moments), (Family::LocalTime, Of::LocalTimes), (Family::Date, Of::Dates)];
    let of = kinds.into_iter().find(|(family, _)| *family == column.family).map(|(_, of)| of);
    let of = of.ok_or_else(|| fail(format!("{name} is {}, which is no time", column.cast)))?;
    if !(1..=DAYS_MAX).contains(&window.days) {
        return Err(fail(format!("days = {} is not a number from 1 to {DAYS_MAX}", window.days)));
    }
    Ok(Window {
        column: format!("{alias}.{}", quoted(&column.name)),
        of,
        zone: literal(window.zone.as_deref().unwrap_or("UTC")),
        cutoff: format!("(SELECT a.cutoff FROM mstore.attached AS a WHERE a.collection = {})", literal(&mapping.name)),
        days: i32::try_from(window.days).map_err(|error| fail(error.to_string()))?,
    })
}

impl Window {
    /// A moment as something that the column can be compared with: the column itself stays as an index has it.
    fn moment(&self, at: &str) -> String {
        match self.of {
            Of::Moments => at.to_owned(),
            Of::LocalTimes => format!("({at} AT TIME ZONE {})", self.zone),
            Of::Dates => format!("(({at} AT TIME ZONE {})::date)", self.zone),
        }
    }

    /// Whether a row may be on devices; one whose time is not known may.
    pub(in super::super) fn is_young(&self) -> String {
        format!("coalesce({} >= {}, true)", self.column, self.moment(&self.cutoff))
    }

    /// Whether a row's time lies from one moment on and before another.
    pub(in super::super) fn is_between(&self, from: &str, until: &str) -> String {
        format!("{column} >= {} AND {column} < {}", self.moment(from), self.moment(until), column = self.column)
    }
}
