//! A table of somebody else's database, as far as attaching needs to know it: read from the catalogue, stored with the mapping, compared later.

use serde::{Deserialize, Serialize};

use super::name::TableName;

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// An ordinary table.
    #[serde(rename = "r")]
    Table,
    /// A partitioned table.
    #[serde(rename = "p")]
    Partitioned,
    /// A view.
    #[serde(rename = "v")]
    View,
    /// A materialised view: nothing fires when it is refreshed.
    #[serde(rename = "m")]
    Materialised,
    /// A foreign table: nothing fires when it changes where it lives.
    #[serde(rename = "f")]
    Foreign,
}

impl Kind {
    /// Whether triggers on it see what is written.
    pub fn has_triggers(self) -> bool {
        matches!(self, Self::Table | Self::Partitioned)
    }
}

/// What the values of a column are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// `smallint`, `integer`, `bigint`.
    Integer,
    /// `numeric`.
    Numeric,
    /// `real`, `double precision`.
    Float,
    /// PostgreSQL's `money`.
    Money,
    /// `text`, `varchar`, `char`, `citext`.
    Text,
    /// `boolean`.
    Boolean,
    /// `uuid`.
    Uuid,
    /// An enumeration.
    Enum,
    /// `date`.
    Date,
    /// `timestamp with time zone`.
    Time,
    /// `timestamp without time zone`.
    LocalTime,
    /// `json`, `jsonb`.
    Json,
    /// An array of anything.
    Array,
    /// `bytea`.
    Bytes,
    /// A row type.
    Composite,
    /// Anything else; it has a text form.
    Other,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as SQL writes it in a cast, without length or precision.
    pub cast: String,
    /// What its values are like.
    pub family: Family,
    /// Decimals of a `numeric(p,s)`.
    pub scale: Option<i32>,
    /// Whether it may not be NULL.
    pub not_null: bool,
    /// Whether the database computes it.
    pub generated: bool,
    /// The labels of an enumeration: renaming one changes rows and fires nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Columns here.
    pub columns: Vec<String>,
    /// The table they point to.
    pub table: TableName,
    /// Columns there, in the same order.
    pub targets: Vec<String>,
}

/// A partition, or a table that inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its identity.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// Whether triggers on it see what is written into it directly.
    pub has_triggers: bool,
}

/// What our role may do with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Read it.
    pub select: bool,
    /// It belongs to us, or to a role that we are a member of: what `ENABLE ALWAYS TRIGGER` and `DROP TRIGGER` take.
    pub owner: bool,
    /// Row security would hide rows from us.
    pub row_security: bool,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its identity, whatever its name.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// What it is.
    pub kind: Kind,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Its unique keys, the primary key first; each of its columns in order.
    pub keys: Vec<Vec<String>>,
    /// The columns of its indexes, unique or not, in order.
    #[serde(default)]
    pub indexes: Vec<Vec<String>>,
    /// Its foreign keys.
    pub references: Vec<Reference>,
    /// Its partitions and inheriting tables, of every level.
    pub parts: Vec<Part>,
    /// About how many rows it has; negative when nobody ever counted.
    pub rows_estimate: i64,
    /// What we may do with it.
    pub rights: Rights,
}

impl Table {
    /// A column by name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The first unique key whose columns cannot be NULL.
    pub fn row_key(&self) -> Option<&[String]> {
        let whole = |key: &&Vec<String>| key.iter().all(|name| self.column(name).is_some_and(|column| column.not_null));
        self.keys.iter().find(whole).map(Vec::as_slice)
    }

    /// Whether an index over all of its rows finds them by a unique key. Inheriting tables have indexes of their own, or none; a view has what it is made of.
    pub fn is_found_by_key(&self) -> bool {
        match self.kind {
            Kind::Table => self.parts.is_empty(),
            Kind::Partitioned => true,
            Kind::View | Kind::Materialised | Kind::Foreign => false,
        }
    }

    /// Whether an index begins with these columns, in whatever order.
    pub fn is_indexed_by(&self, columns: &[&str]) -> bool {
        let begins = |index: &Vec<String>| {
            index.get(..columns.len()).is_some_and(|first| columns.iter().all(|name| first.iter().any(|own| own == name)))
        };
        self.is_found_by_key() && self.indexes.iter().any(begins)
    }

    /// Whether at most one row can have these values in these columns.
    pub fn is_unique(&self, columns: &[&str]) -> bool {
        self.keys.iter().any(|key| key.iter().all(|name| columns.contains(&name.as_str())))
    }
}
