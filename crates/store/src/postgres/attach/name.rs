//! Names of tables and columns as people write them, and as SQL needs them.
//!
//! Case is kept: `public.Order` means the table that SQL calls `public."Order"`. Quotes are needed only around a name with a dot or a quote in it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A table, with its schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The table within it.
    pub name: String,
}

impl TableName {
    /// Makes a name of its two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// Parses `schema.table`, or `table` in `public`.
    pub fn parse(raw: &str) -> Option<Self> {
        match parts(raw)?.as_slice() {
            [name] => Some(Self::new("public", name)),
            [schema, name] => Some(Self::new(schema, name)),
            _more => None,
        }
    }

    /// As SQL needs it, every part quoted.
    pub fn sql(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", written(&self.schema), written(&self.name))
    }
}

impl Serialize for TableName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).ok_or_else(|| D::Error::custom(format!("{raw:?} is not a table: schema.table")))
    }
}

/// A column of the collection's table (`price`), or of a joined one (`orders.employee_id`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ColumnName {
    /// The name that the join was given; none for the collection's own table.
    pub of: Option<String>,
    /// The column.
    pub column: String,
}

impl ColumnName {
    /// A column of the collection's own table.
    pub fn own(column: impl Into<String>) -> Self {
        Self { of: None, column: column.into() }
    }

    /// A column of a joined table.
    pub fn joined(of: impl Into<String>, column: impl Into<String>) -> Self {
        Self { of: Some(of.into()), column: column.into() }
    }

    /// Parses `column` or `join.column`.
    pub fn parse(raw: &str) -> Option<Self> {
        match parts(raw)?.as_slice() {
            [column] => Some(Self::own(column)),
            [of, column] => Some(Self::joined(of, column)),
            _more => None,
        }
    }
}

impl fmt::Display for ColumnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Some(of) => write!(f, "{}.{}", written(of), written(&self.column)),
            None => f.write_str(&written(&self.column)),
        }
    }
}

impl Serialize for ColumnName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ColumnName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).ok_or_else(|| D::Error::custom(format!("{raw:?} is not a column: column or join.column")))
    }
}

/// A name as SQL needs it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a literal of SQL (`standard_conforming_strings` is on in our sessions and functions).
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn written(name: &str) -> String {
    if name.is_empty() || name.contains(['.', '"']) { quoted(name) } else { name.to_owned() }
}

/// Splits at the dots that stand outside quotes.
fn parts(raw: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = raw;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(inner) => quoted_part(inner)?,
            None => rest.find('.').map_or((rest.to_owned(), ""), |dot| (rest[..dot].to_owned(), &rest[dot..])),
        };
        if part.is_empty() || part.contains('\0') {
            return None;
        }
        found.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(found),
            None => return None,
        }
    }
}

fn quoted_part(inner: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = inner;
    loop {
        let end = rest.find('"')?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                part.push('"');
                rest = next;
            }
            None => return Some((part, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_keep_their_case_and_come_back_as_they_were_written() {
        for (raw, schema, name) in [("products", "public", "products"), ("Shop.Order", "Shop", "Order"), (r#"a."b.c""d""#, "a", "b.c\"d")] {
            let table = TableName::parse(raw).unwrap();
            assert_eq!((table.schema.as_str(), table.name.as_str()), (schema, name), "{raw}");
            assert_eq!(TableName::parse(&table.to_string()), Some(table));
        }
        assert_eq!(TableName::new("Shop", "a\"b").sql(), r#""Shop"."a""b""#);
        for bad in ["", ".", "a.", "a.b.c", "\"a", "\"a\"b"] {
            assert_eq!(TableName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_column_may_belong_to_a_join() {
        assert_eq!(ColumnName::parse("orders.employee_id"), Some(ColumnName::joined("orders", "employee_id")));
        assert_eq!(ColumnName::parse("\"a.b\""), Some(ColumnName::own("a.b")));
        assert_eq!(ColumnName::own("a.b").to_string(), "\"a.b\"");
    }
}
