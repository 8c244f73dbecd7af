//! The mapping as a file: TOML, written with what a reader has to know beside every line, read back without forgiving a name that nobody knows.

use std::{fmt::Write as _, path::Path};

use mstore_protocol::{Code, did_you_mean};
use mstore_store::postgres::attach::{
    Notes, Proposal,
    mapping::{As, CollectionMapping, Field, Mapping, NewBranch, Place},
    table::Table,
};

use crate::failure::Failure;

/// Reads a mapping.
pub(super) fn read(path: &Path) -> Result<Mapping, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?;
    let code = Code::AttachMappingInvalid;
    parse(&text).map_err(|why| Failure::usage(format!("{}: {why} ({code})", path.display())).next(code.next_step()))
}

fn parse(text: &str) -> Result<Mapping, String> {
    toml::from_str(text).map_err(|error| {
        let hint = hint(error.message()).map_or_else(String::new, |hint| format!("; {hint}"));
        format!("{}{hint}", error.to_string().trim_end())
    })
}

/// What an unknown name may have meant: the parser says "unknown field `nmae`, expected one of `name`, `table`".
fn hint(message: &str) -> Option<String> {
    let (typed, known) = message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?.split_once(',')?;
    let names = |text: &'_ str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<String>>();
    let (typed, known) = (names(typed), names(known));
    Some(did_you_mean(typed.first()?, known.iter().map(String::as_str)))
}

/// A name that can be an id of ours.
pub(super) fn segment(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' }).take(64).collect();
    if clean.is_empty() || clean == "admin" || clean == "devices" { "m1".into() } else { clean }
}

const TOP: &str = "\
# What devices get of this database, and under which names. Edit it, then run `mstore-sync attach --config` with this file again, as often as you like.
#
# branch and merchant   { fixed = \"b1\" }, { column = \"branch_id\" }, { column = \"orders.branch_id\" } with a [[collection.join]], or { every = true }:
#                       every branch of the merchant has all rows
# key                   columns of a unique index; the row id is their text, several joined by `:` (`%` and `:` within a text become %25 and %3A)
# fields                name = { column = \"…\", as = \"text|integer|boolean|money|quantity|decimal|time|date|json\" }, { value = … }, both (value: what NULL becomes), or {} for null
#                       money: currency, currency_column, minor = true (the column holds minor units), round = true; boolean: not = true;
#                       times without a zone: zone = \"Asia/Jakarta\"
# A row that does not fit its fields is quarantined with the reason (alarm row_quarantined); all others flow.
";

/// A proposal as a file.
pub(super) fn text(proposal: &Proposal, tables: &[Table], is_currency_known: bool) -> String {
    let mut out = TOP.to_owned();
    let Mapping { merchant, branches, collections } = &proposal.mapping;
    let guess = if is_currency_known { "" } else { "  # a guess: no table says it" };
    line(
        &mut out,
        format!(
            "\n[merchant]\nid = {}\nname = {}\ncurrency = {}{guess}",
            quoted(&merchant.id),
            quoted(&merchant.name),
            quoted(&merchant.currency)
        ),
    );
    line(&mut out, "\n[branches]".into());
    let new = if branches.new == NewBranch::Create { "create" } else { "alarm" };
    line(
        &mut out,
        format!(
            "new = {}  # a branch value that nobody has seen before: \"create\" makes the branch, \"alarm\" keeps its rows back",
            quoted(new)
        ),
    );
    if let Some(table) = &branches.table {
        line(&mut out, format!("table = {}", quoted(&table.to_string())));
    }
    for (key, value) in [("key", &branches.key), ("name", &branches.name), ("merchant", &branches.merchant)] {
        if let Some(value) = value {
            line(&mut out, format!("{key} = {}", quoted(value)));
        }
    }
    let nothing = Notes::default();
    for mapping in collections {
        let rows = tables.iter().find(|table| table.name == mapping.table).map_or(-1, |table| table.rows_estimate);
        collection(&mut out, mapping, proposal.notes.get(&mapping.name).unwrap_or(&nothing), rows);
    }
    if !proposal.skipped.is_empty() {
        line(&mut out, "\n# Not proposed:".into());
        for (table, why) in &proposal.skipped {
            line(&mut out, format!("#   {table}: {why}"));
        }
    }
    out
}

fn line(out: &mut String, text: String) {
    out.push_str(&text);
    out.push('\n');
}

fn collection(out: &mut String, mapping: &CollectionMapping, notes: &Notes, rows: i64) {
    let count = if rows < 0 { "never analysed".to_owned() } else { format!("about {rows} rows") };
    line(out, format!("\n# {}, {count}", mapping.table));
    for note in &notes.about {
        line(out, format!("# {note}"));
    }
    let key: Vec<String> = mapping.key.iter().map(|column| quoted(column)).collect();
    line(out, format!("[[collection]]\nname = {}\ntable = {}", quoted(&mapping.name), quoted(&mapping.table.to_string())));
    line(out, format!("enabled = {}\nkey = [{}]", mapping.enabled, key.join(", ")));
    line(out, format!("merchant = {}\nbranch = {}", place(&mapping.merchant), place(&mapping.branch)));
    line(out, "new_columns = \"ignore\"  # or \"send\": a column that is added later".into());
    if let Some(window) = &mapping.window {
        let zone = window.zone.as_ref().map_or_else(String::new, |zone| format!(", zone = {}", quoted(zone)));
        line(out, format!("window = {{ column = {}, days = {}{zone} }}", quoted(&window.column.to_string()), window.days));
    }
    line(out, "\n[collection.fields]".into());
    for (name, of) in &mapping.fields {
        let note = notes.fields.get(name).map_or_else(String::new, |note| format!("  # {note}"));
        line(out, format!("{} = {}{note}", key_of(name), field(of)));
    }
    for (column, why) in &notes.left_out {
        line(out, format!("# {column}: not sent: {why}"));
    }
    for join in &mapping.joins {
        let on: Vec<String> = join.on.iter().map(|(column, left)| format!("{} = {}", key_of(column), quoted(left))).collect();
        line(out, format!("\n[[collection.join]]\ntable = {}\nas = {}", quoted(&join.table.to_string()), quoted(&join.alias)));
        line(out, format!("on = {{ {} }}", on.join(", ")));
    }
}

