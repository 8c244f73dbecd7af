//! Reads the catalogue: every table that is not the system's or ours, in one query.

use tokio_postgres::GenericClient;

use super::{AttachError, name::TableName, table::Table};

/// One JSON object for each relation; `$1` restricts to some names (`schema`, `name` side by side), NULL gives all that are not partitions.
const LOOK: &str = "
WITH RECURSIVE base AS (
  SELECT oid AS type, oid AS base FROM pg_catalog.pg_type WHERE typtype <> 'd'
  UNION ALL
  SELECT d.oid, b.base FROM base b JOIN pg_catalog.pg_type d ON d.typtype = 'd' AND d.typbasetype = b.type
), below AS (
  SELECT i.inhparent AS top, i.inhrelid AS part FROM pg_catalog.pg_inherits i
  UNION
  SELECT b.top, i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.part
)
SELECT json_build_object(
  'oid', c.oid::bigint, 'schema', n.nspname, 'relation', c.relname, 'kind', c.relkind,
  'columns', (SELECT coalesce(json_agg(json_build_object(
      'name', a.attname, 'cast', format_type(base.base, -1), 'type', t.typname, 'category', t.typcategory, 'sort', t.typtype,
      'scale', CASE WHEN t.typname = 'numeric' AND a.atttypmod > 4 THEN (a.atttypmod - 4) & 2047 END,
      'not_null', a.attnotnull, 'generated', a.attgenerated <> '',
      'labels', (SELECT coalesce(json_agg(e.enumlabel ORDER BY e.enumsortorder), '[]') FROM pg_enum e WHERE e.enumtypid = t.oid)) ORDER BY a.attnum), '[]')
    FROM pg_attribute a JOIN base ON base.type = a.atttypid JOIN pg_type t ON t.oid = base.base
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'keys', (SELECT coalesce(json_agg(k.names ORDER BY k.indisprimary DESC, json_array_length(k.names), k.indexrelid), '[]') FROM (
    SELECT i.indisprimary, i.indexrelid, (SELECT json_agg(a.attname ORDER BY x.at) FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS x(number, at)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = x.number WHERE x.at <= i.indnkeyatts) AS names
    FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL) k),
  'indexes', (SELECT coalesce(json_agg(k.names), '[]') FROM (
    SELECT (SELECT json_agg(a.attname ORDER BY x.at) FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS x(number, at)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = x.number WHERE x.at <= i.indnkeyatts) AS names
    FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_am am ON am.oid = ic.relam
    WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND am.amname = 'btree') k),
  'references', (SELECT coalesce(json_agg(json_build_object(
      'columns', (SELECT json_agg(a.attname ORDER BY x.at) FROM unnest(r.conkey) WITH ORDINALITY AS x(number, at)
        JOIN pg_attribute a ON a.attrelid = r.conrelid AND a.attnum = x.number),
      'schema', fn.nspname, 'relation', f.relname,
      'targets', (SELECT json_agg(a.attname ORDER BY x.at) FROM unnest(r.confkey) WITH ORDINALITY AS x(number, at)
        JOIN pg_attribute a ON a.attrelid = r.confrelid AND a.attnum = x.number)) ORDER BY r.conname), '[]')
    FROM pg_constraint r JOIN pg_class f ON f.oid = r.confrelid JOIN pg_namespace fn ON fn.oid = f.relnamespace
    WHERE r.conrelid = c.oid AND r.contype = 'f'),
  'parts', (SELECT coalesce(json_agg(json_build_object('oid', p.oid::bigint, 'schema', pn.nspname, 'relation', p.relname, 'kind', p.relkind) ORDER BY p.oid), '[]')
    FROM below JOIN pg_class p ON p.oid = below.part JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE below.top = c.oid AND p.relkind IN ('r', 'p', 'f')),
  'rows_estimate', c.reltuples::bigint,
  'select', has_table_privilege(c.oid, 'SELECT'), 'owner', pg_has_role(c.relowner, 'USAGE'),
  'row_security', CASE WHEN has_table_privilege(c.oid, 'SELECT') THEN row_security_active(c.oid) ELSE false END)::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'mstore') AND n.nspname NOT LIKE 'pg\\_%'
  AND CASE WHEN $1::text[] IS NULL THEN NOT c.relispartition ELSE EXISTS (
    SELECT 1 FROM unnest($1::text[], $2::text[]) AS w(s, r) WHERE w.s = n.nspname AND w.r = c.relname) END
