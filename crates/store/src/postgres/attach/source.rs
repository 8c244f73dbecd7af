//! A mapping checked against its tables, with the SQL that reads its rows: what the file says is parsed here once, and believed afterwards.

use std::collections::BTreeMap;

use mstore_protocol::{Collection, Currency};

use super::{
    AttachError, key,
    mapping::{CollectionMapping, Join, Place, THE_BRANCH},
    name::{ColumnName, TableName, literal, quoted},
    table::{Column, Kind, Table},
};

mod fields;
mod joins;
mod statements;
mod window;

pub(super) use fields::{Compiled, Value};
use joins::Joins;
pub(super) use statements::mirror_index;
use window::Window;

/// The tables that mappings name, by name.
pub(super) type Tables = BTreeMap<TableName, Table>;

/// The alias of the collection's own table in every query.
pub(super) const OWN: &str = "t";

/// A collection that is read from tables of others.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) collection: Collection,
    pub(super) table: Table,
    pub(super) key: Vec<Column>,
    pub(super) fields: Vec<Compiled>,
    /// Expressions of what the fields need.
    pub(super) values: Vec<String>,
    /// Expression of the merchant's id.
    pub(super) merchant: String,
    /// Expression of the branch's id; none: every branch.
    pub(super) branch: Option<String>,
    /// Whether a row of the table itself says whose it is.
    pub(super) is_direct: bool,
    /// How old a row may be.
    pub(super) window: Option<Window>,
    /// Joins that tell whose a row is.
    joins: Joins,
    /// Further joins that a whole row needs.
    branch_joins: Joins,
    pub(super) related: Vec<Related>,
}

/// Another table whose changes change rows of the collection.
#[derive(Debug, Clone)]
pub(super) struct Related {
    /// What its marks call it.
    pub(super) alias: String,
    pub(super) table: Table,
    /// Its columns that say which rows.
    pub(super) columns: Vec<Column>,
    /// The collection's side: alias and column.
    pub(super) lefts: Vec<(String, Column)>,
    /// Its columns are the collection's whole key, in its order.
    pub(super) is_whole_key: bool,
    /// Its column that names the branch.
    pub(super) branch: Option<Column>,
}

/// Checks one collection of a mapping; `currency` is the merchant's.
pub(super) fn compile(mapping: &CollectionMapping, tables: &Tables, currency: &str) -> Result<Source, AttachError> {
    let fail = |why: String| AttachError::Mapping { collection: mapping.name.clone(), why };
    let collection = Collection::parse(&mapping.name).map_err(|error| fail(error.to_string()))?;
    let currency = Currency::parse(currency).map_err(|error| fail(error.to_string()))?;
    let scope = Scope::new(mapping, tables).map_err(fail)?;
    let key = scope.key().map_err(fail)?;
    let (fields, values) = fields::compile(&scope, currency).map_err(fail)?;
    let (merchant, merchant_is_own) = scope.place(&mapping.merchant, "merchant").map_err(fail)?;
    let (branch, branch_is_own) = scope.place(&mapping.branch, "branch").map_err(fail)?;
    let merchant = merchant.ok_or_else(|| fail("merchant: { every = true } is for branches".into()))?;
    let window = mapping.window.as_ref().map(|window| window::compile(&scope, mapping, window)).transpose().map_err(fail)?;
    let related = scope.related(&key).map_err(fail)?;
    let is_branch_joined = mapping.joins.iter().any(asks_branch);
    if is_branch_joined && branch.is_some() {
        return Err(fail(format!("a join on {THE_BRANCH} is for rows that every branch has: branch = {{ every = true }}")));
    }
    let (branch_joins, joins): (Vec<_>, Vec<_>) = mapping.joins.iter().partition(|join| asks_branch(join));
    let joins = joins::compile(&scope, &joins).map_err(fail)?;
    let branch_joins = joins::compile(&scope, &branch_joins).map_err(fail)?;
    let is_direct = merchant_is_own && branch_is_own && scope.table.kind.has_triggers();
    Ok(Source {
        collection,
        table: scope.table.clone(),
        key: key.into_iter().cloned().collect(),
        fields,
        values,
        merchant,
        branch,
        is_direct,
        window,
        joins,
        branch_joins,
        related,
    })
}

fn asks_branch(join: &Join) -> bool {
    join.on.values().any(|left| left == THE_BRANCH)
}

/// What names mean within one collection.
struct Scope<'a> {
    mapping: &'a CollectionMapping,
    tables: &'a Tables,
    table: &'a Table,
    joined: BTreeMap<&'a str, &'a Table>,
}

impl<'a> Scope<'a> {
    fn new(mapping: &'a CollectionMapping, tables: &'a Tables) -> Result<Self, String> {
        let find = |name: &TableName| tables.get(name).ok_or_else(|| format!("there is no table {name}, or our role may not see it"));
        let table = find(&mapping.table)?;
        match table.kind {
            Kind::Materialised => {
                return Err(format!("{} is a materialised view: nothing fires when it is refreshed; map the tables behind it", table.name));
            }
            Kind::Foreign => return Err(format!("{} is a foreign table: nothing fires here when it changes there", table.name)),
            Kind::View if mapping.watches.is_empty() => {
                return Err(format!("{} is a view: name the tables behind it, each as a [[collection.watch]]", table.name));
            }
            Kind::View | Kind::Table | Kind::Partitioned => {}
        }
        let mut joined = BTreeMap::new();
        for join in &mapping.joins {
            if join.alias == OWN || join.alias == "w" || joined.insert(join.alias.as_str(), find(&join.table)?).is_some() {
                return Err(format!("a join cannot be called {:?}: the name is taken", join.alias));
            }
        }
        Ok(Self { mapping, tables, table, joined })
    }

