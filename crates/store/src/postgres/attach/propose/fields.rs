//! The fields that are proposed for a table's columns.

use std::collections::BTreeMap;

use super::{
    super::{
        mapping::{As, Field},
        name::ColumnName,
        table::{Column, Family, Table},
    },
    Notes, Shape, words,
};

/// The names that a field of a built-in row goes by elsewhere.
type Synonyms = &'static [(&'static str, &'static [&'static str])];

const PRODUCT: Synonyms = &[
    ("sku", &["sku", "productcode", "code", "articleno"]),
    ("barcode", &["barcode", "ean", "gtin", "upc"]),
    ("name", &["name", "productname", "title", "nama"]),
    ("category", &["category", "categoryname", "categoryid", "kategori"]),
    ("unit", &["unit", "uom", "quantityperunit", "satuan"]),
    ("price", &["price", "unitprice", "sellingprice", "sellprice", "retailprice", "harga", "priceamount", "pricecents"]),
    ("stock", &["stock", "unitsinstock", "stockquantity", "stockqty", "quantity", "qty", "onhand", "quantityonhand", "stok"]),
    ("track_stock", &["trackstock", "isstocktracked"]),
    ("is_active", &["isactive", "active", "enabled", "isenabled"]),
    ("updated_at", &["updatedat", "modifiedat", "lastmodified", "updated", "updatedon"]),
];
const INVENTORY: Synonyms = &[
    ("name", &["name", "itemname", "nama", "title"]),
    ("unit", &["unit", "uom", "satuan"]),
    ("quantity", &["quantity", "qty", "stock", "onhand", "quantityonhand", "jumlah"]),
    ("reorder_level", &["reorderlevel", "minstock", "minimum", "minquantity"]),
    ("updated_at", &["updatedat", "modifiedat", "lastmodified", "updated", "updatedon"]),
];
const TRANSACTION: Synonyms = &[
    ("type", &["type", "transactiontype"]),
    ("status", &["status"]),
    ("receipt_no", &["receiptno", "receiptnumber", "invoiceno", "invoicenumber", "transactionnumber", "number"]),
    ("occurred_at", &["occurredat", "createdat", "transactiondate", "transactionat", "date"]),
    ("recorded_at", &["recordedat", "insertedat"]),
    ("total", &["total", "totalamount", "grandtotal", "amount"]),
    ("lines", &["lines", "items"]),
    ("tenders", &["tenders", "payments"]),
];
/// Columns that say the opposite of `is_active`.
const INACTIVE: &[&str] = &["discontinued", "isdiscontinued", "deleted", "isdeleted", "archived", "isarchived", "inactive"];

fn synonyms(shape: Shape) -> Synonyms {
    match shape {
        Shape::Product => PRODUCT,
        Shape::Inventory => INVENTORY,
        Shape::Transaction => TRANSACTION,
        Shape::Own => &[],
    }
}

/// The built-in shape that a table has by its name and its columns.
pub(super) fn shape(table: &Table) -> Shape {
    let name = words::plain(&table.name.name);
    let has = |shape: Shape, field: &str| synonyms(shape).iter().any(|(of, names)| *of == field && find(table, names).is_some());
    match name.as_str() {
        "product" | "products" if has(Shape::Product, "name") && has(Shape::Product, "price") => Shape::Product,
        "inventory" | "inventories" if has(Shape::Inventory, "quantity") => Shape::Inventory,
        "transaction" | "transactions" if has(Shape::Transaction, "total") || has(Shape::Transaction, "occurred_at") => Shape::Transaction,
        _other => Shape::Own,
    }
}

fn find<'a>(table: &'a Table, names: &[&str]) -> Option<&'a Column> {
    names.iter().find_map(|name| table.columns.iter().find(|column| words::plain(&column.name) == *name))
}

/// A field for every column that can be sent.
pub(super) fn all(table: &Table, shape: Shape, notes: &mut Notes) -> BTreeMap<String, Field> {
    let mut fields = BTreeMap::new();
    let mut used = Vec::new();
    for (field, names) in synonyms(shape) {
        let Some(column) = find(table, names).filter(|column| fits(field, column)) else { continue };
        used.push(column.name.as_str());
        fields.insert((*field).to_owned(), of_role(field, column, notes));
    }
    if shape == Shape::Product && !fields.contains_key("is_active") {
        let opposite = find(table, INACTIVE).filter(|column| matches!(column.family, Family::Boolean | Family::Integer));
        if let Some(column) = opposite {
            used.push(column.name.as_str());
            let field = Field { becomes: Some(As::Boolean), not: true, ..Field::of(ColumnName::own(&column.name)) };
            fields.insert("is_active".into(), field);
        }
    }
    for column in table.columns.iter().filter(|column| !used.contains(&column.name.as_str())) {
        match of_column(column) {
            Ok((field, note)) => {
                let name = name(&column.name, &fields);
                if let Some(note) = note {
                    notes.fields.insert(name.clone(), note);
                }
                fields.insert(name, field);
            }
            Err(why) => notes.left_out.push((column.name.clone(), why)),
        }
    }
    fields
}

/// A column's own name as the name of a field that is still free.
fn name(column: &str, taken: &BTreeMap<String, Field>) -> String {
    let clean: String = column.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).take(60).collect();
    let free = |name: &String| name != "id" && !taken.contains_key(name);
    let first = if clean.is_empty() || clean == "id" { format!("{clean}_value") } else { clean.clone() };
    std::iter::once(first).chain((2_u32..).map(|n| format!("{clean}_{n}"))).find(free).expect("there is no last number")
}