ORDER BY n.nspname, c.relname";

/// Every table, view and foreign table of the database that is not a part of another.
pub(super) async fn all(client: &impl GenericClient) -> Result<Vec<Table>, AttachError> {
    let none: Option<Vec<String>> = None;
    let rows = client.query(LOOK, &[&none, &none]).await?;
    rows.iter().map(|row| raw::parse(row.get(0))).collect()
}

/// Some tables by name; those that do not exist are left out.
pub(super) async fn some(client: &impl GenericClient, names: &[TableName]) -> Result<Vec<Table>, AttachError> {
    let (schemas, relations): (Vec<_>, Vec<_>) = names.iter().map(|name| (name.schema.as_str(), name.name.as_str())).unzip();
    let rows = client.query(LOOK, &[&Some(schemas), &Some(relations)]).await?;
    rows.iter().map(|row| raw::parse(row.get(0))).collect()
}

mod raw {
    //! What the query answers, before it is ours.

    use serde::Deserialize;

    use super::super::{
        AttachError,
        name::TableName,
        table::{self, Column, Family, Kind, Part, Rights, Table},
    };

    #[derive(Deserialize)]
    struct Relation {
        oid: u32,
        schema: String,
        relation: String,
        kind: Kind,
        columns: Vec<RawColumn>,
        keys: Vec<Vec<String>>,
        indexes: Vec<Vec<String>>,
        references: Vec<RawReference>,
        parts: Vec<RawPart>,
        rows_estimate: i64,
        select: bool,
        owner: bool,
        row_security: bool,
    }

    #[derive(Deserialize)]
    struct RawColumn {
        name: String,
        cast: String,
        #[serde(rename = "type")]
        type_name: String,
        category: String,
        sort: String,
        scale: Option<i32>,
        not_null: bool,
        generated: bool,
        labels: Vec<String>,
    }

    #[derive(Deserialize)]
    struct RawReference {
        columns: Vec<String>,
        schema: String,
        relation: String,
        targets: Vec<String>,
    }

    #[derive(Deserialize)]
    struct RawPart {
        oid: u32,
        schema: String,
        relation: String,
        kind: Kind,
    }

    pub(super) fn parse(text: &str) -> Result<Table, AttachError> {
        let raw: Relation = serde_json::from_str(text)?;
        let part = |part: RawPart| Part {
            oid: part.oid,
            name: TableName::new(part.schema, part.relation),
            has_triggers: part.kind.has_triggers(),
        };
        let reference = |reference: RawReference| table::Reference {
            columns: reference.columns,
            table: TableName::new(reference.schema, reference.relation),
            targets: reference.targets,
        };
        Ok(Table {
            oid: raw.oid,
            name: TableName::new(raw.schema, raw.relation),
            kind: raw.kind,
            columns: raw.columns.into_iter().map(column).collect(),
            keys: raw.keys,
            indexes: raw.indexes,
            references: raw.references.into_iter().map(reference).collect(),
            parts: raw.parts.into_iter().map(part).collect(),
            rows_estimate: raw.rows_estimate,
            rights: Rights { select: raw.select, owner: raw.owner, row_security: raw.row_security },
        })
    }

    fn column(raw: RawColumn) -> Column {
        let family = match (raw.type_name.as_str(), raw.sort.as_str(), raw.category.as_str()) {
            ("int2" | "int4" | "int8", ..) => Family::Integer,
            ("numeric", ..) => Family::Numeric,
            ("float4" | "float8", ..) => Family::Float,
            ("money", ..) => Family::Money,
            ("bool", ..) => Family::Boolean,
            ("uuid", ..) => Family::Uuid,
            ("date", ..) => Family::Date,
            ("timestamptz", ..) => Family::Time,
            ("timestamp", ..) => Family::LocalTime,
            ("json" | "jsonb", ..) => Family::Json,
            ("bytea", ..) => Family::Bytes,
            (_, "e", _) => Family::Enum,
            (_, "c", _) => Family::Composite,
            (_, _, "A") => Family::Array,
            (_, _, "S") => Family::Text,
            _other => Family::Other,
        };
        Column {
            name: raw.name,
            cast: raw.cast,
            family,
            scale: raw.scale,
            not_null: raw.not_null,
            generated: raw.generated,
            labels: raw.labels,
        }
    }
}