fn place(place: &Place) -> String {
    match place {
        Place::Fixed { fixed } => format!("{{ fixed = {} }}", quoted(fixed)),
        Place::Column { column } => format!("{{ column = {} }}", quoted(&column.to_string())),
        Place::Every { every } => format!("{{ every = {every} }}"),
    }
}

fn field(field: &Field) -> String {
    let mut parts = Vec::new();
    if let Some(column) = &field.column {
        parts.push(format!("column = {}", quoted(&column.to_string())));
    }
    if let Some(value) = &field.value {
        let value = value.as_str().map_or_else(|| value.to_string(), quoted);
        parts.push(format!("value = {value}"));
    }
    if let Some(becomes) = field.becomes {
        parts.push(format!("as = {}", quoted(as_name(becomes))));
    }
    for (key, value) in [("currency", &field.currency), ("zone", &field.zone)] {
        if let Some(value) = value {
            parts.push(format!("{key} = {}", quoted(value)));
        }
    }
    if let Some(column) = &field.currency_column {
        parts.push(format!("currency_column = {}", quoted(&column.to_string())));
    }
    for (key, is_set) in [("minor", field.minor), ("round", field.round), ("not", field.not)] {
        if is_set {
            parts.push(format!("{key} = true"));
        }
    }
    if parts.is_empty() { "{}".into() } else { format!("{{ {} }}", parts.join(", ")) }
}

fn as_name(becomes: As) -> &'static str {
    match becomes {
        As::Text => "text",
        As::Integer => "integer",
        As::Boolean => "boolean",
        As::Money => "money",
        As::Quantity => "quantity",
        As::Decimal => "decimal",
        As::Time => "time",
        As::Date => "date",
        As::Json => "json",
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => write!(out, "\\u{:04X}", u32::from(c)).expect("writing to a string does not fail"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn key_of(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if is_bare { name.to_owned() } else { quoted(name) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use mstore_store::postgres::attach::{
        ColumnName, TableName,
        mapping::{Branches, Join, MerchantMapping, NewColumns, Window},
    };

    use super::*;

    fn proposal() -> Proposal {
        let money = Field { becomes: Some(As::Money), round: true, ..Field::of(ColumnName::own("Unit \"Price\"")) };
        let fields = BTreeMap::from([
            ("price".to_owned(), money),
            ("barcode".to_owned(), Field::default()),
            ("unit".to_owned(), Field::constant("pcs")),
        ]);
        let collection = CollectionMapping {
            name: "product".into(),
            table: TableName::new("Shop", "Products.v2"),
            enabled: true,
            key: vec!["Id".into()],
            merchant: Place::Fixed { fixed: "m1".into() },
            branch: Place::Column { column: ColumnName::joined("orders", "branch") },
            new_columns: NewColumns::Ignore,
            window: Some(Window { column: ColumnName::joined("orders", "made at"), days: 30, zone: Some("Asia/Jakarta".into()) }),
            joins: vec![Join {
                table: TableName::new("public", "orders"),
                alias: "orders".into(),
                on: BTreeMap::from([("id".to_owned(), "order id".to_owned())]),
            }],
            watches: Vec::new(),
            fields,
        };
        let merchant = MerchantMapping { id: "m1".into(), name: "Toko \"Satu\"\n".into(), currency: "IDR".into() };
        let mapping = Mapping { merchant, branches: Branches::default(), collections: vec![collection] };
        let notes =
            Notes { about: vec!["A note.".into()], fields: BTreeMap::from([("price".to_owned(), "a float".to_owned())]), left_out: vec![] };
        Proposal {
            mapping,
            notes: BTreeMap::from([("product".to_owned(), notes)]),
            skipped: vec![(TableName::new("public", "log"), "no key".into())],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let proposal = proposal();
        let text = text(&proposal, &[], false);
        assert_eq!(parse(&text).unwrap(), proposal.mapping, "{text}");
        for said in ["# A note.", "# a float", "public.log: no key", "a guess"] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_refused() {
        let text = text(&proposal(), &[], true);
        for (good, bad, meant) in [
            ("round = true", "rounded = true", "did you mean \"round\"?"),
            ("branch = {", "branhc = {", "did you mean \"branch\"?"),
            ("fixed =", "fixde =", "did you mean \"fixed\"?"),
            ("currency =", "curency =", "did you mean \"currency\"?"),
            ("as = \"money\"", "as = \"mony\"", "did you mean \"money\"?"),
            ("[branches]", "[branchs]", "did you mean \"branches\"?"),
            ("{ fixed = \"m1\" }", "{ fixed = \"m1\", every = true }", "{ every = true }"),
        ] {
            assert!(text.contains(good), "{good}: {text}");
            let why = parse(&text.replace(good, bad)).unwrap_err();
            assert!(why.contains(meant) && why.contains("line "), "{bad}: {why}");
        }
    }
}
