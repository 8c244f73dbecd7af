//! The fields of a collection: which expressions they need and how their texts become JSON.

use mstore_protocol::Currency;

use super::{
    super::{
        convert::{Convert, CurrencyOf},
        mapping::{As, Field},
        name::{literal, quoted},
        table::{Column, Family},
    },
    Scope,
};

/// One field of a row.
#[derive(Debug, Clone)]
pub(in super::super) struct Compiled {
    pub(in super::super) name: String,
    pub(in super::super) value: Value,
}

/// Where a field's value comes from.
#[derive(Debug, Clone)]
pub(in super::super) enum Value {
    /// The row's id.
    Id,
    /// Always this JSON.
    Constant(String),
    /// A value of the query; this JSON where it is NULL, if there is one for that.
    Column { at: usize, convert: Convert, otherwise: Option<String> },
}

/// Checks the fields; gives them sorted by name, and the expressions that they need.
pub(super) fn compile(scope: &Scope<'_>, currency: Currency) -> Result<(Vec<Compiled>, Vec<String>), String> {
    let mut values = Vec::new();
    let mut fields = vec![Compiled { name: "id".into(), value: Value::Id }];
    for (name, field) in &scope.mapping.fields {
        let is_name = !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !is_name || name == "id" {
            return Err(format!("fields.{name}: a field is 1 to 64 of A-Z a-z 0-9 _ -, and `id` is made of the key"));
        }
        let value = value(scope, field, currency, &mut values).map_err(|why| format!("fields.{name}: {why}"))?;
        fields.push(Compiled { name: name.clone(), value });
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((fields, values))
}

fn value(scope: &Scope<'_>, field: &Field, currency: Currency, values: &mut Vec<String>) -> Result<Value, String> {
    let Some(name) = &field.column else {
        let constant = field.value.clone().unwrap_or_default();
        return Ok(Value::Constant(constant.to_string()));
    };
    let (alias, column) = scope.column(name)?;
    let becomes = field.becomes.map_or_else(|| default(column), Ok)?;
    let expression = expression(&alias, column, becomes, field.zone.as_deref())?;
    let at = push(values, expression);
    let convert = match becomes {
        As::Text => Convert::Text,
        As::Integer => Convert::Integer,
        As::Boolean => Convert::Boolean { not: field.not },
        As::Quantity => Convert::Quantity { round: field.round },
        As::Decimal => Convert::Decimal,
        As::Time => Convert::Time,
        As::Date => Convert::Date,
        As::Json => Convert::Json,
        As::Money => {
            let currency = match (&field.currency, &field.currency_column) {
                (Some(code), None) => CurrencyOf::Fixed(Currency::parse(code).map_err(|error| error.to_string())?),
                (None, None) => CurrencyOf::Fixed(currency),
                (None, Some(name)) => {
                    let (alias, column) = scope.column(name)?;
                    CurrencyOf::Value(push(values, format!("{alias}.{}::text", quoted(&column.name))))
                }
                (Some(_), Some(_)) => return Err("either currency or currency_column".into()),
            };
            Convert::Money { currency, minor: field.minor, round: field.round }
        }
    };
    Ok(Value::Column { at, convert, otherwise: field.value.as_ref().map(ToString::to_string) })
}

fn push(values: &mut Vec<String>, expression: String) -> usize {
    values.push(expression);
    values.len() - 1
}

/// What a column becomes when the mapping does not say.
fn default(column: &Column) -> Result<As, String> {
    Ok(match column.family {
        Family::Integer => As::Integer,
        Family::Numeric | Family::Float => As::Decimal,
        Family::Money => As::Money,
        Family::Boolean => As::Boolean,
        Family::Date => As::Date,
        Family::Time | Family::LocalTime => As::Time,
        Family::Json | Family::Array | Family::Composite => As::Json,
        Family::Text | Family::Uuid | Family::Enum | Family::Other => As::Text,
        Family::Bytes => return Err(format!("{} holds bytes, which are not sent", column.name)),
    })
}

/// The text that the conversion reads.
fn expression(alias: &str, column: &Column, becomes: As, zone: Option<&str>) -> Result<String, String> {
    let value = format!("{alias}.{}", quoted(&column.name));
    let refuse = || Err(format!("{} is {}, which cannot become {becomes:?}", column.name, column.cast));
    let is_number = matches!(column.family, Family::Integer | Family::Numeric | Family::Float | Family::Text);
    let as_json = |value: String| format!("(pg_catalog.to_json({value}) #>> '{{}}')");
    match (becomes, column.family) {
        (_, Family::Bytes) => refuse(),
        (As::Money | As::Quantity | As::Decimal, Family::Money) => Ok(format!("{value}::numeric::text")),
        (As::Time, Family::Time) => Ok(as_json(format!("{value} AT TIME ZONE 'UTC'"))),
        (As::Time, Family::LocalTime) => Ok(as_json(format!("{value} AT TIME ZONE {} AT TIME ZONE 'UTC'", literal(zone.unwrap_or("UTC"))))),
        (As::Date, Family::Date) => Ok(as_json(value)),
        (As::Time, Family::Text) | (As::Date, Family::Text) => Ok(format!("{value}::text")),
        (As::Time | As::Date, _) => refuse(),
        (As::Json, Family::Json | Family::Text) => Ok(format!("{value}::text")),
        (As::Json, _) => Ok(format!("pg_catalog.to_jsonb({value})::text")),
        (As::Money | As::Quantity | As::Decimal | As::Integer, _) if !is_number => refuse(),
        (As::Boolean, family) if !matches!(family, Family::Boolean | Family::Integer | Family::Text) => refuse(),
        (As::Text, Family::Date | Family::LocalTime) => Ok(as_json(value)),
        (As::Text, Family::Time) => Ok(as_json(format!("{value} AT TIME ZONE 'UTC'"))),
        (As::Text | As::Integer | As::Boolean | As::Money | As::Quantity | As::Decimal, _) => Ok(format!("{value}::text")),
    }
}
