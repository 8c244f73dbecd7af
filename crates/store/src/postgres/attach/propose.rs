//! Proposes a mapping for tables that nobody made for us: what names, types and keys suggest. A person reads it before anything is done.

use std::collections::BTreeMap;

use super::{
    key,
    mapping::{CollectionMapping, Field, Join, Mapping, MerchantMapping, NewColumns, Place},
    name::{ColumnName, TableName},
    table::{Kind, Table},
};

mod fields;
mod scope;
mod words;

pub(super) use fields::of_column;

/// A mapping with what is to be said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The mapping.
    pub mapping: Mapping,
    /// About each collection, by name.
    pub notes: BTreeMap<String, Notes>,
    /// Tables that are not in it, and why.
    pub skipped: Vec<(TableName, String)>,
}

/// What is to be said about a collection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// About the whole.
    pub about: Vec<String>,
    /// About its fields.
    pub fields: BTreeMap<String, String>,
    /// Columns that are not sent, and why.
    pub left_out: Vec<(String, String)>,
}

/// What nobody can read from a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The merchant, where no column names one.
    pub merchant: MerchantMapping,
    /// The branch, where no column of any table names one.
    pub branch: String,
}

/// Looks at all tables and proposes what devices could have of them.
pub fn propose(tables: &[Table], given: &Given) -> Proposal {
    let branches = scope::branches(tables);
    let knows_branches = branches.table.is_some() || tables.iter().any(|table| scope::branch_column(table).is_some());
    let mut proposal = Proposal {
        mapping: Mapping { merchant: given.merchant.clone(), branches, collections: Vec::new() },
        notes: BTreeMap::new(),
        skipped: Vec::new(),
    };
    for table in tables {
        if let Some(why) = unusable(table) {
            proposal.skipped.push((table.name.clone(), why));
            continue;
        }
        let taken = |name: &str| proposal.mapping.collections.iter().any(|collection| collection.name == name);
        let (shape, name) = name_of(table, taken);
        let (mut collection, mut notes) = collection(table, tables, shape, name, given, knows_branches);
        if proposal.mapping.branches.table.as_ref() == Some(&table.name) {
            collection.enabled = false;
            notes.about.push("This table names the branches (see [branches]); devices need not have it.".into());
        }
        proposal.notes.insert(collection.name.clone(), notes);
        proposal.mapping.collections.push(collection);
    }
    proposal
}

/// The row shapes that every device knows, or none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Product,
    Inventory,
    Transaction,
    Own,
}

fn unusable(table: &Table) -> Option<String> {
    let key = || table.row_key();
    match table.kind {
        Kind::View => Some("a view: map it by hand, and name the tables behind it as [[collection.watch]]".into()),
        Kind::Materialised => Some("a materialised view: nothing fires when it is refreshed".into()),
        Kind::Foreign => Some("a foreign table: nothing fires here when it changes there".into()),
        Kind::Table | Kind::Partitioned if !table.rights.select => Some("our role may not read it".into()),
        Kind::Table | Kind::Partitioned if words::is_housekeeping(&table.name.name) => Some("housekeeping of a migration tool".into()),
        Kind::Table | Kind::Partitioned if key().is_none() => {
            Some("no primary key, and no unique key of NOT NULL columns: rows have no identity".into())
        }
        Kind::Table | Kind::Partitioned => {
            let refused = key()?.iter().filter_map(|name| table.column(name)).find_map(|column| Some((column, key::refusal(column)?)));
            refused.map(|(column, why)| format!("its key has the column {}: {why}", column.name))
        }
    }
}

fn name_of(table: &Table, taken: impl Fn(&str) -> bool) -> (Shape, String) {
    let shape = fields::shape(table);
    let built_in = match shape {
        Shape::Product => "product",
        Shape::Inventory => "inventory",
        Shape::Transaction => "transaction",
        Shape::Own => "",
    };
    if !built_in.is_empty() && !taken(built_in) {
        return (shape, built_in.to_owned());
    }
    let own = words::segment(&table.name.name);
    let own = if matches!(own.as_str(), "product" | "inventory" | "transaction" | "sync") { format!("{own}s") } else { own };
    let with_schema = words::segment(&format!("{}_{}", table.name.schema, table.name.name));
    let name = [own, with_schema.clone()].into_iter().find(|name| !taken(name));
    (
        Shape::Own,
        name.unwrap_or_else(|| (2_u32..).map(|n| format!("{with_schema}_{n}")).find(|name| !taken(name)).expect("there is no last number")),
    )
}

fn collection(
    table: &Table,
    tables: &[Table],
    shape: Shape,
    name: String,
    given: &Given,
    knows_branches: bool,
) -> (CollectionMapping, Notes) {
    let mut notes = Notes::default();
    let mut joins: Vec<Join> = Vec::new();
    let merchant = scope::merchant_column(table)
        .map_or_else(|| Place::Fixed { fixed: given.merchant.id.clone() }, |column| Place::Column { column: ColumnName::own(column) });
    let branch = branch_of(table, tables, given, knows_branches, &mut joins, &mut notes);
    let mut fields = fields::all(table, shape, &mut notes);
    if shape == Shape::Product && !fields.contains_key("stock") {
        let is_everywhere = matches!(branch, Place::Every { .. });
        if let Some((join, column)) = scope::stock_of(table, tables).filter(|_| is_everywhere) {
            notes.fields.insert("stock".into(), format!("what the branch has, from {}; without a row there, 0", join.table));
            let stock = Field { value: Some("0".into()), ..fields::quantity(ColumnName::joined(&join.alias, column)) };
            fields.insert("stock".into(), stock);
            joins.push(join);
        }
    }
    fields::complete(shape, table, &mut fields, &mut notes);
    let people = table.columns.iter().find(|column| words::is_about_people(&column.name));
    if let Some(column) = people {
        notes.about.push(format!("Not enabled: {} looks like data about people. Enable it knowingly, without such columns.", column.name));
    }
    if !table.rights.owner {
        notes.about.push("Our role does not own this table: run `attach` as its owner or as a superuser to install.".into());
    }
    let key = table.row_key().unwrap_or_default().to_vec();
    let collection = CollectionMapping {
        name,
        table: table.name.clone(),
        enabled: people.is_none(),
        key,
        merchant,
        branch,
        new_columns: NewColumns::Ignore,
        window: None,
        joins,
        watches: Vec::new(),
        fields,
    };
    (collection, notes)
}

fn branch_of(table: &Table, tables: &[Table], given: &Given, knows_branches: bool, joins: &mut Vec<Join>, notes: &mut Notes) -> Place {
    if let Some(column) = scope::branch_column(table) {
        return Place::Column { column: ColumnName::own(column) };
    }
    if let Some((path, column)) = scope::branch_by_parents(table, tables) {
        let parents: Vec<String> = path.iter().map(|join| join.table.to_string()).collect();
        notes.about.push(format!("No branch column; the branch is that of its parent: {}.", parents.join(" → ")));
        let alias = path.last().map_or_else(String::new, |join| join.alias.clone());
        joins.extend(path);
        return Place::Column { column: ColumnName::joined(alias, column) };
    }
    if knows_branches {
        notes.about.push("Nothing tells a branch: every branch of the merchant gets all rows.".into());
        return Place::Every { every: true };
    }
    notes.about.push("No table of this database names a branch: all rows belong to one.".into());
    Place::Fixed { fixed: given.branch.clone() }
}
