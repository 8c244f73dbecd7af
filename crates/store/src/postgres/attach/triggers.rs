//! The SQL of capture: what is put on the tables of others, and how it is taken away.
//!
//! Each watched table gets one function in our schema and four statement-level triggers that call it, with transition tables, also on every
//! partition; they fire always, and write nothing but marks. A mark whose merchant is empty says that whoever sequences has to find out whose row it is
//! ([`super::resolve`]): `branch_id` then tells what `id` is.

use super::{
    key,
    name::{TableName, literal, quoted},
    source::{OWN, Related, Source},
    table::Table,
};

/// In an unresolved mark's `branch_id`: the id is a row's id.
pub(super) const A_ROW: &str = "";
/// In an unresolved mark's `branch_id`: every row of the collection. Otherwise it is the alias of a related table, and the id a key of that.
pub(super) const EVERYTHING: &str = "*";

/// What our triggers and functions are called like.
pub(super) const PREFIX: &str = "mstore_";

/// The capture of one table for one collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Capture {
    /// The function's name in our schema.
    pub(super) function: String,
    pub(super) table: Table,
    collection: String,
    rows: Rows,
    /// The mark of a TRUNCATE.
    all: String,
}

/// How marks are made of changed rows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rows {
    /// `SELECT merchant, branch, id FROM` what replaces `{rows}`.
    each: String,
    /// Whether merchant and branch are looked up among the known ones, once for each different mark.
    looked_up: LookUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LookUp {
    /// They are taken as they are.
    None,
    /// A row whose branch is not there yet, or NULL, is looked at by whoever sequences.
    OrUnresolved,
    /// A row of a branch that is not there concerns nobody.
    OrNothing,
}

/// Everything that a collection needs.
pub(super) fn captures(source: &Source) -> Vec<Capture> {
    let collection = source.collection.as_str();
    let all = format!("SELECT {}, '', {}, ''", literal(collection), literal(EVERYTHING));
    let capture = |n: usize, table: &Table, rows: Rows| Capture {
        function: function(collection, n),
        table: table.clone(),
        collection: collection.to_owned(),
        rows,
        all: all.clone(),
    };
    let mut captures = Vec::new();
    if source.table.kind.has_triggers() {
        captures.push(capture(0, &source.table, own(source)));
    }
    captures.extend((1..).zip(&source.related).map(|(n, related)| capture(n, &related.table, of_related(source, related))));
    captures
}

fn function(collection: &str, n: usize) -> String {
    format!("{}{n}", function_prefix(collection))
}

/// How the names of a collection's functions begin.
pub(super) fn function_prefix(collection: &str) -> String {
    format!("capture_{}_", short(collection))
}

/// A collection's name within PostgreSQL's 63 bytes, of which a trigger's prefix and suffix take some.
pub(super) fn short(collection: &str) -> String {
    use sha2::{Digest as _, Sha256};
    if collection.len() <= 36 {
        return collection.to_owned();
    }
    let hash = Sha256::digest(collection.as_bytes());
    format!("{}_{:02x}{:02x}{:02x}{:02x}", &collection[..26], hash[0], hash[1], hash[2], hash[3])
}

/// What is said of each row: byte by byte, for to some collations different ids are the same.
fn rows(merchant: &str, branch: &str, id: &str, looked_up: LookUp) -> Rows {
    let bytes = r#"COLLATE "C""#;
    Rows { each: format!("SELECT ({merchant}) {bytes}, ({branch}) {bytes}, ({id}) {bytes} FROM {{rows}} AS {OWN}"), looked_up }
}

/// Marks of the collection's own table.
fn own(source: &Source) -> Rows {
    let (merchant, id) = (&source.merchant, source.id_sql());
    if !source.is_direct {
        return rows("''", &literal(A_ROW), &id, LookUp::None);
    }
    match &source.branch {
        None => {
            rows(&format!("coalesce({merchant}, '')"), &format!("CASE WHEN {merchant} IS NULL THEN '' ELSE '*' END"), &id, LookUp::None)
        }
        Some(branch) if branch.starts_with('\'') && merchant.starts_with('\'') => rows(merchant, branch, &id, LookUp::None),
        Some(branch) => rows(merchant, branch, &id, LookUp::OrUnresolved),
    }
}

/// Marks of a table that rows depend on: its key, not the rows, so that a change to a parent of many costs its writer one mark, and so that rows
/// which another open transaction is adding are found as well.
fn of_related(source: &Source, related: &Related) -> Rows {
    let columns: Vec<_> = related.columns.iter().collect();
    let id = key::id_sql(OWN, &columns);
    if related.is_whole_key && related.branch.is_none() {
        return rows("''", &literal(A_ROW), &id, LookUp::None);
    }
    if let (Some(branch), true, true) = (&related.branch, related.is_whole_key, source.merchant.starts_with('\'')) {
        return rows(&source.merchant, &key::segment_sql(OWN, branch), &id, LookUp::OrNothing);
    }
    rows("''", &literal(&related.alias), &id, LookUp::None)
}

