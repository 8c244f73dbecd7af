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
    /// `SELECT collection, merchant, branch, id FROM` what replaces `{rows}`.
    select: String,
    /// The mark of a TRUNCATE.
    all: String,
}

/// Everything that a collection needs.
pub(super) fn captures(source: &Source) -> Vec<Capture> {
    let collection = source.collection.as_str();
    let all = format!("SELECT {}, '', {}, ''", literal(collection), literal(EVERYTHING));
    let mut captures = Vec::new();
    if source.table.kind.has_triggers() {
        captures.push(Capture { function: function(collection, 0), table: source.table.clone(), select: own(source), all: all.clone() });
    }
    for (n, related) in (1..).zip(&source.related) {
        captures.push(Capture {
            function: function(collection, n),
            table: related.table.clone(),
            select: of_related(source, related),
            all: all.clone(),
        });
    }
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

/// Marks of the collection's own table.
fn own(source: &Source) -> String {
    let name = literal(source.collection.as_str());
    let id = source.id_sql();
    if !source.is_direct {
        return format!("SELECT {name}, '', {}, {id} FROM {{rows}} AS {OWN}", literal(A_ROW));
    }
    match &source.branch {
        None => format!(
            "SELECT {name}, coalesce({m}, ''), CASE WHEN {m} IS NULL THEN '' ELSE '*' END, {id} FROM {{rows}} AS {OWN}",
            m = source.merchant
        ),
        Some(branch) if branch.starts_with('\'') && source.merchant.starts_with('\'') => {
            format!("SELECT {name}, {}, {branch}, {id} FROM {{rows}} AS {OWN}", source.merchant)
        }
        // A row whose branch is not there yet, or NULL, is looked at by whoever sequences.
        Some(branch) => format!(
            "SELECT {name}, coalesce(b.merchant_id, ''), coalesce(b.branch_id, ''), {id} FROM {{rows}} AS {OWN}
      LEFT JOIN LATERAL (SELECT b.merchant_id, b.branch_id FROM mstore.branch AS b WHERE b.merchant_id = {} AND b.branch_id = {branch} OFFSET 0) AS b ON true",
            source.merchant
        ),
    }
}

/// Marks of a table that rows depend on: its key, not the rows, so that a change to a parent of many costs its writer one mark, and so that rows
/// which another open transaction is adding are found as well.
fn of_related(source: &Source, related: &Related) -> String {
    let name = literal(source.collection.as_str());
    let columns: Vec<_> = related.columns.iter().collect();
    let id = key::id_sql(OWN, &columns);
    if related.is_whole_key && related.branch.is_none() {
        return format!("SELECT {name}, '', {}, {id} FROM {{rows}} AS {OWN}", literal(A_ROW));
    }
    if let (Some(branch), true, true) = (&related.branch, related.is_whole_key, source.merchant.starts_with('\'')) {
        let branch = format!("mstore.segment({})", key::text_sql(OWN, branch));
        return format!(
            "SELECT {name}, b.merchant_id, b.branch_id, {id} FROM {{rows}} AS {OWN}
      CROSS JOIN LATERAL (SELECT b.merchant_id, b.branch_id FROM mstore.branch AS b WHERE b.merchant_id = {} AND b.branch_id = {branch} OFFSET 0) AS b",
            source.merchant
        );
    }
    format!("SELECT {name}, '', {}, {id} FROM {{rows}} AS {OWN}", literal(&related.alias))
}

impl Capture {
    /// The statement that makes the function. A session plans it once, perhaps when there was one branch, and keeps the plan: `enable_seqscan` and OFFSET 0
    /// make it look branches up by their key.
    pub(super) fn function_sql(&self) -> String {
        let insert = "INSERT INTO mstore.mark (collection, merchant_id, branch_id, id)";
        // A NULL id would fail the writer; no row can have the empty one.
        let marks = |select: String| format!("{insert}\n    SELECT c, m, b, i FROM ({select}) AS s(c, m, b, i) WHERE i IS NOT NULL");
        let of = |rows: &str| self.select.replace("{rows}", rows);
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
    {insert} {};
  END IF;
  RETURN NULL;
END
$mstore$",
            quoted(&self.function),
            marks(format!("{} UNION {}", of("old_rows"), of("new_rows"))),
            marks(of("new_rows").replacen("SELECT ", "SELECT DISTINCT ", 1)),
            marks(of("old_rows").replacen("SELECT ", "SELECT DISTINCT ", 1)),
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
