//! Keys of foreign tables as row ids, and back.
//!
//! One column: its text. Several: their texts joined by `:`, where `%` and `:` within a part are written `%25` and `%3A`. The same encoding is
//! made here, in the capture triggers and in every query, by the expressions that this file writes.

use super::{
    name::quoted,
    table::{Column, Family},
};

/// Why a column cannot be part of an id.
pub(super) fn refusal(column: &Column) -> Option<&'static str> {
    match column.family {
        Family::Float => Some("a float has no one spelling"),
        Family::Bytes => Some("bytes have no text form that a device could use"),
        Family::Json | Family::Array | Family::Composite => Some("it is not a single value"),
        Family::Money => Some("its spelling depends on the locale of whoever reads it"),
        Family::Integer
        | Family::Numeric
        | Family::Text
        | Family::Boolean
        | Family::Uuid
        | Family::Enum
        | Family::Date
        | Family::Time
        | Family::LocalTime
        | Family::Other => None,
    }
}

/// The text of a value, the same in every session, whatever its settings. `at` is the table's alias.
pub(super) fn text_sql(at: &str, column: &Column) -> String {
    let value = format!("{at}.{}", quoted(&column.name));
    match column.family {
        Family::Date | Family::LocalTime => format!("(pg_catalog.to_json({value}) #>> '{{}}')"),
        Family::Time => format!("(pg_catalog.to_json({value} AT TIME ZONE 'UTC') #>> '{{}}')"),
        Family::Integer
        | Family::Numeric
        | Family::Float
        | Family::Money
        | Family::Text
        | Family::Boolean
        | Family::Uuid
        | Family::Enum
        | Family::Json
        | Family::Array
        | Family::Bytes
        | Family::Composite
        | Family::Other => format!("{value}::text"),
    }
}

/// A value as the name of a merchant or branch. Most can be one as they are, and are not given to the function for the others: PostgreSQL parses and plans
/// that anew for every statement.
pub(super) fn segment_sql(at: &str, column: &Column) -> String {
    let text = text_sql(at, column);
    format!(
        r#"(CASE WHEN {text} COLLATE "C" ~ '^[A-Za-z0-9_-]{{1,64}}$' AND {text} COLLATE "C" NOT IN ('admin', 'devices') THEN {text} ELSE mstore.segment({text}) END)"#
    )
}

/// The id of a row, NULL if any part is.
pub(super) fn id_sql(at: &str, key: &[&Column]) -> String {
    if let [column] = key {
        return text_sql(at, column);
    }
    let part = |column: &&Column| {
        let is_plain = matches!(column.family, Family::Integer | Family::Uuid | Family::Boolean | Family::Date);
        let text = text_sql(at, column);
        if is_plain { text } else { format!("replace(replace({text}, '%', '%25'), ':', '%3A')") }
    };
    key.iter().map(part).collect::<Vec<_>>().join(" || ':' || ")
}

/// Whether an index finds a value by its text: the text can be cast without risk. A label or spelling that the type does not know would fail the whole query.
pub(super) fn is_found_by_index(column: &Column) -> bool {
    !matches!(column.family, Family::Enum | Family::Other)
}

/// That a column equals a text given as parameter, by an index where that can be.
pub(super) fn equals_sql(at: &str, column: &Column, text: &str) -> String {
    if !is_found_by_index(column) {
        return format!("{} = {text}", text_sql(at, column));
    }
    format!("{at}.{} = {}", quoted(&column.name), cast_sql(column, text))
}

/// A text parameter as a value of the column's type.
pub(super) fn cast_sql(column: &Column, text: &str) -> String {
    if column.family == Family::Time { format!("({text}::timestamp AT TIME ZONE 'UTC')") } else { format!("{text}::{}", column.cast) }
}

/// The parts of an id; `None` when no row of this table can have it.
pub(super) fn parts(id: &str, key: &[&Column]) -> Option<Vec<String>> {
    let parts: Vec<String> = match key {
        [_one] => vec![id.to_owned()],
        _several => id.split(':').map(|part| part.replace("%3A", ":").replace("%25", "%")).collect(),
    };
    let fits = parts.len() == key.len() && parts.iter().zip(key).all(|(part, column)| fits(part, column));
    fits.then_some(parts)
}

/// Whether a cast of this text to the column's type would succeed.
fn fits(text: &str, column: &Column) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match column.family {
        Family::Integer => match column.cast.as_str() {
            "smallint" => text.parse::<i16>().is_ok(),
            "integer" => text.parse::<i32>().is_ok(),
            _bigint => text.parse::<i64>().is_ok(),
        },
        Family::Numeric => is_endless(text) || text == "NaN" || text.strip_prefix('-').unwrap_or(text).splitn(2, '.').all(digits),
        Family::Uuid => text.len() == 36 && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()),
        Family::Boolean => matches!(text, "true" | "false"),
        Family::Date => is_endless(text) || is_date(text.strip_suffix(" BC").unwrap_or(text)),
        Family::Time | Family::LocalTime => is_endless(text) || text.split_once('T').is_some_and(|(date, _time)| is_date(date)),
        Family::Float
        | Family::Money
        | Family::Text
        | Family::Enum
        | Family::Json
        | Family::Array
        | Family::Bytes
        | Family::Composite
        | Family::Other => true,
    }
}

fn is_endless(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "infinity" | "-infinity")
}

fn is_date(text: &str) -> bool {
    text.len() >= 10 && text.splitn(3, '-').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn column(name: &str, cast: &str, family: Family) -> Column {
        Column { name: name.into(), cast: cast.into(), family, scale: None, not_null: true, generated: false, labels: Vec::new() }
    }

    #[test]
    fn a_single_key_is_its_text() {
        let key = column("k", "text", Family::Text);
        assert_eq!(id_sql("t", &[&key]), r#"t."k"::text"#);
        assert_eq!(parts("a:b%", &[&key]).unwrap(), ["a:b%"]);
    }

    #[test]
    fn parts_come_back_whatever_is_in_them() {
        let (order, name) = (column("o", "smallint", Family::Integer), column("n", "text", Family::Text));
        let key = [&order, &name];
        assert_eq!(parts("10248:a%3Ab%2525", &key).unwrap(), ["10248", "a:b%25"]);
        for other in ["10248", "10248:a:b", "x:a", "99999:a"] {
            assert_eq!(parts(other, &key), None, "{other}");
        }
    }
}