fn fits(field: &str, column: &Column) -> bool {
    let is_number = matches!(column.family, Family::Integer | Family::Numeric | Family::Float | Family::Money);
    match field {
        "price" | "total" => is_number,
        "stock" | "quantity" | "reorder_level" => is_number && column.family != Family::Money,
        "updated_at" | "recorded_at" => matches!(column.family, Family::Time | Family::LocalTime),
        "occurred_at" => matches!(column.family, Family::Time | Family::LocalTime | Family::Date),
        "is_active" | "track_stock" => column.family == Family::Boolean,
        "lines" | "tenders" => column.family == Family::Json,
        _text => !matches!(column.family, Family::Bytes | Family::Json | Family::Composite | Family::Array),
    }
}

fn of_role(field: &str, column: &Column, notes: &mut Notes) -> Field {
    let of = Field::of(ColumnName::own(&column.name));
    let note = |notes: &mut Notes, text: Option<String>| {
        if let Some(text) = text {
            notes.fields.insert(field.to_owned(), text);
        }
    };
    match field {
        "price" | "total" => {
            let (field, text) = money(column);
            note(notes, text);
            field
        }
        "stock" | "quantity" | "reorder_level" => or(column, "0", quantity(ColumnName::own(&column.name))),
        "is_active" => or(column, true, of),
        "updated_at" | "recorded_at" | "occurred_at" | "track_stock" | "lines" | "tenders" => {
            note(notes, zone_note(column));
            of
        }
        _text => Field { becomes: (column.family != Family::Text).then_some(As::Text), ..of },
    }
}

/// What every till expects to be there, where the column may be NULL.
fn or(column: &Column, value: impl Into<serde_json::Value>, field: Field) -> Field {
    Field { value: (!column.not_null).then(|| value.into()), ..field }
}

/// A quantity of a column.
pub(super) fn quantity(column: ColumnName) -> Field {
    Field { becomes: Some(As::Quantity), ..Field::of(column) }
}

fn money(column: &Column) -> (Field, Option<String>) {
    let minor = words::is_minor(&column.name);
    let note = if column.family == Family::Integer && !minor {
        Some("whole units of the currency; `minor = true` if these are cents already")
    } else {
        (column.family == Family::Float)
            .then_some("a float: exact at the currency's decimals, or the row is quarantined; `round = true` rounds instead")
    };
    let note = note.map(str::to_owned);
    (Field { becomes: Some(As::Money), minor, ..Field::of(ColumnName::own(&column.name)) }, note)
}

fn zone_note(column: &Column) -> Option<String> {
    (column.family == Family::LocalTime).then(|| "a time without zone, taken as UTC; `zone = \"Asia/Jakarta\"` if it is local".to_owned())
}

/// What a column becomes under its own name, with a note; or why it is not sent.
pub(in super::super) fn of_column(column: &Column) -> Result<(Field, Option<String>), String> {
    if words::is_secret(&column.name) {
        return Err("looks like a secret".into());
    }
    if column.family == Family::Bytes {
        return Err("bytes are not sent".into());
    }
    if column.family == Family::Other
        && ["tsvector", "xml", "geometry", "geography", "point", "polygon"].iter().any(|name| column.cast.ends_with(name))
    {
        return Err(format!("{} is of no use on a device", column.cast));
    }
    let is_number = matches!(column.family, Family::Integer | Family::Numeric | Family::Float);
    let is_reference = words::words(&column.name).last().is_some_and(|word| word == "id");
    if column.family == Family::Money || (is_number && !is_reference && words::is_money(&column.name)) {
        return Ok(money(column));
    }
    if is_number && !is_reference && words::is_quantity(&column.name) {
        return Ok((quantity(ColumnName::own(&column.name)), None));
    }
    let note = if column.cast == "bigint" {
        Some("beyond ±(2^53−1) the row is quarantined; `as = \"text\"` sends any number".to_owned())
    } else if matches!(column.family, Family::Json | Family::Array | Family::Composite) {
        Some("floats inside put the row into quarantine; `as = \"text\"` sends the text".to_owned())
    } else {
        zone_note(column)
    };
    Ok((Field::of(ColumnName::own(&column.name)), note))
}

/// What a built-in row must have and the table does not.
pub(super) fn complete(shape: Shape, table: &Table, fields: &mut BTreeMap<String, Field>, notes: &mut Notes) {
    let has_stock = fields.contains_key("stock");
    let key = table.row_key().unwrap_or_default();
    let sku = match key {
        [only] => Field { becomes: Some(As::Text), ..Field::of(ColumnName::own(only)) },
        _several => Field::constant(""),
    };
    let defaults: Vec<(&str, Field)> = match shape {
        Shape::Product => vec![
            ("sku", sku),
            ("barcode", Field::default()),
            ("category", Field::default()),
            ("unit", Field::constant("pcs")),
            ("stock", Field::constant("0")),
            ("track_stock", Field::constant(has_stock)),
            ("is_active", Field::constant(true)),
            ("updated_at", Field::default()),
        ],
        Shape::Inventory => {
            vec![("name", sku), ("unit", Field::constant("pcs")), ("reorder_level", Field::constant("0")), ("updated_at", Field::default())]
        }
        Shape::Transaction => vec![("type", Field::constant("sale")), ("status", Field::constant("completed"))],
        Shape::Own => Vec::new(),
    };
    for (name, field) in defaults {
        if !fields.contains_key(name) {
            notes.fields.insert(name.to_owned(), "no column for it".into());
            fields.insert(name.to_owned(), field);
        }
    }
}
