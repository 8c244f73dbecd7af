//! Where the branch and the merchant of a table's rows may be found.

use std::collections::BTreeMap;

use super::{
    super::{
        mapping::{Branches, Join, NewBranch, THE_BRANCH},
        table::{Family, Table},
    },
    words,
};

/// Parents of parents of parents.
const PATH_MAX: usize = 3;

/// The column that names the branch.
pub(super) fn branch_column(table: &Table) -> Option<&str> {
    // A table of branches does not belong to one of them.
    if words::is_branch_table(&table.name.name) {
        return None;
    }
    table.columns.iter().find(|column| words::is_branch(&column.name) && !is_float(column.family)).map(|column| column.name.as_str())
}

/// The column that names the merchant.
pub(super) fn merchant_column(table: &Table) -> Option<&str> {
    table.columns.iter().find(|column| words::is_merchant(&column.name) && !is_float(column.family)).map(|column| column.name.as_str())
}

fn is_float(family: Family) -> bool {
    family == Family::Float
}

/// The table that has a row for each branch.
pub(super) fn branches(tables: &[Table]) -> Branches {
    let found = tables
        .iter()
        .find(|table| words::is_branch_table(&table.name.name) && table.rights.select && table.row_key().is_some_and(|key| key.len() == 1));
    let Some(table) = found else { return Branches { new: NewBranch::Create, ..Branches::default() } };
    let name = table
        .columns
        .iter()
        .find(|column| matches!(words::plain(&column.name).as_str(), "name" | "branchname" | "outletname" | "storename" | "title"));
    Branches {
        new: NewBranch::Create,
        table: Some(table.name.clone()),
        key: table.row_key().and_then(|key| key.first()).cloned(),
        name: name.map(|column| column.name.clone()),
        merchant: merchant_column(table).map(str::to_owned),
    }
}

/// The shortest way over foreign keys to a table that names the branch.
pub(super) fn branch_by_parents(table: &Table, tables: &[Table]) -> Option<(Vec<Join>, String)> {
    let mut paths: Vec<(&Table, Vec<Join>)> = vec![(table, Vec::new())];
    for _ in 0..PATH_MAX {
        let mut longer = Vec::new();
        for (at, path) in &paths {
            for reference in at.references.iter().filter(|reference| reference.table != table.name) {
                let Some(parent) = tables.iter().find(|other| other.name == reference.table && other.kind.has_triggers()) else { continue };
                let targets: Vec<&str> = reference.targets.iter().map(String::as_str).collect();
                if !parent.is_unique(&targets) || path.iter().any(|join| join.table == parent.name) {
                    continue;
                }
                let join = join_to(parent, &reference.columns, &reference.targets, path);
                let path: Vec<Join> = path.iter().cloned().chain([join]).collect();
                if let Some(column) = branch_column(parent) {
                    return Some((path, column.to_owned()));
                }
                longer.push((parent, path));
            }
        }
        paths = longer;
    }
    None
}

fn join_to(parent: &Table, columns: &[String], targets: &[String], path: &[Join]) -> Join {
    let base = match words::segment(&parent.name.name).replace('-', "_") {
        short if short.len() < 2 => format!("{short}_"),
        name => name,
    };
    let alias = if path.iter().any(|join| join.alias == base) { format!("{base}_{}", path.len() + 1) } else { base };
    let left = |column: &String| path.last().map_or_else(|| column.clone(), |join| format!("{}.{column}", join.alias));
    let on: BTreeMap<String, String> = targets.iter().cloned().zip(columns.iter().map(left)).collect();
    Join { table: parent.name.clone(), alias, on }
}

/// A table with one row for each product and branch, and its column with the quantity.
pub(super) fn stock_of(product: &Table, tables: &[Table]) -> Option<(Join, String)> {
    let key = product.row_key().filter(|key| key.len() == 1)?.first()?;
    tables.iter().find_map(|table| {
        let branch = branch_column(table)?;
        let by_key = |reference: &&super::super::table::Reference| reference.table == product.name && reference.targets == [key.clone()];
        let column = table.references.iter().find(by_key)?.columns.first()?;
        let quantity = table.columns.iter().find(|other| words::is_quantity(&other.name) && is_countable(other.family))?;
        if !table.is_unique(&[column, branch]) || !table.kind.has_triggers() {
            return None;
        }
        let on = BTreeMap::from([(column.clone(), key.clone()), (branch.to_owned(), THE_BRANCH.to_owned())]);
        Some((Join { table: table.name.clone(), alias: "stock_of_branch".into(), on }, quantity.name.clone()))
    })
}

fn is_countable(family: Family) -> bool {
    matches!(family, Family::Integer | Family::Numeric | Family::Float)
}
