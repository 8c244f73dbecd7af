//! Other tables beside the collection's own: at most one row of each for each row.
//!
//! Each row looks its partner up by the partner's unique key. A plain join would do as well if the planner knew the tables; it does not when they are
//! new, or analysed when they were empty, and then it may compare every row with every other.

use super::{
    super::{
        key,
        mapping::{Join, THE_BRANCH},
        name::{ColumnName, quoted},
        table::{Column, Family, Table},
    },
    Scope, no_column,
};

/// Joins as SQL.
#[derive(Debug, Clone, Default)]
pub(super) struct Joins {
    /// By their keys, one row after the other.
    pub(super) looked_up: String,
    /// As the planner likes: for whoever begins at the other end.
    pub(super) planned: String,
    /// The wanted branch as values of columns that name it: `w.b0`, `w.b1`, …; each with the query of the values that are not themselves an id, if any is.
    pub(super) branches: Vec<(String, Option<String>)>,
}

/// Checks joins.
pub(super) fn compile(scope: &Scope<'_>, joins: &[&Join]) -> Result<Joins, String> {
    let mut compiled = Joins::default();
    for join in joins {
        let table = scope.joined[join.alias.as_str()];
        let names: Vec<&str> = join.on.keys().map(String::as_str).collect();
        if !table.is_unique(&names) {
            return Err(format!("join {:?}: several rows of {} may have the same {}", join.alias, table.name, names.join(", ")));
        }
        let alias = quoted(&join.alias);
        let (mut on, mut is_by_key) = (Vec::new(), table.is_found_by_key());
        for (name, left) in &join.on {
            let column = table.column(name).ok_or_else(|| no_column(table, name))?;
            if left == THE_BRANCH {
                is_by_key &= compiled.branch(table, &alias, column, &mut on);
                continue;
            }
            let (of, left) = scope.column(&ColumnName::parse(left).ok_or_else(|| format!("join: {left:?} is not a column"))?)?;
            on.push(format!("{alias}.{} = {of}.{}", quoted(name), quoted(&left.name)));
        }
        let (table, on) = (table.name.sql(), on.join(" AND "));
        let planned = format!(" LEFT JOIN {table} AS {alias} ON {on}");
        compiled.planned += &planned;
        compiled.looked_up += &match is_by_key {
            true => format!(" LEFT JOIN LATERAL (SELECT {alias}.* FROM {table} AS {alias} WHERE {on} OFFSET 0) AS {alias} ON true"),
            false => planned,
        };
    }
    Ok(compiled)
}

impl Joins {
    /// That a column names the wanted branch; tells whether an index can answer it.
    fn branch(&mut self, table: &Table, alias: &str, column: &Column, on: &mut Vec<String>) -> bool {
        let n = self.branches.len();
        let name = quoted(&column.name);
        let is_branch = format!("mstore.segment({}) = w.branch", key::text_sql(alias, column));
        let (value, others) = match column.family {
            Family::Integer => (INTEGER.to_owned(), None),
            Family::Uuid => (UUID.to_owned(), None),
            Family::Text => {
                let others = format!(
                    "SELECT DISTINCT mstore.segment(o.{name}::text) AS branch, o.{name}::text AS value FROM {} AS o WHERE mstore.segment(o.{name}::text) <> o.{name}::text",
                    table.name.sql()
                );
                let value = format!(
                    "CASE WHEN u.branch ~ '-[0-9a-f]{{16}}$' THEN coalesce((SELECT min(o.value) FROM other{n} AS o WHERE o.branch = u.branch), u.branch) ELSE u.branch END::{}",
                    column.cast
                );
                (value, Some(others))
            }
            Family::Numeric
            | Family::Float
            | Family::Money
            | Family::Boolean
            | Family::Enum
            | Family::Date
            | Family::Time
            | Family::LocalTime
            | Family::Json
            | Family::Array
            | Family::Bytes
            | Family::Composite
            | Family::Other => {
                on.push(is_branch);
                return false;
            }
        };
        self.branches.push((value, others));
        on.push(format!("{alias}.{name} = w.b{n}"));
        on.push(is_branch);
        true
    }
}

/// A branch as a number, if it is one.
const INTEGER: &str = "CASE WHEN u.branch ~ '^(0|-?[1-9][0-9]{0,18})$' AND u.branch::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN u.branch::bigint END";
/// A branch as a UUID, if it is one.
const UUID: &str = "CASE WHEN u.branch ~ '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' THEN u.branch::uuid END";
