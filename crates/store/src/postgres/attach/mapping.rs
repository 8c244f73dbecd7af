//! The mapping as people write it in a file and as the database keeps it: raw; [`super::source`] checks it against the tables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::name::{ColumnName, TableName};

/// A whole mapping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The merchant of whatever does not say its own.
    pub merchant: MerchantMapping,
    /// Where branches come from.
    #[serde(default)]
    pub branches: Branches,
    /// Table by table.
    #[serde(default, rename = "collection")]
    pub collections: Vec<CollectionMapping>,
}

/// The merchant whose rows they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MerchantMapping {
    /// Its id with us.
    pub id: String,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// ISO 4217 code of its prices.
    pub currency: String,
}

/// Where branches come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branches {
    /// What a branch value that nobody has seen before does.
    #[serde(default)]
    pub new: NewBranch,
    /// A table with one row for each branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableName>,
    /// Its column with the values that the branch columns of other tables hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its column with what people call the branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its column with the merchant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merchant: Option<String>,
}

/// What a branch value that nobody has seen before does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewBranch {
    /// It becomes a branch.
    #[default]
    Create,
    /// Its rows wait in quarantine, with an alarm, until somebody makes the branch.
    Alarm,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionMapping {
    /// What devices call it.
    pub name: String,
    /// The table or view.
    pub table: TableName,
    /// false: left alone.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The columns whose values make the row id.
    pub key: Vec<String>,
    /// Whose rows they are.
    pub merchant: Place,
    /// Which branch they belong to.
    pub branch: Place,
    /// What a column that is added later does.
    #[serde(default)]
    pub new_columns: NewColumns,
    /// How old a row may be that devices have; any age when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Other tables that have a part of the row, or know its branch.
    #[serde(default, rename = "join", skip_serializing_if = "Vec::is_empty")]
    pub joins: Vec<Join>,
    /// Views only: the tables behind it.
    #[serde(default, rename = "watch", skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<Watch>,
    /// The fields of a row.
    pub fields: BTreeMap<String, Field>,
}

/// How old a row may be that devices have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The column with its time: `timestamp`, with or without zone, or `date`. A row without one stays.
    pub column: ColumnName,
    /// Older rows leave the devices, by ordinary deletions; the table keeps them.
    pub days: u32,
    /// Times without a zone: the zone they are in; UTC when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

fn yes() -> bool {
    true
}

/// Where the merchant or the branch of a row comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, try_from = "WrittenPlace")]
pub enum Place {
    /// Always the same.
    Fixed {
        /// Its id.
        fixed: String,
    },
    /// The value of a column.
    Column {
        /// The column.
        column: ColumnName,
    },
    /// Every branch of the merchant has the row.
    Every {
        /// Always true.
        every: bool,
    },
}

/// A place as it is written: with one of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPlace {
    fixed: Option<String>,
    column: Option<ColumnName>,
    every: Option<bool>,
}

impl TryFrom<WrittenPlace> for Place {
    type Error = &'static str;

    fn try_from(written: WrittenPlace) -> Result<Self, Self::Error> {
        match written {
            WrittenPlace { fixed: Some(fixed), column: None, every: None } => Ok(Self::Fixed { fixed }),
            WrittenPlace { fixed: None, column: Some(column), every: None } => Ok(Self::Column { column }),
            WrittenPlace { fixed: None, column: None, every: Some(every) } => Ok(Self::Every { every }),
            _none_or_several => Err("a merchant or branch is one of { fixed = \"…\" }, { column = \"…\" } and { every = true }"),
        }
    }
}

/// What a column that is added later does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewColumns {
    /// Devices do not get it until it is mapped.
    #[default]
    Ignore,
    /// Devices get it under its own name.
    Send,
}

/// Another table with at most one row for each row of the collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The table.
    pub table: TableName,
    /// What columns call it.
    #[serde(rename = "as")]
    pub alias: String,
    /// Its columns, each with the column of the collection's table or of an earlier join that it equals, or `$branch`: the branch that is asked for.
    pub on: BTreeMap<String, String>,
}

/// The branch that is asked for, in [`Join::on`].
pub const THE_BRANCH: &str = "$branch";

/// A table behind a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// The table.
    pub table: TableName,
    /// Columns of the view, each with the column of this table that it shows. All columns of the key, or rows that fall out of the view
    /// because of this table are found by the sweep only.
    pub key: BTreeMap<String, String>,
}

/// What a value becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum As {
    /// A string.
    Text,
    /// An integer within ±(2^53−1).
    Integer,
    /// true or false.
    Boolean,
    /// Minor units and a currency.
    Money,
    /// A decimal string with up to three places.
    Quantity,
    /// A decimal string with as many places as there are.
    Decimal,
    /// RFC 3339 in UTC with three fractional digits.
    Time,
    /// `YYYY-MM-DD`.
    Date,
    /// JSON, without floats.
    Json,
}

/// One field of a row: a column, a constant, a column with what its NULL becomes, or null.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<ColumnName>,
    /// A constant; beside a column, what NULL becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    /// What the value becomes; by the column's type when left out.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub becomes: Option<As>,
    /// Money: the currency, if it is not the merchant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Money: the column with the currency of each row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency_column: Option<ColumnName>,
    /// Money: the column holds minor units already.
    #[serde(default, skip_serializing_if = "is_false")]
    pub minor: bool,
    /// Money and quantities: digits beyond the scale are rounded (half to even) instead of putting the row into quarantine.
    #[serde(default, skip_serializing_if = "is_false")]
    pub round: bool,
    /// Times without a zone: the zone they are in; UTC when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Booleans: the opposite.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde asks for
fn is_false(value: &bool) -> bool {
    !*value
}

impl Field {
    /// A column as its type says.
    pub fn of(column: ColumnName) -> Self {
        Self { column: Some(column), ..Self::default() }
    }

    /// A constant.
    pub fn constant(value: impl Into<serde_json::Value>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }
}