    /// The columns of the id.
    fn key(&self) -> Result<Vec<&'a Column>, String> {
        if self.mapping.key.is_empty() {
            return Err("a key takes at least one column".into());
        }
        let names: Vec<&str> = self.mapping.key.iter().map(String::as_str).collect();
        let key = names.iter().map(|name| self.own(name)).collect::<Result<Vec<_>, _>>()?;
        for column in &key {
            if let Some(why) = key::refusal(column) {
                return Err(format!("{} cannot be part of a key: {why}", column.name));
            }
        }
        let is_table = self.table.kind.has_triggers();
        if is_table && !(self.table.is_unique(&names) && key.iter().all(|column| column.not_null)) {
            return Err(format!(
                "two rows of {} may have the same {}: a key takes columns of a unique index, NOT NULL",
                self.table.name,
                names.join(", ")
            ));
        }
        Ok(key)
    }

    fn own(&self, name: &str) -> Result<&'a Column, String> {
        self.table.column(name).ok_or_else(|| no_column(self.table, name))
    }

    /// A column by the name that the mapping gives it, with the alias of its table.
    fn column(&self, name: &ColumnName) -> Result<(String, &'a Column), String> {
        let Some(alias) = &name.of else { return Ok((OWN.to_owned(), self.own(&name.column)?)) };
        let table = self.joined.get(alias.as_str()).ok_or_else(|| format!("{name}: no join is called {alias:?}"))?;
        Ok((quoted(alias), table.column(&name.column).ok_or_else(|| no_column(table, &name.column))?))
    }

    /// The expression of a merchant or branch, and whether a row of the table itself says it.
    fn place(&self, place: &Place, what: &str) -> Result<(Option<String>, bool), String> {
        match place {
            Place::Fixed { fixed } => {
                mstore_protocol::BranchId::parse(fixed).map_err(|error| format!("{what}: {error}"))?;
                Ok((Some(literal(fixed)), true))
            }
            Place::Every { every: true } => Ok((None, true)),
            Place::Every { every: false } => Err(format!("{what}: every is true or left out")),
            Place::Column { column: name } => {
                let (alias, column) = self.column(name).map_err(|why| format!("{what}: {why}"))?;
                if let Some(why) = key::refusal(column) {
                    return Err(format!("{what}: {name}: {why}"));
                }
                Ok((Some(key::segment_sql(&alias, column)), name.of.is_none()))
            }
        }
    }

    fn related(&self, key: &[&'a Column]) -> Result<Vec<Related>, String> {
        let mut related = Vec::new();
        for join in &self.mapping.joins {
            related.push(self.related_by_join(join, key)?);
        }
        for (n, watch) in self.mapping.watches.iter().enumerate() {
            let table =
                self.tables.get(&watch.table).ok_or_else(|| format!("there is no table {}, or our role may not see it", watch.table))?;
            if self.table.kind.has_triggers() {
                return Err(format!("{} is a table and watches itself; a [[collection.watch]] is for views", self.table.name));
            }
            let by_column = |name: &String| table.column(name).cloned().ok_or_else(|| no_column(table, name));
            let covered: Option<Vec<&String>> = self.mapping.key.iter().map(|name| watch.key.get(name)).collect();
            let is_whole_key = covered.is_some();
            let (lefts, columns) = match covered {
                Some(columns) => (key.to_vec(), columns),
                None => (watch.key.keys().map(|name| self.own(name)).collect::<Result<_, _>>()?, watch.key.values().collect()),
            };
            related.push(Related {
                alias: format!("watch {}", n + 1),
                table: with_triggers(table)?.clone(),
                columns: columns.into_iter().map(by_column).collect::<Result<_, _>>()?,
                lefts: lefts.into_iter().map(|column| (OWN.to_owned(), column.clone())).collect(),
                is_whole_key,
                branch: None,
            });
        }
        Ok(related)
    }

    fn related_by_join(&self, join: &Join, key: &[&'a Column]) -> Result<Related, String> {
        let table = with_triggers(self.joined[join.alias.as_str()])?;
        let by_column = |name: &str| table.column(name).cloned().ok_or_else(|| no_column(table, name));
        let mut pairs = Vec::new();
        let mut branch = None;
        for (name, left) in &join.on {
            if left == THE_BRANCH {
                branch = Some(by_column(name)?);
                continue;
            }
            let (of, left) = self.column(&ColumnName::parse(left).ok_or_else(|| format!("join: {left:?} is not a column"))?)?;
            pairs.push((by_column(name)?, (of, left.clone())));
        }
        if pairs.is_empty() {
            return Err(format!("join {:?}: nothing of the row is compared", join.alias));
        }
        // In the order of the collection's key where it is the key, so that an id can be made of it.
        let place = |left: &(String, Column)| key.iter().position(|column| left.0 == OWN && column.name == left.1.name);
        pairs.sort_by_key(|(_, left)| place(left).unwrap_or(usize::MAX));
        let is_whole_key = pairs.len() == key.len() && pairs.iter().enumerate().all(|(i, (_, left))| place(left) == Some(i));
        let (columns, lefts) = pairs.into_iter().unzip();
        Ok(Related { alias: join.alias.clone(), table: table.clone(), columns, lefts, is_whole_key, branch })
    }
}

fn with_triggers(table: &Table) -> Result<&Table, String> {
    if table.kind.has_triggers() { Ok(table) } else { Err(format!("{} is not a table, so nothing fires when it changes", table.name)) }
}

fn no_column(table: &Table, name: &str) -> String {
    let names = table.columns.iter().map(|column| column.name.as_str());
    format!("{} has no column {name:?}; {}", table.name, mstore_protocol::did_you_mean(name, names))
}