impl Rows {
    /// Marks of a statement's rows, each once, of which `sets` are the transition tables. A NULL id would fail the writer; no row can have the empty one.
    fn marks(&self, collection: &str, sets: &[&str]) -> String {
        let each: Vec<String> = sets.iter().map(|set| self.each.replace("{rows}", set)).collect();
        let once = match each.as_slice() {
            [one] => one.replacen("SELECT ", "SELECT DISTINCT ", 1),
            several => several.join(" UNION "),
        };
        let known =
            "(SELECT k.merchant_id, k.branch_id FROM mstore.branch AS k WHERE k.merchant_id = s.m AND k.branch_id = s.b OFFSET 0) AS k";
        let (merchant, branch, join) = match self.looked_up {
            LookUp::None => ("s.m", "s.b", String::new()),
            LookUp::OrUnresolved => {
                ("coalesce(k.merchant_id, '')", "coalesce(k.branch_id, '')", format!("\n      LEFT JOIN LATERAL {known} ON true"))
            }
            LookUp::OrNothing => ("k.merchant_id", "k.branch_id", format!("\n      CROSS JOIN LATERAL {known}")),
        };
        let name = literal(collection);
        format!("{INSERT}\n    SELECT {name}, {merchant}, {branch}, s.i FROM ({once}) AS s(m, b, i){join} WHERE s.i IS NOT NULL")
    }
}

const INSERT: &str = "INSERT INTO mstore.mark (collection, merchant_id, branch_id, id)";

impl Capture {
    /// The statement that makes the function. A session plans it once, perhaps when there was one branch, and keeps the plan: `enable_seqscan` and OFFSET 0
    /// make it look branches up by their key.
    pub(super) fn function_sql(&self) -> String {
        let marks = |sets: &[&str]| self.rows.marks(&self.collection, sets);
        format!(
            "CREATE OR REPLACE FUNCTION mstore.{}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp SET enable_seqscan = off AS $mstore$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    {};
  ELSIF TG_OP = 'INSERT' THEN
    {};
  ELSIF TG_OP = 'DELETE' THEN
    {};
  ELSE
    {INSERT} {};
  END IF;
  RETURN NULL;
END
$mstore$",
            quoted(&self.function),
            marks(&["old_rows", "new_rows"]),
            marks(&["new_rows"]),
            marks(&["old_rows"]),
            self.all
        )
    }

    /// Nobody else makes triggers of it.
    pub(super) fn revoke_sql(&self) -> String {
        format!("REVOKE ALL ON FUNCTION mstore.{}() FROM PUBLIC", quoted(&self.function))
    }

    /// The tables that get triggers: itself and its parts.
    pub(super) fn tables(&self) -> impl Iterator<Item = (u32, &TableName)> {
        let parts = self.table.parts.iter().filter(|part| part.has_triggers).map(|part| (part.oid, &part.name));
        std::iter::once((self.table.oid, &self.table.name)).chain(parts)
    }

    /// The statements that put the triggers on one table: one short transaction.
    pub(super) fn triggers_sql(&self, table: &TableName) -> Vec<String> {
        let mut statements = Vec::new();
        for (suffix, event, rows) in EVENTS {
            let trigger = quoted(&self.trigger(suffix));
            statements.push(format!("DROP TRIGGER IF EXISTS {trigger} ON {}", table.sql()));
            statements.push(format!(
                "CREATE TRIGGER {trigger} AFTER {event} ON {}{rows} FOR EACH STATEMENT EXECUTE FUNCTION mstore.{}()",
                table.sql(),
                quoted(&self.function)
            ));
            statements.push(format!("ALTER TABLE {} ENABLE ALWAYS TRIGGER {trigger}", table.sql()));
        }
        statements
    }

    /// The names of its triggers.
    pub(super) fn trigger_names(&self) -> impl Iterator<Item = String> {
        EVENTS.iter().map(|(suffix, ..)| self.trigger(suffix))
    }

    fn trigger(&self, suffix: &str) -> String {
        format!("{PREFIX}{}_{suffix}", self.function)
    }
}

/// Short name, event, transition tables.
const EVENTS: [(&str, &str, &str); 4] = [
    ("ins", "INSERT", " REFERENCING NEW TABLE AS new_rows"),
    ("upd", "UPDATE", " REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    ("del", "DELETE", " REFERENCING OLD TABLE AS old_rows"),
    ("tru", "TRUNCATE", ""),
];
